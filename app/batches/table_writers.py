"""Answers to a batch as Parquet or as an Arrow stream. Needs PyArrow."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.batches.answers import (
    ID_DIGITS,
    Answers,
    describe_faults,
    describe_members,
    join_groups,
)
from app.batches.arrow_buffers import pack, wrap_numbers, wrap_texts
from app.batches.header import list_answers
from app.batches.slices import Mask
from app.model_host import Served

GROUP_ROWS = 65_536  # of Parquet
CODED = ("prediction", "model_version", "warnings", "error")  # columns of Parquet whose texts repeat


class Pieces:
    """A file to write to, whose content is taken away piece by piece."""

    def __init__(self) -> None:
        self.closed = False
        self._parts: list[bytes] = []
        self._length = 0

    def write(self, part: bytes) -> int:
        """Add to the content."""
        self._parts.append(bytes(part))
        self._length += len(part)
        return len(part)

    def tell(self) -> int:
        """Return how long the whole content is so far."""
        return self._length

    def flush(self) -> None:
        """Do nothing: what was written is there."""

    def close(self) -> None:
        """End the content."""
        self.closed = True

    def take(self) -> bytes:
        """Return what was added since the last time."""
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def write_arrow(served: Served, kept: Sequence[str], answered: Iterable[Answers]) -> Iterator[bytes]:
    """Yield an Arrow stream with a row for each row, in their order; null where there is nothing."""
    pieces = Pieces()
    batches = (build_batch(served, kept, some) for some in answered)
    first = next(batches)
    with pa.ipc.new_stream(pa.PythonFile(pieces, mode="w"), first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)
            yield pieces.take()
    yield pieces.take()


def write_parquet(served: Served, kept: Sequence[str], answered: Iterable[Answers]) -> Iterator[bytes]:
    """Yield a Parquet file; see `write_arrow`."""
    pieces = Pieces()
    batches = (build_batch(served, kept, some) for some in answered)
    first = next(batches)
    coded = [field.name for field in first.schema if field.name in kept or field.name in CODED]
    options = {"compression": "snappy", "use_dictionary": coded, "write_page_checksum": True}
    with pq.ParquetWriter(pa.PythonFile(pieces, mode="w"), first.schema, **options) as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in chain([first], batches):
            waiting.append(batch)
            if sum(some.num_rows for some in waiting) >= GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting), row_group_size=GROUP_ROWS)
                waiting.clear()
                yield pieces.take()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=GROUP_ROWS)
    yield pieces.take()


def build_batch(served: Served, kept: Sequence[str], some: Answers) -> pa.RecordBatch:
    """Return the answers of a slice as Arrow columns, the kept ones first."""
    is_good = None if some.is_good.all() else some.is_good
    columns = [to_array(column) for column in some.kept]
    if some.shares is None:
        columns.append(wrap_numbers(some.values, is_good))
    else:
        classes = served.model.manifest.classes or []
        is_named = any(isinstance(label, str) for label in classes)
        labels = wrap_texts(list(map(str, classes))) if is_named else wrap_numbers(np.array(classes, np.int64), None)
        columns.append(take(labels, some.values.astype(np.int64), is_good))
        columns += [wrap_numbers(np.ascontiguousarray(share), is_good) for share in some.shares.T]
    if some.bounds is not None:
        columns += [wrap_numbers(np.ascontiguousarray(bound), is_good) for bound in some.bounds.T]
    if some.members is not None:
        sets = wrap_texts(describe_members(some.members, served.labels))
        columns.append(take(sets, some.members.codes, is_good))
    zeros = np.zeros(some.n_rows, dtype=np.int64)
    columns += [wrap_ids(some.ids, some.n_rows, is_good), take(wrap_texts([served.version]), zeros, None)]
    columns.append(take(wrap_texts(join_groups(some.warnings)), some.warnings.codes, None))
    columns.append(take(wrap_texts(describe_faults(some.faults)), some.faults.codes, None))
    return pa.record_batch(columns, names=[*kept, *list_answers(served)])


def wrap_ids(digits: bytes, n_rows: int, is_valid: Mask | None) -> pa.Array:
    """Return ids as texts."""
    offsets = np.arange(0, (n_rows + 1) * ID_DIGITS, ID_DIGITS, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), n_rows, [pack(is_valid), pa.py_buffer(offsets), pa.py_buffer(digits)])


def take(levels: pa.Array, codes: NDArray[np.integer], is_valid: Mask | None) -> pa.Array:
    """Return the levels that codes name; null where they are not valid."""
    return levels.take(wrap_numbers(codes.astype(np.int64), is_valid))


# Kept columns


def to_array(column: object) -> pa.Array:
    """Return a kept column as an Arrow array, its texts not coded."""
    if not isinstance(column, pa.Array):
        return wrap_texts(column)  # type: ignore[arg-type]
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def to_texts(column: object) -> Sequence[str | None]:
    """Return a kept column as texts; None where it is null."""
    if not isinstance(column, pa.Array):
        return column  # type: ignore[return-value]
    texts: list[str | None] = pc.cast(to_array(column), pa.string()).to_pylist()
    return texts
