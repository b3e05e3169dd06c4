"""The rows parted by the values of one raw column: each category and boolean, quarters of a range, missing values."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_ingestion.schema import Contract

N_BINS = 4
FEW_VALUES = 8  # a number with no more different values has a slice for each
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
