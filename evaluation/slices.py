"""Where the model is worse: slices of the rows, tested with care for how many are looked at.

A slice's figure is the mean loss of its rows: squared errors for a regression (shown as RMSE), else log losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluation.slicing import Slicing

WORST = 10


@dataclass(frozen=True)
class SliceMeans:
    """Mean losses inside each slice and in all other rows, (n_slices,) each."""

    rows: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]  # the standard error of `mean`
    rest: NDArray[np.float64]
    rest_error: NDArray[np.float64]


def average_slices(slicings: Sequence[Slicing], losses: NDArray[np.float64]) -> SliceMeans:
    """Return means and standard errors of (n_rows,) losses in every slice, and in the rows outside it."""
    centre = losses.mean()
    moments = [np.ones_like(losses), losses - centre, (losses - centre) ** 2]
    inside = np.hstack([_sum_slices(slicing, moments) for slicing in slicings])
    outside = np.array([[moment.sum()] for moment in moments]) - inside
    (rows, mean, error), (_, rest, rest_error) = (_average(sums) for sums in (inside, outside))
    return SliceMeans(rows, mean + centre, error, rest + centre, rest_error)


def _sum_slices(slicing: Slicing, columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return (n_columns, n_slices) sums; the rows in no slice are counted in a first one that is left out."""
    size = len(slicing.labels) + 1
    return np.array([np.bincount(slicing.places + 1, weights=column, minlength=size)[1:] for column in columns])


def _average(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return rows, mean and standard error of the mean from counts, sums and sums of squares."""
    rows, total, squares = sums
    mean = total / rows
    variance = np.maximum(squares - rows * mean**2, 0) / np.maximum(rows - 1, 1)
    return rows, mean, np.sqrt(variance / rows)


def find_worst_slices(
    slicings: Sequence[Slicing], losses: NDArray[np.float64], metric: str, confidence: float
) -> dict[str, object]:
    """Return the slices in which the model is surest to be worse than elsewhere, as plain values.

    Each slice is compared with all other rows by Welch's t test (Biometrika 34, 1947), one-sided. They are ordered by
    how much worse they are at least, at the given confidence: a large difference from few rows may be chance. The
    intervals are Student's for the logarithm of the mean loss, for losses are positive and skewed (delta method).

    Parameters
    ----------
    slicings : of the rows
    losses : (n_rows,) squared errors, or log losses
    metric : rmse, which is the root of the mean, or log_loss
    confidence : of the intervals
    """
    tested = sum(len(slicing.labels) for slicing in slicings)
    found: dict[str, object] = {"metric": metric, "tested": tested, "worst": [], "caveat": _warn(tested, metric)}
    if not tested:
        return found
    means = average_slices(slicings, losses)
    n_rest = len(losses) - means.rows
    error = np.hypot(means.error, means.rest_error)
    with np.errstate(invalid="ignore", divide="ignore"):
        degrees = error**4 / (means.error**4 / (means.rows - 1) + means.rest_error**4 / (n_rest - 1))
        p_values = np.where(error > 0, stats.t.sf((means.mean - means.rest) / error, degrees), 1.0)
    adjusted = adjust_p_values(p_values)
    tail = (1 + confidence) / 2
    at_least = (
        means.mean - means.rest - np.where(error > 0, stats.t.ppf(tail, np.where(error > 0, degrees, 1)), 0) * error
    )
    factor = np.exp(stats.t.ppf(tail, means.rows - 1) * _divide(means.error, means.mean))

    def show(value: float) -> float:
        return float(np.sqrt(max(value, 0)) if metric == "rmse" else max(value, 0))

    names = [(slicing.column, label) for slicing in slicings for label in slicing.labels]
    worse = np.flatnonzero(means.mean > means.rest)
    order = worse[np.argsort(-at_least[worse], kind="stable")][:WORST]
    found["worst"] = [
        {
            "column": names[place][0],
            "slice": names[place][1],
            "rows": int(means.rows[place]),
            "score": show(means.mean[place]),
            "interval": [show(means.mean[place] / factor[place]), show(means.mean[place] * factor[place])],
            "rest": show(means.rest[place]),
            "p_value": float(p_values[place]),
            "adjusted_p": float(adjusted[place]),
        }
        for place in order
    ]
    return found


def _divide(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(one, other, out=np.zeros_like(one), where=other > 0)


def _warn(tested: int, metric: str) -> str:
    if not tested:
        return "no slice has enough rows to be looked at."
    mixed = " Where the classes are more evenly mixed, log loss is larger by nature." if metric == "log_loss" else ""
    return (
        f"{tested:,} slices were looked at, and among so many some look worse by chance: adjusted_p is corrected for "
        f"their number (Holm, 1979).{mixed}"
    )


def compare_slices(
    slicings: Sequence[Slicing],
    losses: NDArray[np.float64],
    others: NDArray[np.float64],
    metric: str,
    allowed: float,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return label, excess over another model, and adjusted p of every slice.

    The excess is the model's figure over the other's, less one. The p value is that of a one-sided paired t test of
    the model's losses against the other's, made as much larger as is allowed.

    Parameters
    ----------
    slicings : of the rows
    losses, others : (n_rows,) squared errors or log losses of the model, and of the one before it
    metric : see `find_worst_slices`
    allowed : the share by which the figure may be worse
    """
    labels = [label for slicing in slicings for label in slicing.labels]
    if not labels:
        return [], np.array([]), np.array([])
    power = 2 if metric == "rmse" else 1
    own, its = average_slices(slicings, losses), average_slices(slicings, others)
    beyond = average_slices(slicings, losses - (1 + allowed) ** power * others)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(its.mean > 0, own.mean / its.mean, np.where(own.mean > 0, np.inf, 1.0))
        p_values = stats.t.sf(beyond.mean / beyond.error, beyond.rows - 1)
    p_values = np.where(beyond.error > 0, p_values, np.where(beyond.mean > 0, 0.0, 1.0))
    return labels, ratio ** (1 / power) - 1, adjust_p_values(p_values)


def adjust_p_values(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p values corrected for their number, whatever depends on what (Holm, Scand. J. Statistics 6, 1979)."""
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted
