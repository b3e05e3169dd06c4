"""Parquet and Arrow files as the text of a CSV, batch by batch: numbers keep every digit, missing is an empty cell."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data_ingestion.handoff import PipelineError
from data_ingestion.schema import join_names

_DAMAGE = (pa.ArrowException, OSError, OverflowError)
_BATCH_ROWS = 65_536


class TableFile:
    """A table to read.

    Parameters
    ----------
    path : the file
    name : what messages call it

    Raises
    ------
    PipelineError : it is damaged, or a column holds more than one value a row, or is the index of a pandas table
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._handle = path.open("rb")
        self._is_parquet = self._handle.read(4) == b"PAR1"
        self._handle.seek(0)
        try:
            if self._is_parquet:
                self._parquet = pq.ParquetFile(self._handle)
                schema = self._parquet.schema_arrow
            else:
                self._arrow = pa.ipc.open_file(self._handle)
                schema = self._arrow.schema
        except _DAMAGE as err:
            self.close()
            raise self._damage() from err
        try:
            self._check_columns(schema)
        except PipelineError:
            self.close()
            raise
        fields = [pa.field(field.name, _plain_type(field.type)) for field in schema]
        self._schema = pa.schema(fields)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    @property
    def text_columns(self) -> list[str]:
        """The names of the columns that hold texts."""
        return [field.name for field in self._schema if pa.types.is_string(field.type)]

    def iterate_csv(self) -> Iterator[tuple[float, bytes]]:
        """Yield the share that has been read and the text so far unread, the header first."""
        yield 0.0, _format(self._schema.empty_table(), header=True)
        try:
            for share, batch in self._iterate_batches():
                table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                plain = pa.table(
                    [_to_plain(c, f.type) for c, f in zip(table.columns, self._schema, strict=True)], self._schema
                )
                yield share, _format(plain, header=False)
        except _DAMAGE as err:
            raise self._damage() from err

    def _iterate_batches(self) -> Iterator[tuple[float, pa.RecordBatch]]:
        if self._is_parquet:
            total, done = max(1, self._parquet.metadata.num_rows), 0
            for batch in self._parquet.iter_batches(_BATCH_ROWS):
                done += batch.num_rows
                yield done / total, batch
            return
        for number in range(self._arrow.num_record_batches):
            batch = self._arrow.get_batch(number)
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield (number + 1) / self._arrow.num_record_batches, batch.slice(start, _BATCH_ROWS)

    def _check_columns(self, schema: pa.Schema) -> None:
        nested = [field.name for field in schema if not _is_plain(field.type)]
        if nested:
            raise PipelineError(
                f"{self._name}: expected one plain value in each cell, got lists, structs or bytes in "
                f"{join_names(nested)}. Leave these columns out, or make columns of their parts."
            )
        index = [name for name in schema.names if name.startswith("__index_level_")]
        if index:
            raise PipelineError(
                f"{self._name} holds the index of a pandas table, {join_names(index)}. Write it with index=False, or "
                "give the index a name."
            )

    def _damage(self) -> PipelineError:
        return PipelineError(f"{self._name} is cut short or damaged: it cannot be read as a table. Copy it again.")


def _is_plain(kind: pa.DataType) -> bool:
    """Return whether the cells of a column are single values that a CSV can hold."""
    t = pa.types
    tests = (t.is_nested, t.is_binary, t.is_large_binary, t.is_fixed_size_binary, t.is_binary_view, t.is_interval)
    return not any(test(kind) for test in tests)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return a type that the writer of CSV knows."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    return pa.string() if pa.types.is_string_view(kind) or pa.types.is_large_string(kind) else kind


def _to_plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return (pc.run_end_decode(column) if pa.types.is_run_end_encoded(column.type) else column).cast(kind)


def _format(table: pa.Table, header: bool) -> bytes:
    buffer = pa.BufferOutputStream()
    pa_csv.write_csv(table, buffer, pa_csv.WriteOptions(include_header=header))
    text: bytes = buffer.getvalue().to_pybytes()
    return text
