"""From a source file to the text of a CSV in UTF-8: compressed files, Parquet and Arrow tables, UTF-16.

A fault of the file is refused at once, with its line where it has lines.
"""

import bz2
import gzip
import io
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from data_ingestion.handoff import PipelineError, Workspace
from data_ingestion.schema import join_names

if TYPE_CHECKING:
    import pyarrow as pa

REFUSED = {  # by their first bytes: what people name by mistake
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
}
MAX_EXPANSION = 200  # tables shrink tenfold or twentyfold; what grows more than this is a bomb
_CHUNK_BYTES = 4 * 1024 * 1024


def read_source(path: Path, workspace: Workspace) -> bytes:
    """Return the content of the source file.

    Raises
    ------
    PipelineError : it is missing, empty, not a regular file, a link that leaves data/, or it changes meanwhile
    """
    data_root = workspace.root / "data"
    try:
        exists = path.exists()
    except OSError as err:
        raise PipelineError(f"{path} cannot be a file: {err.strerror}. Name an existing CSV: --source FILE") from err
    if not exists:
        raise PipelineError(f"{path} does not exist. Name an existing CSV: --source path/to/file.csv")
    if path.absolute().is_relative_to(data_root) and not path.resolve().is_relative_to(data_root.resolve()):
        raise PipelineError(
            f"{path} is a link that leaves {data_root}. Name the file itself: --source {path.resolve()}"
        )
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "folder" if path.is_dir() else "pipe or device"
        raise PipelineError(f"{path} is a {kind}, expected a CSV file. Name the file: --source path/to/file.csv")
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            content = file.read()
            after = path.stat()
    except OSError as err:
        raise PipelineError(f"{path} cannot be read: {err.strerror}. Mend that, then run the command again.") from err
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(content) != after.st_size:
        raise PipelineError(f"{path} changed while it was read. Run the command again when its writer is done.")
    if not content.strip():
        raise PipelineError(f"{path} is empty, expected a header line and rows. Name another file: --source FILE")
    return content


def decode_source(content: bytes, name: str) -> tuple[bytes, list[str]]:
    """Return the content as a CSV in UTF-8 without byte-order mark, and a note for each thing that was done to it.

    Raises
    ------
    PipelineError : the file is no text or table, is damaged, its encoding is not UTF-8 and nothing says which it is, or
        there is a NUL byte
    """
    for first_bytes, format in REFUSED.items():
        if content.startswith(first_bytes):
            raise PipelineError(f"{name} is {format}, expected a CSV file. Save it as CSV in UTF-8.")
    content, notes = unpack(content, name)
    if content.startswith((b"PAR1", b"ARROW1")):
        return write_csv(read_table(content, name)), [*notes, "read as the table it is"]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeError as err:
            raise PipelineError(f"{name} begins like UTF-16 but is not: {err}. Save it as UTF-8.") from err
        notes.append("read as UTF-16, which its byte-order mark announces")
    content = content.removeprefix(b"\xef\xbb\xbf")
    nul = content.find(b"\0")
    if nul >= 0:
        if content[:200].count(b"\0") * 3 > len(content[:200]):
            raise PipelineError(f"{name} looks like UTF-16 without a byte-order mark. Save it as UTF-8.")
        raise PipelineError(f"{name} line {line_of(content, nul)}: a NUL byte (offset {nul}). Remove it.")
    try:
        content.decode()
    except UnicodeDecodeError as err:
        raise PipelineError(
            f"{name} line {line_of(content, err.start)}: byte 0x{content[err.start]:02x} at offset {err.start} is not "
            "UTF-8. Save the file as UTF-8 (in a spreadsheet: CSV UTF-8)."
        ) from err
    return content, notes


def unpack(content: bytes, name: str) -> tuple[bytes, list[str]]:
    """Return a file's content after gzip, bzip2 or zstd is undone, and a note when it was.

    Raises
    ------
    PipelineError : it is cut short or damaged, or it would grow beyond all measure
    """
    for first_bytes, (title, open_stream) in _PACKINGS.items():
        if content.startswith(first_bytes):
            return _expand(content, open_stream, title, name), [f"unpacked with {title}"]
    return content, []


def _open_gzip(content: bytes) -> IO[bytes]:
    return gzip.GzipFile(fileobj=io.BytesIO(content))  # type: ignore[return-value]  # a stream all the same


def _open_bzip2(content: bytes) -> IO[bytes]:
    return bz2.BZ2File(io.BytesIO(content))


def _open_zstd(content: bytes) -> IO[bytes]:
    import pyarrow as pa

    stream: IO[bytes] = pa.CompressedInputStream(pa.py_buffer(content), "zstd")
    return stream


_PACKINGS: dict[bytes, tuple[str, Callable[[bytes], IO[bytes]]]] = {
    b"\x1f\x8b": ("gzip", _open_gzip),
    b"BZh": ("bzip2", _open_bzip2),
    b"\x28\xb5\x2f\xfd": ("zstd", _open_zstd),
}


def _expand(content: bytes, open_stream: Callable[[bytes], IO[bytes]], title: str, name: str) -> bytes:
    pieces, size = [], 0
    try:
        with open_stream(content) as stream:
            while piece := stream.read(_CHUNK_BYTES):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_EXPANSION * len(content) + _CHUNK_BYTES:
                    raise PipelineError(
                        f"{name} grows more than {MAX_EXPANSION}-fold when it is unpacked, which no table does. "
                        "If it is one, unpack it yourself and name the result: --source FILE"
                    )
    except (OSError, EOFError, zlib.error, ValueError) as err:
        raise PipelineError(
            f"{name} is cut short or damaged: it cannot be unpacked with {title}. Copy it again."
        ) from err
    return b"".join(pieces)


def read_table(content: bytes, name: str) -> "pa.Table":
    """Return a Parquet or Arrow file as a table of plain columns.

    Raises
    ------
    PipelineError : it is damaged, or a column holds more than one value a row, or is the index of a pandas table
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if content.startswith(b"PAR1"):
            table = pq.read_table(pa.py_buffer(content))
        else:
            table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
    except (pa.ArrowException, OSError, OverflowError) as err:
        raise PipelineError(f"{name} is cut short or damaged: it cannot be read as a table. Copy it again.") from err
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type) or pa.types.is_binary(field.type)]
    if nested:
        raise PipelineError(
            f"{name}: expected one plain value in each cell, got lists, structs or bytes in {join_names(nested)}. "
            "Leave these columns out, or make columns of their parts."
        )
    index = [column for column in table.column_names if column.startswith("__index_level_")]
    if index:
        raise PipelineError(
            f"{name} holds the index of a pandas table, {join_names(index)}. Write it with index=False, or give the "
            "index a name."
        )
    return table


def write_csv(table: "pa.Table") -> bytes:
    """Return a table as the text of a CSV; numbers keep every digit, and a missing value is an empty cell."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table[field.name].cast(field.type.value_type))
        elif pa.types.is_string_view(field.type):  # which the writer of CSV does not know
            table = table.set_column(place, field.name, table[field.name].cast(pa.string()))
    buffer = pa.BufferOutputStream()
    pa_csv.write_csv(table, buffer)
    text: bytes = buffer.getvalue().to_pybytes()
    return text


def line_of(content: bytes, offset: int) -> int:
    """Return the number of the line that holds a byte."""
    before = content[:offset]
    return 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")
