"""The search: candidates known to be good, then what Optuna proposes, until time, trials or hope run out.

Trials are begun and judged in a fixed order, a fixed number of them side by side, so that the same number of trials
gives the same result on any number of cores.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import optuna
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.inspection import permutation_importance
from threadpoolctl import threadpool_limits

from data_ingestion.handoff import PipelineError
from models.candidates import FEW_ROWS_ITERATIONS, Candidate, Problem, define_space, list_codes, list_known_good
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
N_SWITCHES = 3
USUAL_RATE = 0.05  # of learning, where time and trees allow it
USUAL_ITERATIONS = 500  # that boosting takes at this rate
LARGE_ITERATIONS = 1_000  # that it takes on a table so large that time is short
FIT_SHARE = 0.2  # of the budget, that the folds of one candidate may take
CACHE_FACTOR = 1.5  # a row of many costs so much more time than one of the probe's
MAX_LEARNING_RATE = 0.3
FIRST_TRIALS = 3  # the dummy, a line and boosting, for which there is always time
LIKELY_MEMBERS = 6  # that are fitted once more
RESTART_S = 2.0  # seconds that new workers take to start
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
    ended_by : what ended it before its time; None when nothing did
    """

    trials: list[Trial] = field(default_factory=list)
    ended_by: str | None = None

    @property
    def has_model(self) -> bool:
        """Whether there is something to keep."""
        return any(trial.answers is not None and trial.candidate.family != "dummy" for trial in self.trials)


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
        ranked = rank_columns(probe, X, y, problem)
    problem = replace(
        problem,
        strongest=tuple(name for name in ranked if is_worth_pairing(X[name]))[:N_STRONGEST],
        switches=tuple(name for name in ranked if is_switch(X[name]))[:N_SWITCHES],
    )
    usual = USUAL_ITERATIONS if problem.watch else FEW_ROWS_ITERATIONS
    problem = allow_rounds(problem, plan.max_trees // problem.trees_a_round, usual)
    if plan.deadline is None:
        return problem, plan
    n_fit = [len(fit) for fit, _ in table.folds]
    iteration_s = seconds * float(np.mean(n_fit)) * (CACHE_FACTOR if max(n_fit) > 2 * PROBE_ROWS else 1)
    a_candidate = iteration_s * len(n_fit) / min(n_workers, len(n_fit))
    affordable = FIT_SHARE * plan.time_left / a_candidate
    usual = LARGE_ITERATIONS if problem.watch else FEW_ROWS_ITERATIONS
    problem = allow_rounds(problem, int(2 * affordable), 2 * usual)  # half of them is what most take
    needed = min(USUAL_ITERATIONS * USUAL_RATE / problem.learning_rate, problem.max_iterations)
    return problem, replace(plan, fit_s=iteration_s * needed)


def allow_rounds(problem: Problem, most: int, usual: int) -> Problem:
    """Return the problem with so many rounds of boosting at most, and a learning rate that makes do with them.

    Parameters
    ----------
    most : rounds
    usual : rounds that are enough at the usual rate
    """
    needed = USUAL_RATE * usual / max(most, 1)
    rate = min(max(problem.learning_rate, needed), max(problem.learning_rate, MAX_LEARNING_RATE))
    return replace(problem, max_iterations=max(min(most, problem.max_iterations), 1), learning_rate=rate)


def rank_columns(probe: object, X: pd.DataFrame, y: np.ndarray, problem: Problem) -> list[str]:
    """Return the columns whose shuffling costs a fitted estimator something, the strongest first.

    Parameters
    ----------
    probe : fitted on X and y
    X, y : rows, not more than it takes
    problem : columns with a monotone effect are left out, because a difference would blur the sign
    """
    n_rows = min(max(JUDGED_VALUES // max(X.shape[1], 1), 500), len(X))
    scoring = "neg_log_loss" if problem.is_classification else "neg_root_mean_squared_error"
    found = permutation_importance(
        probe, X.iloc[:n_rows], y[:n_rows], scoring=scoring, n_repeats=1, random_state=problem.seed
    )
    importance = dict(zip(X.columns, found.importances_mean, strict=True))
    ranked = sorted(importance, key=lambda name: -importance[name])
    return [name for name in ranked if importance[name] > 0 and name not in problem.monotone]


def is_worth_pairing(column: pd.Series) -> bool:
    """Return whether an encoded column holds numbers, and more than a few."""
    name = str(column.name)
    return (
        name.startswith(("number__", "mean__", "date__"))
        and "missingindicator_" not in name
        and not name.endswith(("_sin", "_cos"))
        and column.nunique() >= MIN_DISTINCT
    )


def is_switch(column: pd.Series) -> bool:
    """Return whether an encoded column has two levels, beside the codes below 0 for rare, new and missing ones."""
    name = str(column.name)
    if name.startswith("category__"):
        column = column[column >= 0]
    elif not name.startswith("number__") or "missingindicator_" in name:
        return False
    return set(column.unique()) == {0, 1}


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
    KeyboardInterrupt, BrokenExecutor : Ctrl-C or the end of a worker, and there is nothing to keep yet
    """
    done = Search()
    try:
        for trial in _Race(problem, table, plan, workers, done).run():
            done.trials.append(trial)
            report(done)
    except KeyboardInterrupt:
        done.ended_by = "stopped by Ctrl-C"
        if not done.has_model:
            raise
    except BrokenExecutor:
        done.ended_by = "a worker process was ended by the system, likely for want of memory"
        if not done.has_model:
            raise
    if done.ended_by is not None:
        workers.drop_work()
    return done


class _OutOfTimeError(Exception):
    """There is no time to wait for the trials that are under way."""


@dataclass
class _Running:
    """A trial that has been begun: its folds, as far as they were begun, and where its estimator is kept."""

    number: int
    candidate: Candidate
    folds: "list[Future[FoldResult]]"
    path: str | None


@dataclass(frozen=True)
class _Race:
    """Runs trials side by side; see `search`."""

    problem: Problem
    table: FoldTable
    plan: Plan
    workers: Workers
    done: Search

    def run(self) -> Iterator[Trial]:
        """Yield the finished trials in their order; those that do not end in time are given up."""
        running: deque[_Running] = deque()
        try:
            yield from self._run(running)
        except _OutOfTimeError:
            ended = [trial for trial in running if trial.number < FIRST_TRIALS or self._is_over(trial)]
            others = [future for trial in running if trial not in ended for future in trial.folds]
            held = [future for future in others if not future.cancel()]
            for trial in ended:
                yield from self._finish(trial)
            self._free_workers(held)

    def _run(self, running: deque[_Running]) -> Iterator[Trial]:
        """Yield the finished trials in their order, at most `AHEAD` further ones being under way."""
        proposals = self._propose_candidates()
        begun = 0
        while True:
            candidate = next(proposals) if self._is_time_for_more(begun, len(running)) else None
            if candidate is not None:
                path = self.workers.name_file(begun) if len(self.table.folds) == 1 else None
                running.append(_Running(begun, candidate, [self._fit(candidate, 0, path)], path))
                begun += 1
            if not running:
                return
            for trial in list(running)[: -1 if candidate is not None else None]:
                self._judge_first(trial)
            if candidate is None or len(running) > AHEAD:
                yield from self._finish(running[0])
                running.popleft()

    def _fit(self, candidate: Candidate, fold: int, path: str | None = None) -> "Future[FoldResult]":
        return self.workers.fit_fold(candidate, self.problem, fold, path)

    def _is_time_for_more(self, begun: int, running: int) -> bool:
        """Return whether another trial is allowed, and will be done in time to fit the members once more."""
        if begun > self.plan.max_trials:  # the dummy is the first
            return False
        if self.plan.deadline is None or begun < FIRST_TRIALS:
            return True
        tried = [trial for trial in self.done.trials if trial.candidate.family == "boosting"]
        slowest = max((trial.fit_s for trial in tried[-AHEAD - 3 :]), default=self.plan.fit_s)
        n_folds, n_workers = len(self.table.folds), self.workers.n_workers
        a_trial = slowest * n_folds / min(n_workers, n_folds * (1 + AHEAD))
        return self.plan.time_left > a_trial * (running + 1) + self._estimate_rest()

    def _wait(self, trial: _Running) -> None:
        """Wait for the folds of a trial that have been begun, as long as there is time.

        Raises
        ------
        _OutOfTimeError : the time is needed for what follows
        """
        if self.plan.deadline is None or trial.number < FIRST_TRIALS:
            return
        if wait(trial.folds, max(self.plan.time_left - self._estimate_rest(), 0)).not_done:
            raise _OutOfTimeError

    def _estimate_rest(self) -> float:
        """Return the seconds that it takes to fit the likely members once more, and to write them."""
        if len(self.table.folds) == 1:  # without time they stay as they are
            return FINISHING_S
        ranked = rank_trials(self.done.trials, self.table.metric)
        likely = [trial.fit_s for trial in ranked if trial.answers is not None][:LIKELY_MEMBERS]
        seconds = max(sum(likely) / self.workers.n_workers, *likely, 0.0)
        return seconds * self._find_growth() ** 2 + FINISHING_S

    def _is_over(self, trial: _Running) -> bool:
        """Return whether a trial has been fitted on all folds, or has failed."""
        if not all(future.done() for future in trial.folds):
            return False
        return len(trial.folds) == len(self.table.folds) or trial.folds[0].exception() is not None

    def _free_workers(self, held: "list[Future[FoldResult]]") -> None:
        """Let the workers be ready for what follows, where the folds that they hold last longer than a restart."""
        slowest = max((trial.fit_s for trial in self.done.trials), default=0.0)
        if sum(not future.done() for future in held) * slowest / self.workers.n_workers > RESTART_S:
            self.workers.drop_work()

    def _propose_candidates(self) -> Iterator[Candidate]:
        """Yield the dummy, what is known to be good, and then whatever Optuna makes of the finished trials."""
        yield Candidate("dummy", "dummy")
        yield from list_known_good(self.problem)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self.problem.seed, n_startup_trials=4)
        study, space, told = optuna.create_study(sampler=sampler), define_space(self.problem), 0
        for number in count(1):
            for trial in self.done.trials[told:]:
                if trial.candidate.family == "boosting":
                    error, settings = to_error(self.table.metric, trial.mean), dict(trial.candidate.settings)
                    study.add_trial(optuna.create_trial(value=error, params=settings, distributions=space))
            told = len(self.done.trials)
            yield Candidate(f"boosting {number}", "boosting", study.ask(fixed_distributions=space).params)

    def _judge_first(self, trial: _Running) -> None:
        """Wait for a trial's first fold, and begin the others unless it is out of the running."""
        if len(trial.folds) > 1 or len(self.table.folds) == 1:
            return
        self._wait(trial)
        if trial.folds[0].exception() is not None:  # raised or told by `_finish`
            return
        error = to_error(self.table.metric, trial.folds[0].result().score)
        is_race = len(self.table.folds[0][1]) >= MIN_ROWS_RACE and trial.candidate.family != "dummy"
        if is_race and error > self._find_best_first() * OUT_OF_THE_RUNNING:
            return
        trial.folds += [self._fit(trial.candidate, fold) for fold in range(1, len(self.table.folds))]

    def _find_best_first(self) -> float:
        """Return the least error on the first fold among the finished trials."""
        errors = [to_error(self.table.metric, float(trial.scores[0])) for trial in self.done.trials]
        return min((error for error in errors if not np.isnan(error)), default=float("inf"))

    def _finish(self, running: _Running) -> Iterator[Trial]:
        """Wait for a trial's folds and yield it; nothing where the user's own estimator fails."""
        self._wait(running)
        try:
            results = [future.result() for future in running.folds]
        except Exception as err:
            if running.candidate.family != "own" or isinstance(err, PipelineError | BrokenExecutor):
                raise
            reason = " ".join(str(err).split())[:200]
            print(f"left out {running.candidate.name}: {type(err).__name__}: {reason}", file=sys.stderr)
            return

        def mean(name: str) -> float:
            return float(np.mean([getattr(result, name) for result in results]))

        is_whole = len(results) == len(self.table.folds)
        growth = self._find_growth() if running.candidate.family == "boosting" and self.problem.watch else 1.0
        iterations = min(round(mean("iterations") * growth), self.problem.max_iterations)
        is_boosting = running.candidate.family == "boosting"
        yield Trial(
            candidate=running.candidate,
            scores=np.array([result.score for result in results]),
            answers=np.concatenate([result.answers for result in results]) if is_whole else None,
            fit_s=mean("fit_s"),
            predict_us=mean("predict_us") * growth,
            iterations=iterations,
            n_trees=iterations * self.problem.trees_a_round if is_boosting else round(mean("n_trees")),
            size_bytes=round(mean("size_bytes") * growth),
            path=running.path,
        )

    def _find_growth(self) -> float:
        """Return how many times the trees all rows bear, that were not all fitted on: the square root of the rows."""
        n_fit = float(np.mean([len(fit) for fit, _ in self.table.folds]))
        return float(np.sqrt(len(self.table.y) / n_fit))


def describe_best(done: Search, table: FoldTable) -> tuple[int, str, float]:
    """Return the number of trials, the dummy apart, and name and score of the best."""
    best = rank_trials(done.trials, table.metric)[0]
    return len(done.trials) - 1, best.candidate.name, best.mean
