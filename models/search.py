"""The search: candidates known to be good, then what Optuna proposes, until time, trials or hope run out.

Trials are begun and judged in a fixed order, a fixed number of them side by side, so that the same number of trials
gives the same result on any number of cores.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
import optuna
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.inspection import permutation_importance
from threadpoolctl import threadpool_limits

from data_ingestion.handoff import PipelineError
from models.candidates import BOOSTING, Candidate, Problem, define_space, list_codes, list_known_good
from models.fold_work import FoldResult, FoldTable
from models.selection import Trial, rank_trials, to_error
from models.workers import Workers

AHEAD = 2  # trials that are begun before the result of one is used
OUT_OF_THE_RUNNING = 1.1  # a candidate whose first fold has so many times the best error is fitted on no other
MIN_ROWS_RACE = 1_000  # of a fold that is to say so
ROWS_PER_TRIAL = 25  # so many rows can tell one more candidate from chance
MIN_TRIALS, MAX_TRIALS = 12, 200
PROBE_ROWS, PROBE_ITERATIONS = 20_000, 60
JUDGED_VALUES = 120_000  # of the rows that are shuffled to find the strongest columns, all columns together
MIN_DISTINCT = 10  # values of a column that is worth pairing
N_STRONGEST = 6
USUAL_ITERATIONS = 1_000  # that boosting takes at the usual learning rate
FIT_SHARE = 0.2  # of the budget, that the folds of one candidate may take
CACHE_FACTOR = 1.5  # a row of many costs so much more time than one of the probe's
MAX_LEARNING_RATE = 0.3
FINISHING_S = 1.5  # seconds to choose, to judge golden rows and to write


@dataclass(frozen=True)
class Plan:
    """How long to search.

    Parameters
    ----------
    max_trials : candidates to try, the dummy apart
    deadline : `time.monotonic()` at which everything is to be done; None sets no time
    max_trees : that the model may have
    fit_s : seconds that boosting is likely to take for one fold
    """

    max_trials: int
    deadline: float | None
    max_trees: int
    fit_s: float = 0.0

    @property
    def time_left(self) -> float:
        """Seconds to the deadline."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()


@dataclass
class Search:
    """What has been tried so far.

    Parameters
    ----------
    trials : finished, in order
    is_interrupted : Ctrl-C ended it
    """

    trials: list[Trial] = field(default_factory=list)
    is_interrupted: bool = False


def plan_trials(n_rows: int, trials: int | None) -> int:
    """Return how many candidates to try: as many as asked for, else as many as the rows can tell apart."""
    return trials or min(max(n_rows // ROWS_PER_TRIAL, MIN_TRIALS), MAX_TRIALS)


def prepare_search(problem: Problem, table: FoldTable, plan: Plan, n_workers: int) -> tuple[Problem, Plan]:
    """Return the problem with the strongest columns and the learning rate to take, and the plan with a fit's time.

    Parameters
    ----------
    problem, table, plan : what to search for, on what, and how long
    n_workers : how many fits go on side by side
    """
    rng = np.random.default_rng(problem.seed)
    rows = np.sort(rng.permutation(len(table.y))[:PROBE_ROWS])
    X, y = pd.DataFrame(table.values[rows], columns=list(table.columns)), np.asarray(table.y[rows])
    kind = HistGradientBoostingClassifier if problem.is_classification else HistGradientBoostingRegressor
    probe = kind(
        max_iter=PROBE_ITERATIONS,
        early_stopping=False,
        max_features=0.5,
        random_state=problem.seed,
        categorical_features=list_codes(problem.columns) or None,
    )
    with threadpool_limits(1):
        started = time.monotonic()
        probe.fit(X, y)
        seconds = (time.monotonic() - started) / (PROBE_ITERATIONS * len(y))  # a row and iteration
        strongest = find_strongest(probe, X, y, problem)
    problem = replace(problem, strongest=strongest, max_iterations=min(problem.max_iterations, plan.max_trees))
    if plan.deadline is None:
        return problem, plan
    n_fit = [len(fit) for fit, _ in table.folds]
    iteration_s = seconds * float(np.mean(n_fit)) * (CACHE_FACTOR if max(n_fit) > 2 * PROBE_ROWS else 1)
    rounds = len(n_fit) / min(n_workers, len(n_fit))
    affordable = FIT_SHARE * plan.time_left / (iteration_s * rounds)
    rate = float(
        np.clip(problem.learning_rate * USUAL_ITERATIONS / max(affordable, 1), problem.learning_rate, MAX_LEARNING_RATE)
    )
    usual = USUAL_ITERATIONS * problem.learning_rate / rate
    if rate > problem.learning_rate:
        problem = replace(problem, max_iterations=min(problem.max_iterations, int(2 * usual)))
    return replace(problem, learning_rate=rate), replace(plan, fit_s=iteration_s * usual / 2)


def find_strongest(probe: object, X: pd.DataFrame, y: np.ndarray, problem: Problem) -> tuple[str, ...]:
    """Return the columns of numbers whose shuffling costs a fitted estimator most, the strongest first.

    Parameters
    ----------
    probe : fitted on X and y
    X, y : rows, not more than it takes
    problem : columns with a monotone effect are left out, because a difference would blur the sign
    """
    numbers = [
        name
        for name in X.columns
        if name.startswith(("number__", "mean__", "date__"))
        and "missingindicator_" not in name
        and not name.endswith(("_sin", "_cos"))
        and name not in problem.monotone
        and X[name].nunique() >= MIN_DISTINCT
    ]
    n_rows = min(max(JUDGED_VALUES // max(X.shape[1], 1), 500), len(X))
    scoring = "neg_log_loss" if problem.is_classification else "neg_root_mean_squared_error"
    found = permutation_importance(
        probe, X.iloc[:n_rows], y[:n_rows], scoring=scoring, n_repeats=1, random_state=problem.seed
    )
    importance = dict(zip(X.columns, found.importances_mean, strict=True))
    ranked = sorted(numbers, key=lambda name: -importance[name])
    return tuple(name for name in ranked[:N_STRONGEST] if importance[name] > 0)


def search(
    problem: Problem, table: FoldTable, plan: Plan, workers: Workers, report: Callable[[Search], None]
) -> Search:
    """Try candidates, and return what was tried.

    Parameters
    ----------
    problem : see `prepare_problem`
    table : the train rows, cut into folds
    plan : how long
    workers : fit the candidates
    report : called after each finished trial

    Raises
    ------
    KeyboardInterrupt : there is nothing to keep yet
    """
    done = Search()
    try:
        for trial in _run_trials(problem, table, plan, workers, done):
            done.trials.append(trial)
            report(done)
    except KeyboardInterrupt:
        if not any(trial.answers is not None and trial.candidate.family != "dummy" for trial in done.trials):
            raise
        done.is_interrupted = True
        workers.drop_work()
    return done


@dataclass
class _Running:
    """A trial that has been begun: its folds, as far as they were begun."""

    candidate: Candidate
    folds: "list[Future[FoldResult]]"
    path: str | None


def _run_trials(problem: Problem, table: FoldTable, plan: Plan, workers: Workers, done: Search) -> Iterator[Trial]:
    """Yield the finished trials in their order, at most `AHEAD` further ones being under way."""
    proposals = _propose_candidates(problem, done, table)
    running: deque[_Running] = deque()
    number = 0
    while True:
        candidate = next(proposals) if _is_time_for_more(number, plan, done, running, workers, table) else None
        if candidate is not None:
            path = workers.name_file(number) if len(table.folds) == 1 else None
            running.append(_Running(candidate, [workers.fit_fold(candidate, problem, 0, path)], path))
            number += 1
        if not running:
            return
        best = _find_best_first(done, table)
        for trial in list(running)[: -1 if candidate is not None else None]:
            _judge_first(trial, problem, table, workers, best)
        if candidate is None or len(running) > AHEAD:
            finished = _finish(running.popleft(), table)
            if finished is not None:
                yield finished


def _is_time_for_more(
    number: int, plan: Plan, done: Search, running: "deque[_Running]", workers: Workers, table: FoldTable
) -> bool:
    """Return whether another trial is allowed, and will be done in time to fit the members once more."""
    if number > plan.max_trials:  # the dummy is number 0
        return False
    if plan.deadline is None or number <= 2:  # a line and boosting at least
        return True
    tried = [trial for trial in done.trials if trial.candidate.family == "boosting"]
    slowest = max((trial.fit_s for trial in tried[-AHEAD - 3 :]), default=plan.fit_s)
    a_trial = slowest * len(table.folds) / min(workers.n_workers, len(table.folds) * (1 + AHEAD))
    refit = sum(trial.fit_s for trial in tried[-4:]) / workers.n_workers if len(table.folds) > 1 else 0.0
    return plan.time_left > a_trial * (len(running) + 1) + refit + FINISHING_S


def _propose_candidates(problem: Problem, done: Search, table: FoldTable) -> Iterator[Candidate]:
    """Yield the dummy, what is known to be good, and then whatever Optuna makes of the finished trials."""
    yield Candidate("dummy", "dummy")
    yield from list_known_good(problem)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=problem.seed, n_startup_trials=4)
    study, space, told = optuna.create_study(sampler=sampler), define_space(problem), 0
    for number in range(1, sys.maxsize):
        for trial in done.trials[told:]:
            if trial.candidate.family == "boosting":
                settings = {name: {**BOOSTING, **trial.candidate.settings}[name] for name in space}
                error = to_error(table.metric, trial.mean)
                study.add_trial(optuna.create_trial(value=error, params=settings, distributions=space))
        told = len(done.trials)
        yield Candidate(f"boosting {number}", "boosting", study.ask(fixed_distributions=space).params)


def _find_best_first(done: Search, table: FoldTable) -> float:
    """Return the least error on the first fold among the finished trials."""
    errors = [to_error(table.metric, float(trial.scores[0])) for trial in done.trials]
    return min((error for error in errors if not np.isnan(error)), default=float("inf"))


def _judge_first(trial: _Running, problem: Problem, table: FoldTable, workers: Workers, best: float) -> None:
    """Wait for a trial's first fold, and begin the others unless it is out of the running."""
    if len(trial.folds) > 1 or len(table.folds) == 1:
        return
    if trial.folds[0].exception() is not None:  # raised or told by `_finish`
        return
    error = to_error(table.metric, trial.folds[0].result().score)
    is_race = len(table.folds[0][1]) >= MIN_ROWS_RACE and trial.candidate.family != "dummy"
    if is_race and error > best * OUT_OF_THE_RUNNING:
        return
    for fold in range(1, len(table.folds)):
        trial.folds.append(workers.fit_fold(trial.candidate, problem, fold, None))


def _finish(running: _Running, table: FoldTable) -> Trial | None:
    """Wait for a trial's folds and return it, or None where the user's own estimator fails."""
    try:
        results = [future.result() for future in running.folds]
    except Exception as err:
        if running.candidate.family != "own" or isinstance(err, PipelineError):
            raise
        reason = " ".join(str(err).split())[:200]
        print(f"left out {running.candidate.name}: {type(err).__name__}: {reason}", file=sys.stderr)
        return None
    is_whole = len(results) == len(table.folds)

    def mean(name: str) -> float:
        return float(np.mean([getattr(result, name) for result in results]))

    return Trial(
        candidate=running.candidate,
        scores=np.array([result.score for result in results]),
        answers=np.concatenate([result.answers for result in results]) if is_whole else None,
        fit_s=mean("fit_s"),
        predict_us=mean("predict_us"),
        iterations=round(mean("iterations")),
        n_trees=round(mean("n_trees")),
        size_bytes=round(mean("size_bytes")),
        path=running.path,
    )


def describe_best(done: Search, table: FoldTable) -> tuple[int, str, float]:
    """Return the number of trials, the dummy apart, and name and score of the best."""
    best = rank_trials(done.trials, table.metric)[0]
    return len(done.trials) - 1, best.candidate.name, best.mean
