"""The outcome of a search: what answers, what else could have, and how that is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from data_ingestion.handoff import PipelineError
from models.candidates import Problem
from models.finishing import Answering
from models.fold_work import FoldTable, score
from models.search import Search
from models.selection import (
    Choice,
    Limits,
    Trial,
    choose_single,
    iterate_leaderboard,
    rank_trials,
)
from models.weighing import choose_ensemble

SHOWN = 8  # candidates that are printed; all are in metrics.json


@dataclass(frozen=True)
class Outcome:
    """What training came to.

    Parameters
    ----------
    estimator : fitted; takes encoded columns
    choice : the candidates inside it
    choices : what could be chosen: the ensemble, where it is better, and the best candidate alone
    answering : calibration, threshold and uncertainty
    done : all that was tried
    problem : what it was tried for
    n_folds : how many folds each was judged by
    is_refitted : whether the members were fitted on all train rows; else on all but the rows held back
    seconds : that search and fits took
    """

    estimator: BaseEstimator
    choice: Choice
    choices: Sequence[Choice]
    answering: Answering
    done: Search
    problem: Problem
    n_folds: int
    is_refitted: bool
    seconds: float


def list_choices(trials: Sequence[Trial], table: FoldTable, problem: Problem, limits: Limits) -> list[Choice]:
    """Return the ensemble where it is better than the best candidate alone, and that one.

    Raises
    ------
    PipelineError : no candidate keeps to the limits
    """
    ranked = rank_trials(trials, table.metric)
    single = choose_single(ranked, table.metric, limits)
    if single is None:
        raise PipelineError(
            "no candidate keeps to max_trees, max_latency_us and max_size_mb. Raise them in params.yaml, or with flags."
        )
    sizes = np.cumsum([len(check) for _, check in table.folds])[:-1]
    true = [np.asarray(table.y[check]) for _, check in table.folds]

    def score_folds(answers: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = zip(true, np.split(answers, sizes), strict=True)
        return np.array([score(table.metric, y, part, problem.classes) for y, part in parts])

    ensemble = choose_ensemble(ranked, single, score_folds, table.metric, limits, len(table.y), problem.seed)
    return [single] if ensemble is single else [ensemble, single]


def describe_outcome(outcome: Outcome, table: FoldTable) -> dict[str, object]:
    """Return the section "train" of metrics.json."""
    ranked = rank_trials(outcome.done.trials, table.metric)
    answering = outcome.answering
    return {
        "rows": len(table.y),
        "metric": table.metric,
        "folds": outcome.n_folds,
        "trials": len(ranked) - 1,
        "ended_by": outcome.done.ended_by,
        "refitted": outcome.is_refitted,
        "seconds": round(outcome.seconds, 2),
        "chosen": outcome.choice.name,
        "score": outcome.choice.score,
        "members": [{"name": trial.candidate.name, "weight": weight} for trial, weight in outcome.choice.members],
        "choices": [
            {"name": c.name, "score": c.score, "n_trees": c.n_trees, "predict_us": round(c.predict_us, 2)}
            for c in outcome.choices
        ],
        "calibrated": answering.calibration is not None,
        "threshold": answering.threshold,
        "uncertainty": answering.uncertainty.model_dump(),
        "leaderboard": list(iterate_leaderboard(ranked, outcome.choice, outcome.n_folds)),
    }


def fingerprint_outcome(outcome: Outcome) -> list[object]:
    """Return what tells one outcome of a search from another: the same for the same model."""
    members = [[t.candidate.name, dict(t.candidate.settings), t.iterations, w] for t, w in outcome.choice.members]
    return [members, outcome.is_refitted]


def iterate_lines(outcome: Outcome, train: Mapping[str, object]) -> Iterator[str]:
    """Yield the lines that tell what was tried and chosen.

    Parameters
    ----------
    outcome : what training came to
    train : the section "train" of metrics.json
    """
    folds = f"{outcome.n_folds} folds" if outcome.n_folds > 1 else "a tenth of the rows held back"
    yield (
        f"{train['rows']:,} train rows, {folds}, {train['trials']} candidates in {outcome.seconds:.0f} s, "
        f"compared by {train['metric']}"
    )
    if outcome.done.ended_by:
        yield f"  {outcome.done.ended_by}: the best so far is kept"
    board: list[dict[str, object]] = train["leaderboard"]  # type: ignore[assignment]
    width = max(len(str(row["name"])) for row in board)
    shown = [row for place, row in enumerate(board) if place < SHOWN or row["weight"] or row["name"] == "dummy"]
    for row in shown:
        error = "" if row["standard_error"] is None else f" ± {row['standard_error']:,.4f}"
        weight = f"  weight {row['weight']:.2f}" if row["weight"] else ""
        yield f"  {row['name']:<{width}} {row['mean']:>12,.4f}{error}{weight}"
    if len(board) > len(shown):
        yield f"  (+{len(board) - len(shown)} more in models/metrics.json)"
    for choice in outcome.choices:
        chosen = (
            "chosen" if choice is outcome.choice else f"--final {'ensemble' if choice.name == 'ensemble' else 'single'}"
        )
        yield (
            f"  {choice.name}: {train['metric']} {choice.score:,.4f}, {choice.n_trees:,} trees, "
            f"{choice.predict_us:.1f} µs a row  ({chosen})"
        )
    if not outcome.is_refitted:
        yield "  no time was left to fit again on the rows held back; a larger --budget does"
    if outcome.answering.calibration is not None:
        yield "  probabilities are calibrated: that lowers their log loss"
    if outcome.answering.threshold is not None:
        label = outcome.problem.classes[1]
        yield f'  "{label}" is the answer from a probability of {outcome.answering.threshold:.4f}'
