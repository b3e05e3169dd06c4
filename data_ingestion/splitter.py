"""Which rows train, which validate and which test.

Every strategy decides by the row alone, once it knows where to cut: by a stable hash of the row (or of its id or its
group), keyed by the seed, or by its time. So exact duplicates never stand on both sides, and with `hash` and `group` a
test row stays a test row when rows are added. `time` and `stratified` look at all rows first for the places to cut,
and these move as the data grows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_ingestion.handoff import PipelineError
from data_ingestion.params import suggest
from data_ingestion.row_groups import RowGroups
from data_ingestion.row_hash import Hashes, hash_places, hash_rows, is_below
from data_ingestion.schema import Contract, Strategy

TRAIN, TEST, VALIDATION, GAP = range(4)
SIDES = ("train", "test", "validation", "gap")  # what the column `split` says
Sides = NDArray[np.uint8]

_BINS = 10  # a regression's target is stratified by its deciles
_MAX_TARGETS = 1_000_000  # deciles are taken from a stable sample of about so many rows
_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class SplitRequest:
    """How to split.

    Parameters
    ----------
    strategy : hash (of the row's content, or of the column with role id), stratified (by the target), group (whole
        groups on one side) or time (the latest rows test, those before them validate)
    column : the group or time column; None takes the one with that role
    test_size, validation_size : the shares; met exactly by none of the strategies, which keep equal rows together
    gap : with `time`, how much before the first test and the first validation row is left out: days of a date, else
        units of the column
    seed : another seed, another split
    """

    strategy: Strategy = "hash"
    column: str | None = None
    test_size: float = 0.2
    validation_size: float = 0.0
    gap: float = 0.0
    seed: int = 42


@dataclass(frozen=True)
class Split:
    """A split that can be asked for any rows.

    Parameters
    ----------
    request : how it was made
    names : the columns whose hash is the row's key
    decisive : the columns that decide the side: rows equal in them stand on one side
    find_sides : the side of each row, from the rows and their keys
    """

    request: SplitRequest
    names: list[str]
    decisive: list[str]
    find_sides: Callable[[pa.Table, Hashes], Sides]

    def assign(self, table: pa.Table) -> tuple[Sides, Hashes]:
        """Return side and key of each row, (n_rows,) both."""
        keys = hash_rows(table, self.names, self.request.seed)
        return self.find_sides(table, keys), keys


def plan_split(groups: RowGroups, contract: Contract, request: SplitRequest) -> Split:
    """Return the split of these rows; `time` and `stratified` read them once or twice for the places to cut.

    Raises
    ------
    PipelineError : there is no such column, or it cannot order the rows
    """
    names = list_key_columns(contract, request)
    decisive = list_decisive_columns(contract, request)
    if request.strategy == "time":
        return Split(request, names, decisive, _cut_by_time(groups, decisive[0], request))
    if request.gap:
        raise PipelineError(f"--gap {request.gap:g} needs an order of the rows. Add --split time, or leave --gap out.")
    if request.strategy == "stratified":
        return Split(request, names, decisive, _cut_each_stratum(groups, contract, names, request))
    return Split(request, names, decisive, lambda table, keys: _cut_keys(keys, request))


def find_train_rows(table: pa.Table, contract: Contract, request: SplitRequest) -> NDArray[np.bool_] | None:
    """Return (n_rows,) which rows stood on the train side of a split that was made by another contract.

    None where that cannot be told: where the split depends on other rows, or its columns are gone.
    """
    if request.strategy not in ("hash", "group"):
        return None
    names = list_key_columns(contract, request)
    if not set(names) <= set(table.column_names):
        return None
    return np.asarray(_cut_keys(hash_rows(table, names, request.seed), request) == TRAIN)


def list_key_columns(contract: Contract, request: SplitRequest) -> list[str]:
    """Return the columns whose hash is a row's key: the group, else the ids, else all that are not ignored."""
    if request.strategy == "group":
        return [find_column(contract, "group", request.column)]
    ids = contract.columns_with_role("id")
    return ids or sorted(name for name, column in contract.columns.items() if column.role != "ignored")


def list_decisive_columns(contract: Contract, request: SplitRequest) -> list[str]:
    """Return the columns that decide a row's side: rows equal in them stand together."""
    if request.strategy == "time":
        return [find_column(contract, "time", request.column)]
    names = list_key_columns(contract, request)
    return list(dict.fromkeys([*names, contract.target])) if request.strategy == "stratified" else names


def find_column(contract: Contract, role: Literal["group", "time"], column: str | None) -> str:
    """Return the column that groups or orders the rows."""
    if column is not None:
        if column not in contract.columns:
            raise PipelineError(f'there is no column "{column}" to split by.{suggest(column, list(contract.columns))}')
        return column
    named = contract.columns_with_role(role)
    if len(named) != 1:
        raise PipelineError(
            f"--split {role} needs one column, and {len(named)} columns of data/schema.yaml have role {role}. "
            "Name it: --split-column COLUMN"
        )
    return named[0]


def _cut_keys(keys: Hashes, request: SplitRequest) -> Sides:
    sides = np.full(len(keys), TRAIN, dtype=np.uint8)
    sides[is_below(keys, request.test_size + request.validation_size)] = VALIDATION
    sides[is_below(keys, request.test_size)] = TEST
    return sides


# By time


def _cut_by_time(groups: RowGroups, name: str, request: SplitRequest) -> Callable[[pa.Table, Hashes], Sides]:
    """Cut before the latest rows; those of the same moment stay together, and rows without one train."""
    moments = _gather_moments(groups, name)
    # Rounded first: 100 * (1 - 0.3 - 0.2) is a little less than 50.
    test = int(round(len(moments) * (1 - request.test_size), 6))
    validation = int(round(len(moments) * (1 - request.test_size - request.validation_size), 6))
    moments.partition([validation, test])
    starts = {VALIDATION: moments[validation]} if request.validation_size else {}
    starts[TEST] = moments[test]
    gap = scale_gap(request.gap, groups.read_group(0, [name]).schema.field(name).type)

    def find_sides(table: pa.Table, keys: Hashes) -> Sides:
        order, is_known = _order(table[name])
        sides = np.full(table.num_rows, TRAIN, dtype=np.uint8)
        for side, start in starts.items():
            sides[is_known & (order >= start)] = side
            sides[is_known & (order < start) & (order >= start - gap)] = GAP
        return sides

    return find_sides


def _gather_moments(groups: RowGroups, name: str) -> NDArray[np.int64] | NDArray[np.float64]:
    """Return what orders the rows, eight bytes each, without the rows that have none."""
    moments, end = np.empty(0), 0
    for number in range(groups.num_groups):
        order, is_known = _order(groups.read_group(number, [name])[name])
        if not number:
            moments = np.empty(groups.num_rows, dtype=order.dtype)
        start, end = end, end + int(np.count_nonzero(is_known))
        moments[start:end] = order[is_known]
    if not end:
        raise PipelineError(f'--split time finds no moment in column "{name}". Name another: --split-column COLUMN')
    return moments[:end]


def scale_gap(gap: float, kind: pa.DataType) -> float:
    """Return a gap in what orders the rows: microseconds where it is days of a date, else as it is."""
    return gap * (_DAY if pa.types.is_timestamp(kind) else 1)


def read_moments(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return what orders the rows, (n_rows,), NaN where it is missing; of integers beyond 2**53 neighbours are one."""
    order, is_known = _order(column)
    return np.where(is_known, order.astype(np.float64), np.nan)


def _order(column: pa.ChunkedArray) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Return what orders the rows as int64 or float64, and which rows have it."""
    values = column.combine_chunks()
    if not (
        pa.types.is_timestamp(values.type) or pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    ):
        raise PipelineError(f"--split time needs a column of dates or numbers, got {values.type}. Name another.")
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    return pc.fill_null(values, 0).to_numpy(zero_copy_only=False), values.is_valid().to_numpy(zero_copy_only=False)


# By stratum


def _cut_each_stratum(
    groups: RowGroups, contract: Contract, names: Sequence[str], request: SplitRequest
) -> Callable[[pa.Table, Hashes], Sides]:
    """Give each class, or each tenth of a regression's target, its share: the rows with the smallest keys."""
    target = contract.target
    index_strata = _index_classes(groups, target) if contract.is_classification else _index_tenths(groups, target)

    def place(table: pa.Table, keys: Hashes) -> tuple[NDArray[np.int64], Hashes]:
        """Return each row's stratum, and a number that orders rows by stratum and then by key."""
        strata = index_strata(table[target])
        return strata, (strata.astype(np.uint64) << np.uint64(32)) | (keys >> np.uint64(32))

    columns = list({*names, target})
    ordered = np.empty(groups.num_rows, dtype=np.uint64)
    end = 0
    for number in range(groups.num_groups):
        table = groups.read_group(number, columns)
        start, end = end, end + table.num_rows
        ordered[start:end] = place(table, hash_rows(table, names, request.seed))[1]
    ordered.sort()
    test = np.array(list(_find_cuts(ordered, request.test_size)))
    validation = np.array(list(_find_cuts(ordered, request.test_size + request.validation_size)))

    def find_sides(table: pa.Table, keys: Hashes) -> Sides:
        strata, order = place(table, keys)
        sides = np.full(table.num_rows, TRAIN, dtype=np.uint8)
        sides[order < validation[strata]] = VALIDATION
        sides[order < test[strata]] = TEST
        return sides

    return find_sides


def _find_cuts(ordered: Hashes, share: float) -> Iterator[np.uint64]:
    """Yield for each stratum the first number that is beyond its share; equal rows stay together."""
    strata = np.arange(int(ordered[-1] >> np.uint64(32)) + 2, dtype=np.uint64) << np.uint64(32)
    bounds = np.searchsorted(ordered, strata)
    for first, start, end in zip(strata, bounds[:-1], bounds[1:]):
        count = round(share * int(end - start))
        yield ordered[start + count - 1] + np.uint64(1) if count else first


def _index_classes(groups: RowGroups, target: str) -> Callable[[pa.ChunkedArray], NDArray[np.int64]]:
    parts = [_drop_levels(groups.read_group(number, [target])[target].unique()) for number in range(groups.num_groups)]
    classes = pc.unique(pa.concat_arrays(parts))
    return lambda values: pc.index_in(_drop_levels(values), value_set=classes).cast(pa.int64()).to_numpy()


def _drop_levels(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return plain values for a dictionary: each row group has one of its own."""
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _index_tenths(groups: RowGroups, target: str) -> Callable[[pa.ChunkedArray], NDArray[np.int64]]:
    share, start, sample = _MAX_TARGETS / max(1, groups.num_rows), 0, []
    for number in range(groups.num_groups):
        values = groups.read_group(number, [target])[target].to_numpy()
        sample.append(values[is_below(hash_places(start, len(values), 0), share)])
        start += len(values)
    edges = np.quantile(np.concatenate(sample), np.linspace(0, 1, _BINS + 1)[1:-1])
    return lambda values: np.searchsorted(edges, values.to_numpy())


def check_split(counts: dict[str, int], n_classes: int | None, request: SplitRequest) -> None:
    """Raise unless every side has rows and, in a classification, the train rows hold two classes.

    Parameters
    ----------
    counts : rows by side
    n_classes : how many classes the train rows hold; None for a regression
    request : how they were split
    """
    sides = [f"{counts['train']:,} train", f"{counts['test']:,} test"]
    sides += [f"{counts['validation']:,} validation"] if request.validation_size else []
    starved = counts["train"] < 2 or not counts["test"] or (request.validation_size and not counts["validation"])
    if starved:
        raise PipelineError(
            f"--split {request.strategy} gives {', '.join(sides[:-1])} and {sides[-1]} rows. "
            "Choose another --test-size or --split."
        )
    if n_classes is not None and n_classes < 2:
        raise PipelineError(
            f"--split {request.strategy} leaves one class to train on. Choose another: --split stratified"
        )
