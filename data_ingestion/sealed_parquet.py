"""Parquet hand-offs row group by row group: written and read in bounded memory, sealed as a whole.

handoff.py is their face; it says where they stand, and makes them appear whole.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_ingestion import seal
from data_ingestion.errors import PipelineError, damaged_error
from data_ingestion.lineage import Lineage, parse_lineage

ROWS_PER_GROUP = 131_072
BYTES_PER_GROUP = 64 * 1024 * 1024  # a group of a table with many columns holds fewer rows
_SNIFFED_ROWS = 16_384
_ROWS_AT_ONCE = 8_192  # go through the encoders
_SYNCED_BYTES = 16 * 1024 * 1024  # go to the disk at once
_LINEAGE_KEY, _SEAL_KEY = b"lineage", b"seal"
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError)


class ParquetSink:
    """A Parquet file that is being written.

    Compressed with zstd, a checksum on every page. Texts have dictionaries, and so have numbers and dates that often
    repeat among the first rows; other integers and dates are stored as differences, other numbers byte by byte, the
    first ones of all values together: what costs least to write at almost the least size.

    Parameters
    ----------
    file : open for reading and writing, empty
    schema : the columns
    """

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._sealing = seal.SealingFile(file)
        self._syncing = _EarlySync(file)
        self._schema = schema.remove_metadata()
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        row_bytes = 16 * max(1, len(schema.names))
        self._group_rows = max(1024, min(ROWS_PER_GROUP, BYTES_PER_GROUP // row_bytes))

    def write(self, table: pa.Table) -> None:
        """Add rows; where groups end depends on their count alone."""
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        while self._waiting_rows >= self._group_rows:
            rows = pa.concat_tables(self._waiting)
            self._write_group(rows.slice(0, self._group_rows))
            self._waiting = [rows.slice(self._group_rows)]
            self._waiting_rows = self._waiting[0].num_rows

    def close(self, lineage: Lineage) -> str:
        """Write what is left, the lineage and the seal, and return the sha256 of the file."""
        if self._waiting_rows or self._writer is None:
            self._write_group(pa.concat_tables([self._schema.empty_table(), *self._waiting]))
        assert self._writer is not None
        text = json.dumps(lineage.to_dict(), sort_keys=True)
        self._syncing.end()
        self._sealing.mark_footer()
        self._writer.add_key_value_metadata({_LINEAGE_KEY: text, _SEAL_KEY: seal.BLANK})
        self._writer.close()
        return self._sealing.seal()

    def abandon(self) -> None:
        """Give the file up: without this, the writer would complete it when its memory is freed."""
        self._syncing.wait()
        if self._writer is not None:
            self._writer.is_open = False

    def _write_group(self, rows: pa.Table) -> None:
        rows = rows.unify_dictionaries()
        if self._writer is None:
            self._writer = self._open_writer(rows.slice(0, _SNIFFED_ROWS))
        if rows.num_rows:
            self._writer.write_table(rows, row_group_size=self._group_rows)
            self._syncing.follow(self._sealing.tell())

    def _open_writer(self, first: pa.Table) -> pq.ParquetWriter:
        texts = [f.name for f in self._schema if pa.types.is_string(f.type) or pa.types.is_dictionary(f.type)]
        whole = [f.name for f in self._schema if pa.types.is_int64(f.type) or pa.types.is_timestamp(f.type)]
        numbers = [f.name for f in self._schema if pa.types.is_floating(f.type)]
        few = {n for n in whole + numbers if 2 * pc.count_distinct(first[n]).as_py() <= first.num_rows}
        encodings = dict.fromkeys(whole, "DELTA_BINARY_PACKED") | dict.fromkeys(numbers, "BYTE_STREAM_SPLIT")
        return pq.ParquetWriter(
            self._sealing,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[*texts, *few],
            column_encoding={name: encoding for name, encoding in encodings.items() if name not in few},
            max_rows_per_page=self._group_rows,  # each page costs a start of the compressor
            write_batch_size=_ROWS_AT_ONCE,
            write_page_checksum=True,
            write_statistics=False,  # a quarter of the time of writing, and nobody asks
            store_schema=False,  # texts that are written as dictionaries come back as texts
        )


class _EarlySync:
    """Brings a file to the disk while it is being written, so that whoever syncs it in the end has little to wait for.

    Parameters
    ----------
    file : the file
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._thread = file, ThreadPoolExecutor(1)
        self._running: Future[None] | None = None
        self._size = 0

    def follow(self, size: int) -> None:
        """Begin to bring what is new to the disk, where that is much and nothing is on its way."""
        if size - self._size < _SYNCED_BYTES or (self._running is not None and not self._running.done()):
            return
        self.end()
        self._size = size
        self._file.flush()
        self._running = self._thread.submit(os.fsync, self._file.fileno())

    def end(self) -> None:
        """Wait for what is on its way, and raise what went wrong: the system says it once."""
        if self._running is not None:
            self._running.result()

    def wait(self) -> None:
        """Wait for what is on its way, whatever becomes of it: then the file may be closed."""
        self._thread.shutdown()


class ParquetSource:
    """A Parquet hand-off that has been verified to the last bit.

    Parameters
    ----------
    path : the file
    made_by : the script that makes it, for messages
    with_levels : whether texts are read as dictionaries, which is several times as fast where they repeat

    Raises
    ------
    PipelineError : it is damaged, or not a file that a stage of this pipeline wrote
    """

    def __init__(self, path: Path, made_by: str, with_levels: bool = False) -> None:
        self.path, self._made_by = path, made_by
        is_sealed = seal.has_seal(path)
        if is_sealed and not seal.is_intact(path):
            raise damaged_error(path, made_by)
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            if with_levels:
                texts = [field.name for field in self._file.schema_arrow if pa.types.is_string(field.type)]
                self._file.close()
                self._file = pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts)
            metadata = self._file.metadata.metadata or {}
        except _DAMAGE as err:
            raise damaged_error(path, made_by) from err
        self.schema: pa.Schema = self._file.schema_arrow.remove_metadata()
        self.lineage = _parse_lineage(path, metadata.get(_LINEAGE_KEY), made_by)
        if not is_sealed:
            raise damaged_error(path, made_by)

    @property
    def num_rows(self) -> int:
        """How many rows it holds."""
        return int(self._file.metadata.num_rows)

    def iterate(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the row groups in order, of all columns or of these."""
        for number in range(self._file.num_row_groups):
            yield self.read_group(number, columns)

    @property
    def num_groups(self) -> int:
        """How many row groups it holds."""
        return int(self._file.num_row_groups)

    def read_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return one row group."""
        try:
            return self._file.read_row_group(number, columns).replace_schema_metadata(None)
        except _DAMAGE as err:
            raise damaged_error(self.path, self._made_by) from err

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the whole table."""
        try:
            return self._file.read(columns).replace_schema_metadata(None)
        except _DAMAGE as err:
            raise damaged_error(self.path, self._made_by) from err

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lineage(path: Path) -> Lineage | None:
    """Return the lineage of a Parquet hand-off, or None when it is not there whole: it must be made again."""
    try:
        source = ParquetSource(path, "")
    except (OSError, PipelineError):
        return None
    source.close()
    return source.lineage


def _parse_lineage(path: Path, text: bytes | None, made_by: str) -> Lineage:
    if text is None:
        raise PipelineError(f"{path} was not written by this pipeline: it carries no lineage. Run: python {made_by}")
    try:
        return parse_lineage(json.loads(text))
    except (ValueError, TypeError) as err:
        raise damaged_error(path, made_by) from err
