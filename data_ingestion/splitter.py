"""Which rows train and which rows test.

Every strategy decides by a stable hash of the row (or of its id or group), keyed by the seed: equal rows
never stand on both sides, and with `hash` and `group` a test row stays a test row when rows are added.
"""

import hashlib
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_ingestion.handoff import PipelineError
from data_ingestion.params import suggest
from data_ingestion.schema import Contract, Strategy

_SEPARATOR, _NULL = "\x1f", "\x00"
_BINS = 10  # a regression's target is stratified by its deciles


def split_rows(
    table: pa.Table, contract: Contract, strategy: Strategy, test_size: float, seed: int, column: str | None = None
) -> NDArray[np.bool_]:
    """Return which rows are test rows, (n_rows,) bool.

    Parameters
    ----------
    table : the typed rows of the source
    contract : its columns
    strategy : hash (of the row's content, or of the column with role id), stratified (by the target), group (whole
        groups on one side) or time (the latest rows test)
    test_size : the share of test rows; met exactly by none of the strategies, which keep equal rows together
    seed : another seed, another split
    column : the group or time column; None takes the one with that role

    Raises
    ------
    PipelineError : there is no such column, or one side stays without rows or, in a classification, without a class
    """
    if strategy == "hash":
        is_test = hash_rows(table, contract, seed) < test_size
    elif strategy == "group":
        name = find_column(contract, "group", column)
        is_test = hash_texts(format_values(table, [name]), seed) < test_size
    elif strategy == "time":
        is_test = _is_late(table[find_column(contract, "time", column)], test_size)
    else:
        is_test = _is_test_in_each_stratum(table, contract, test_size, seed)
    check_split(is_test, table[contract.target], contract, strategy)
    return is_test


def hash_rows(table: pa.Table, contract: Contract, seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) per row, equal for equal rows whatever the order of rows and columns."""
    ids = contract.columns_with_role("id")
    names = ids or sorted(name for name, column in contract.columns.items() if column.role != "ignored")
    return hash_texts(format_values(table, names), seed)


def format_values(table: pa.Table, names: list[str]) -> list[str]:
    """Return one text per row that holds the values of the named columns."""
    texts = [pc.fill_null(table[name].cast(pa.string()), _NULL) for name in names]
    joined: list[str] = pc.binary_join_element_wise(*texts, _SEPARATOR).to_pylist()
    return joined


def hash_texts(texts: list[str], seed: int) -> NDArray[np.float64]:
    """Return a uniform number in [0, 1) per text: 53 bits of its BLAKE2b hash (RFC 7693), keyed by the seed."""
    key = str(seed).encode()
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    return (np.frombuffer(digests, dtype=">u8") >> np.uint64(11)).astype(np.float64) / 2**53


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


def _is_late(moments: pa.ChunkedArray, test_size: float) -> NDArray[np.bool_]:
    """Return the latest rows; those of the same moment stay together, and rows without one train."""
    order = moments.combine_chunks()
    if not (pa.types.is_timestamp(order.type) or pa.types.is_integer(order.type) or pa.types.is_floating(order.type)):
        raise PipelineError(f"--split time needs a column of dates or numbers, got {order.type}. Name another.")
    known = pc.sort_indices(order.drop_null())
    cut = order.drop_null().take(known)[int(len(known) * (1 - test_size))]
    return np.asarray(pc.fill_null(pc.greater_equal(order, cut), False))


def _is_test_in_each_stratum(table: pa.Table, contract: Contract, test_size: float, seed: int) -> NDArray[np.bool_]:
    """Return the rows with the smallest hashes of each class, or of each tenth of a regression's target."""
    hashes = hash_rows(table, contract, seed)
    y = table[contract.target].to_pandas()
    if contract.is_classification:
        strata = y.astype(str).to_numpy()
    else:
        strata = np.searchsorted(np.quantile(y, np.linspace(0, 1, _BINS + 1)[1:-1]), y)
    is_test = np.zeros(len(hashes), dtype=bool)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        count = round(test_size * len(rows))
        if count:
            is_test[rows] = hashes[rows] <= np.sort(hashes[rows])[count - 1]
    return is_test


def check_split(is_test: NDArray[np.bool_], target: pa.ChunkedArray, contract: Contract, strategy: Strategy) -> None:
    """Raise unless both sides have rows and, in a classification, the train rows hold two classes."""
    n_test, n_train = int(is_test.sum()), int((~is_test).sum())
    if not n_test or n_train < 2:
        raise PipelineError(
            f"--split {strategy} gives {n_train:,} train and {n_test:,} test rows. "
            "Choose another --test-size or --split."
        )
    classes = pc.count_distinct(target.filter(pa.array(~is_test))).as_py()
    if contract.is_classification and classes < 2:
        raise PipelineError(f"--split {strategy} leaves one class to train on. Choose another: --split stratified")
