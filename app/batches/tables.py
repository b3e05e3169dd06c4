"""Parquet and Arrow bodies: checked before they are unpacked, then read column by column. Needs PyArrow."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.batches.arrow_buffers import is_text, to_column, wrap_numbers
from app.batches.arrow_sizes import count_unpacked_bytes
from app.batches.header import check_header, refuse_count
from app.batches.slices import (
    SLICE_ROWS,
    Fault,
    Levels,
    Moments,
    Notes,
    Places,
    Slice,
    encode,
    is_nan,
    read_coded,
    read_moments,
    read_numbers,
)
from app.errors import ApiError, ErrorList
from app.model_host import Served
from app.rows.bodies import refuse
from app.rows.reader import Passing
from models.scorer import Coded, Values

ROWS_BEYOND = 2**31  # no batch is so long
FAULTS = (pa.ArrowException, ValueError, TypeError, OSError, KeyError, IndexError, MemoryError)  # of a damaged body
FIRST, LAST = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")

Opened = tuple[list[str], Iterator[Slice]]


def read_parquet(served: Served, content: bytes, keep: bool, max_rows: int, max_bytes: int) -> Opened:
    """Return the names of the kept columns, and the rows; see `read_arrow`."""
    try:
        schema = pq.read_schema(pa.BufferReader(content))
        names = schema.names
        texts = [name for name, kind in zip(names, schema.types, strict=True) if is_text(kind)]
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts, page_checksum_verification=True)
    except FAULTS as err:
        raise _refuse_form("Parquet file") from err
    wanted = check_schema(schema, names, served, keep)
    check_rows(file.metadata.num_rows, max_rows)
    check_size(_count_bytes(file.metadata), max_bytes)
    try:
        table = file.read(columns=wanted, use_threads=False)
        table.validate(full=True)
    except FAULTS as err:
        raise _refuse_form("Parquet file") from err
    return _open_table(served, table, keep, max_rows, max_bytes)


def read_arrow(served: Served, content: bytes, keep: bool, max_rows: int, max_bytes: int) -> Opened:
    """Return the names of the kept columns, and the rows.

    Parameters
    ----------
    served : the model
    content : the body
    keep : whether the answer keeps the columns
    max_rows, max_bytes : more are refused, bytes as they are in memory

    Raises
    ------
    ApiError : 413 when it is too large; 422 when it is damaged, or its columns are not those of the contract
    """
    try:
        with pa.ipc.open_stream(pa.BufferReader(content)) as stream:
            schema, names = stream.schema, stream.schema.names
        size = count_unpacked_bytes(content)
    except FAULTS as err:
        raise _refuse_form("Arrow stream") from err
    wanted = check_schema(schema, names, served, keep)
    check_size(size, max_bytes)
    try:
        with pa.ipc.open_stream(pa.BufferReader(content)) as stream:
            table = stream.read_all()
        check_rows(table.num_rows, max_rows)
        table = table.select(wanted)
        table.validate(full=True)
    except FAULTS as err:
        raise _refuse_form("Arrow stream") from err
    return _open_table(served, table, keep, max_rows, max_bytes)


def check_schema(schema: pa.Schema, names: list[str], served: Served, keep: bool) -> list[str]:
    """Return the columns that are to be read.

    Parameters
    ----------
    schema, names : of all columns
    served : the model
    keep : whether the answer keeps the columns

    Raises
    ------
    ApiError : 422 naming the columns that are missing, unknown, or of another type than the contract's
    """
    check_header(names, served, keep)
    errors = ErrorList()
    features = served.contract.features
    for name, given in zip(names, schema.types, strict=True):
        kind = features[name].kind if name in features else None
        if kind is not None and not is_type_of(given, kind):
            errors.add("column_type", f"expects a column of {_TYPES[kind]}", name)
        elif keep and not is_flat(given):
            errors.add("column_type", "expects a column of numbers, booleans, texts or dates to keep", name)
    if errors.total:
        raise ApiError(422, "The columns are not of the types expected; see errors.", errors)
    return names if keep else list(features)


_TYPES = {
    "number": "numbers",
    "integer": "integers",
    "boolean": "booleans, or of texts",
    "category": "texts",
    "datetime": "dates or timestamps, or of texts",
}


def is_type_of(kind: pa.DataType, wanted: str) -> bool:
    """Return whether a column of an Arrow type may be one of a kind of the contract; nulls may be of any."""
    types = pa.types
    if types.is_null(kind):
        return True
    if wanted in ("number", "integer"):
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))
    is_words = is_text(kind) or (types.is_dictionary(kind) and is_text(kind.value_type))
    if wanted == "boolean":
        return is_words or bool(types.is_boolean(kind))
    if wanted == "datetime":
        return is_words or bool(types.is_date(kind) or types.is_timestamp(kind))
    return is_words


def is_flat(kind: pa.DataType) -> bool:
    """Return whether a column can be kept in an answer of any form."""
    return any(is_type_of(kind, wanted) for wanted in ("number", "boolean", "datetime"))


def check_moments(table: pa.Table) -> None:
    """Raise when dates or timestamps cannot be kept in every form: of zones that nobody knows, or beyond year 9999."""
    errors = ErrorList()
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
            continue
        try:
            pa.scalar(0, kind).cast(pa.string())
        except FAULTS:
            errors.add("column_type", "expects timestamps of a time zone that is known", name)
            continue
        a_day = 1 if pa.types.is_date32(kind) else _A_DAY["ms" if pa.types.is_date64(kind) else kind.unit]
        ends = pc.min_max(column.cast(pa.int32() if a_day == 1 else pa.int64())).as_py()
        if ends["min"] is not None and not (_FIRST_DAY * a_day <= ends["min"] and ends["max"] < _AFTER * a_day):
            errors.add("range", "expects dates of the years 1 to 9999 to keep", name)
    if errors.total:
        raise ApiError(422, "The columns cannot be kept; see errors.", errors)


_A_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_FIRST_DAY, _AFTER = FIRST.astype(int), LAST.astype(int) + 1  # in days since 1970


def check_rows(n_rows: int, max_rows: int) -> None:
    """Raise when there are too many rows or none."""
    if not 1 <= n_rows <= max_rows:
        raise refuse_count(n_rows, max_rows, n_rows < ROWS_BEYOND)


def check_size(size: int, max_bytes: int) -> None:
    """Raise when a table takes too much memory."""
    if size > max_bytes:
        raise ApiError(413, f"The table unpacks to more than {max_bytes:,} bytes. Send fewer rows at a time.")


def _refuse_form(form: str) -> ApiError:
    return refuse("damaged", f"The body cannot be read as {form}", "expects a whole and undamaged one")


def _count_bytes(metadata: pq.FileMetaData) -> int:
    """Return the bytes of all columns as the file says they are unpacked.

    Nobody may ask for the metadata of a single column: where they are damaged, PyArrow ends the process.
    """
    return sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))


def _open_table(served: Served, table: pa.Table, keep: bool, max_rows: int, max_bytes: int) -> Opened:
    check_rows(table.num_rows, max_rows)
    if keep:
        check_moments(table)
        check_size(sum(map(_count_expanded, table.columns)), max_bytes)
    return table.column_names if keep else [], _iterate_slices(served, table, keep)


def _count_expanded(column: pa.ChunkedArray) -> int:
    """Return the bytes of a column when each row holds its own text."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    total = 0
    for chunk in column.chunks:
        lengths = np.array([len(text or "") for text in chunk.dictionary.to_pylist()] + [0])
        total += int(lengths[np.asarray(to_column(chunk).codes)].sum())  # type: ignore[union-attr]
    return total


def _iterate_slices(served: Served, table: pa.Table, keep: bool) -> Iterator[Slice]:
    for start in range(0, table.num_rows, SLICE_ROWS):
        some = table.slice(start, SLICE_ROWS).combine_chunks()
        notes = Notes()
        columns: dict[str, Values | Coded] = {
            passing.name: read_array(passing, _join(some[passing.name]), notes) for passing in served.reader.plan
        }
        yield Slice(start, some.num_rows, columns, notes, [_join(column) for column in some.columns] if keep else ())


def _join(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def read_array(passing: Passing, values: pa.Array, notes: Notes) -> Values | Coded:
    """Return a feature of a table; null and NaN are missing.

    Parameters
    ----------
    passing : of the feature
    values : (n_rows,) of a type that `is_type_of` the feature's kind
    notes : grow
    """
    read = passing.feature.read
    if pa.types.is_null(values.type):
        return read_coded(passing, Coded(np.zeros(len(values), dtype=np.intp), [None]), read, notes)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    column = to_column(values)
    if isinstance(column, Coded):
        return read_coded(passing, column, read, notes)
    assert isinstance(column, np.ndarray)
    if column.dtype.kind == "M":
        moments: NDArray[np.datetime64] = column  # type: ignore[assignment]
        return read_moments(passing, _to_microseconds(passing.name, moments, notes), notes)

    def get_levels(rows: Places) -> Levels:
        found = values.take(wrap_numbers(rows, None)).to_pylist()  # integers as they are, though null stands beside
        return encode([None if is_nan(value) else value for value in found])

    return read_numbers(passing, column.astype(np.float64), get_levels, read, notes)


def _to_microseconds(name: str, moments: NDArray[np.datetime64], notes: Notes) -> Moments:
    """Return moments in microseconds; those beyond the years 1 to 9999 are refused."""
    if np.datetime_data(moments.dtype)[0] == "ns":  # none of them is beyond
        return moments.astype("datetime64[us]")
    unit = moments.dtype
    is_beyond = (moments < FIRST.astype(unit)) | (moments > LAST.astype(unit))
    if is_beyond.any():
        moments = np.where(is_beyond, FIRST.astype(unit), moments)
        notes.add(is_beyond, Fault(name, "datetime_format", "expects a date within the years 1 to 9999"))
    return moments.astype("datetime64[us]")
