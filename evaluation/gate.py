"""Whether the model may replace the one before it: a verdict with reasons, that takes noise for what it is.

Two models are compared on the same rows, by the interval of the difference between their figures over the same
resamples (paired bootstrap; Efron and Tibshirani, 1993, chapters 8 and 13). A model is better when the whole interval
says so: of two equal ones the new one passes in (1 - confidence) / 2 of all cases, where `new >= old` would let it
pass in half of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from data_ingestion.schema import Task
from evaluation.bootstrap import find_interval
from evaluation.metrics import CLASSIFICATION, REGRESSION, SCORES, TITLES, Draws, Scores, format_interval, format_score
from models.candidates import METRICS

Status = Literal["passed", "rejected", "inconclusive"]

EXIT_NOT_PASSED = 3
FEW_ROWS = 30  # from fewer, a difference that does not show may well be there
FEW_OF_CLASS = 10  # with fewer of one of two classes, resamples do not show how much chance there is
SHOWN_SLICES = 5
STAYS = "the champion stays"


@dataclass(frozen=True)
class Check:
    """What one check came to, and why in a sentence."""

    status: Status
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What all checks came to.

    Parameters
    ----------
    status : rejected when one check rejects, passed when all pass
    reasons : a sentence a check, those that decided first
    """

    status: Status
    reasons: list[str]

    @property
    def exit_code(self) -> int:
        """What the stage ends with: 0 only for a model that passed."""
        return 0 if self.status == "passed" else EXIT_NOT_PASSED

    def to_dict(self) -> dict[str, object]:
        """Return plain values for metrics.json."""
        return {"status": self.status, "reasons": self.reasons}

    def to_lines(self) -> list[str]:
        """Return the verdict as it is printed."""
        first, *others = self.reasons
        return [f"verdict: {self.status}: {first}", *(f"  {reason}" for reason in others)]


@dataclass(frozen=True)
class Judged:
    """One model's figures on the test rows.

    Parameters
    ----------
    scores : on the rows as they are
    draws : on their resamples, the same for every model
    """

    scores: Scores
    draws: Draws


def read_verdict(metrics: Mapping[str, object]) -> Verdict:
    """Return the verdict that stands in metrics.json."""
    stored: Mapping[str, object] = metrics["verdict"]  # type: ignore[assignment]
    return Verdict(
        cast("Status", stored["status"]), [str(reason) for reason in cast("list[object]", stored["reasons"])]
    )


def decide(checks: Sequence[Check]) -> Verdict:
    """Return the verdict that follows from all checks."""
    order: tuple[Status, ...] = ("rejected", "inconclusive", "passed")
    ranked = sorted(checks, key=lambda check: order.index(check.status))
    return Verdict(ranked[0].status, [check.reason for check in ranked])


def find_gain(
    model: Judged, other: Judged, metric: str, confidence: float, n_rows: int, tolerance: float = 0.0
) -> list[float] | None:
    """Return [low, high] of how much better the model is than the other, in units of the metric.

    Parameters
    ----------
    model, other : judged on the same rows and resamples
    metric : the figure; its direction is known
    confidence : of the interval
    n_rows : how many rows both were judged on
    tolerance : a share of the other's figure that is given to the model as a start

    Returns
    -------
    None where the figure is undefined for one of them.
    """
    if model.scores[metric] is None or other.scores[metric] is None:
        return None
    sign = 1.0 if metric in SCORES else -1.0
    differences = sign * (model.draws[metric] - other.draws[metric]) + tolerance * other.draws[metric]
    return find_interval(differences, confidence, n_rows)


def check_dummy(task: Task, model: Judged, dummy: Judged, confidence: float, n_rows: int) -> Check:
    """Return whether the model is better than one that ignores its input."""
    metric = METRICS[task]
    gain = find_gain(model, dummy, metric, confidence, n_rows)
    if gain is None:
        return Check("inconclusive", f"{TITLES[metric]} is undefined on these rows: a class has none, or all of them")
    compared = _compare(metric, model, dummy, gain, confidence)
    if gain[0] > 0:
        return Check("passed", f"better than the dummy: {compared}")
    if n_rows < FEW_ROWS and gain[1] > 0:
        return Check("inconclusive", f"{n_rows} test rows are too few to tell it from the dummy: {compared}")
    if gain[1] > 0 and _is_ahead(metric, model, dummy):
        return Check("inconclusive", f"not surely better than the dummy: {compared}; more test rows may tell")
    return Check("rejected", f"not better than the dummy, which ignores its input: {compared}")


def check_classes(counts: Mapping[str, int]) -> Check | None:
    """Return what rules a judgement out when one of two classes has next to no test rows, None when none does.

    Parameters
    ----------
    counts : the test rows of each class
    """
    label, count = min(counts.items(), key=lambda item: item[1])
    if len(counts) != 2 or count >= FEW_OF_CLASS:
        return None
    rows = f"{count} test row{'s' * (count != 1)}"
    repair = "Add rows, or raise --test-size of the preprocessor"
    return Check(
        "inconclusive", f'{rows} of the class "{label}": too few to judge by, {FEW_OF_CLASS} at least. {repair}'
    )


def check_champion(
    task: Task, model: Judged, champion: Judged, confidence: float, n_rows: int, tolerance: float
) -> Check:
    """Return whether the model is better than the champion.

    Parameters
    ----------
    task : names the metric
    model, champion : judged on the same rows and resamples
    confidence : of the interval of the difference
    n_rows : the number of these rows
    tolerance : the share of the champion's figure by which a worse model is not yet rejected
    """
    metric = METRICS[task]
    gain = find_gain(model, champion, metric, confidence, n_rows)
    at_best = find_gain(model, champion, metric, confidence, n_rows, tolerance)
    if gain is None or at_best is None:
        return Check("inconclusive", f"{TITLES[metric]} cannot be compared with the champion's on these rows: {STAYS}")
    compared = _compare(metric, model, champion, gain, confidence)
    if gain[0] > 0:
        return Check("passed", f"better than the champion: {compared}")
    if at_best[1] < 0:
        more = f" by more than {tolerance:.1%} of it" if tolerance else ""
        return Check("rejected", f"worse than the champion{more}: {compared}; {STAYS}")
    if gain == [0, 0]:
        return Check("inconclusive", f"no different from the champion on these rows: {compared}; {STAYS}")
    repair = "judge them on more test rows, or make a better model"
    return Check("inconclusive", f"not surely better than the champion: {compared}; {STAYS}; {repair}")


def _is_ahead(metric: str, model: Judged, other: Judged) -> bool:
    own, its = model.scores[metric], other.scores[metric]
    assert own is not None
    assert its is not None
    return own > its if metric in SCORES else own < its


def _compare(metric: str, model: Judged, other: Judged, gain: Sequence[float], confidence: float) -> str:
    own, its = format_score(model.scores[metric]), format_score(other.scores[metric])
    return f"{TITLES[metric]} {own} against {its}, a gain of {format_interval(gain)} ({confidence:.0%} interval)"


def check_limits(
    task: Task, scores: Scores, intervals: Mapping[str, Sequence[float] | None], limits: Mapping[str, float]
) -> Iterator[Check]:
    """Yield whether each limit is met: at most for errors, at least for scores; those of other tasks are passed over.

    The figure decides. Where it meets the limit and its interval does not, the reason says so.
    """
    for name in REGRESSION if task == "regression" else CLASSIFICATION:
        if name not in limits:
            continue
        value, bounds, limit = scores[name], intervals[name], limits[name]
        sign, side = (1.0, "at least") if name in SCORES else (-1.0, "at most")
        wanted = f"{TITLES[name]} {format_score(value)}, wanted {side} {limit:,g}"
        if value is None or bounds is None:
            yield Check("inconclusive", f"{wanted}: these rows leave it undefined")
        elif sign * (value - limit) < 0:
            yield Check("rejected", f"limit missed: {wanted}")
        else:
            is_sure = sign * ((bounds[0] if sign > 0 else bounds[1]) - limit) >= 0
            doubt = "" if is_sure else f", though its interval {format_interval(bounds)} reaches beyond"
            yield Check("passed", f"limit met: {wanted}{doubt}")


def check_slices(
    labels: Sequence[str], excess: NDArray[np.float64], adjusted_p: NDArray[np.float64], allowed: float, alpha: float
) -> Check:
    """Return whether a slice is significantly worse than it is with the champion, by more than is allowed.

    Parameters
    ----------
    labels : (n_slices,) names of the slices
    excess : (n_slices,) the model's figure over the champion's in the slice, less one
    adjusted_p : (n_slices,) of the excess being no more than allowed, corrected for the number of slices
    allowed : the share by which a slice may be worse
    alpha : the share of models, no worse in any slice, that may be rejected here
    """
    worse = np.flatnonzero(adjusted_p <= alpha)
    if not len(worse):
        return Check("passed", f"none of {len(labels):,} slices is surely more than {allowed:.0%} worse than before")
    order = worse[np.argsort(-excess[worse], kind="stable")]
    named = ", ".join(f"{labels[place]} (by {excess[place]:.0%})" for place in order[:SHOWN_SLICES])
    more = f" (+{len(order) - SHOWN_SLICES} more)" if len(order) > SHOWN_SLICES else ""
    return Check("rejected", f"worse than the champion by more than {allowed:.0%} where {named}{more}; {STAYS}")
