"""Where the model is worse: parts of the rows by the values of one raw column, tested with care for how many they are.

A slice is a category, a boolean, a quarter of a number's or a date's range, or the rows that lack a value. Its figure
is the mean loss of its rows: squared errors for a regression (shown as RMSE), else log losses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from data_ingestion.schema import Contract

N_BINS = 4
FEW_VALUES = 8  # a number with no more different values has a slice for each
WORST = 10
MAX_TEXT = 60
DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Slicing:
    """The rows parted by one column.

    Parameters
    ----------
    column : its name
    labels : what each part is called
    places : (n_rows,) the part that a row is in; -1 where it is in none
    """

    column: str
    labels: list[str]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class SliceMeans:
    """Mean losses inside each slice and in all other rows, (n_slices,) each."""

    rows: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]  # the standard error of `mean`
    rest: NDArray[np.float64]
    rest_error: NDArray[np.float64]


def build_slicings(table: pa.Table, contract: Contract, min_rows: int) -> list[Slicing]:
    """Return the slices of every feature that hold at least `min_rows` rows, as must the rows beside each.

    Parameters
    ----------
    table : (n_rows, n_columns) typed raw rows
    contract : what the columns are
    min_rows : from fewer rows nothing can be said
    """
    slicings = []
    for name, column in contract.features.items():
        values = table[name].combine_chunks()
        if column.kind in ("number", "integer"):
            labels, places = _part_numbers(name, values.cast(pa.float64()).to_numpy(zero_copy_only=False))
        elif column.kind == "datetime":
            labels, places = _part_dates(name, values)
        else:
            labels, places = _part_values(name, values)
        missing = np.asarray(values.is_null())
        places = np.where(missing, len(labels), places)
        slicings.append(_keep_large(Slicing(name, [*labels, f"{name} is missing"], places), min_rows))
    return [slicing for slicing in slicings if slicing.labels]


def _part_values(name: str, values: pa.Array) -> tuple[list[str], NDArray[np.int64]]:
    """Return a slice for each category or boolean."""
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in encoded.dictionary.to_pylist()]
    labels = [f"{name} = {text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + '…'}" for text in texts]
    return labels, np.asarray(encoded.indices.fill_null(-1), dtype=np.int64)


def _part_numbers(name: str, values: NDArray[np.float64]) -> tuple[list[str], NDArray[np.int64]]:
    """Return a slice for each of few values, else for each quarter of the rows."""
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    if len(distinct) <= FEW_VALUES:
        return [f"{name} = {_format_number(value)}" for value in distinct], np.searchsorted(distinct, values)
    edges = _find_edges(known)
    short = np.unique([float(f"{edge:.4g}") for edge in edges])  # as they are shown, unless that joins two
    edges = short if len(short) == len(edges) else edges
    return _label_bins(name, [_format_number(edge) for edge in edges]), np.searchsorted(edges, values, side="right")


def _part_dates(name: str, values: pa.Array) -> tuple[list[str], NDArray[np.int64]]:
    """Return a slice for each quarter of the rows, cut between days where they span more than a few."""
    moments = np.asarray(values.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(0))
    known = moments[~np.asarray(values.is_null())]
    if not len(known):
        return [], np.zeros(len(values), dtype=np.int64)
    edges = _find_edges(known).astype(np.int64)
    by_day = np.unique(edges // DAY * DAY)
    is_by_day = len(by_day) == len(edges)
    edges = by_day if is_by_day else edges
    texts = [
        str(edge.astype("datetime64[us]").astype("datetime64[D]" if is_by_day else "datetime64[s]")) for edge in edges
    ]
    return _label_bins(name, texts), np.searchsorted(edges, moments, side="right")


def _find_edges(known: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where the bins meet: distinct quantiles above the lowest value."""
    edges = np.unique(np.quantile(known.astype(np.float64), np.arange(1, N_BINS) / N_BINS))
    return np.asarray(edges[edges > known.min()])


def _label_bins(name: str, edges: Sequence[str]) -> list[str]:
    if not len(edges):
        return [name]
    between = [f"{low} <= {name} < {high}" for low, high in pairwise(edges)]
    return [f"{name} < {edges[0]}", *between, f"{name} >= {edges[-1]}"]


def _format_number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:g}"


def _keep_large(slicing: Slicing, min_rows: int) -> Slicing:
    """Return the slicing without slices of too few rows, or of almost all."""
    n_rows = len(slicing.places)
    rows = np.bincount(slicing.places, minlength=len(slicing.labels))
    kept = np.flatnonzero((rows >= min_rows) & (n_rows - rows >= min_rows))
    renumbered = np.full(len(rows), -1)
    renumbered[kept] = np.arange(len(kept))
    return Slicing(slicing.column, [slicing.labels[place] for place in kept], renumbered[slicing.places])


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


def iterate_sizes(slicings: Sequence[Slicing]) -> Iterator[tuple[str, int]]:
    """Yield the label and the number of rows of every slice."""
    for slicing in slicings:
        rows = np.bincount(slicing.places + 1, minlength=len(slicing.labels) + 1)[1:]
        yield from zip(slicing.labels, rows.tolist(), strict=True)
