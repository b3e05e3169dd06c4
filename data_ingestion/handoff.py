"""The files that the stages hand to each other: how they are written and checked.

This is the only module that opens them, and the one face of what it is made of: errors.py, workspace.py (places,
locks), lineage.py (checksums), sealed_parquet.py and seal.py. Every write goes through `commit`: a file appears whole
or not at all. Every hand-off carries its lineage, and the next stage refuses what does not match.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from data_ingestion.errors import (
    EXIT_BAD_INPUT,
    EXIT_BUSY,
    EXIT_CANNOT_WRITE,
    EXIT_UNAVAILABLE,
    PipelineError,
    check_present,
    damaged_error,
    naming_errors,
    run_stage,
    stale_error,
    to_line,
    write_error,
)
from data_ingestion.lineage import (
    Lineage,
    has_outputs,
    parse_lineage,
    sha256_bytes,
    sha256_code,
    sha256_file,
    sha256_json,
)
from data_ingestion.workspace import APPENDED, REPOSITORY, Workspace, check_writable, open_workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from data_ingestion.sealed_parquet import ParquetSink, ParquetSource

__all__ = [
    "APPENDED",
    "EXIT_BAD_INPUT",
    "EXIT_BUSY",
    "EXIT_CANNOT_WRITE",
    "EXIT_UNAVAILABLE",
    "REPOSITORY",
    "Commit",
    "Lineage",
    "PipelineError",
    "Workspace",
    "check_present",
    "check_writable",
    "commit",
    "damaged_error",
    "has_outputs",
    "is_current",
    "naming_errors",
    "new_folder",
    "open_parquet",
    "open_workspace",
    "parse_lineage",
    "read_json",
    "read_lineage",
    "read_parquet",
    "read_verified",
    "run_stage",
    "sha256_bytes",
    "sha256_code",
    "sha256_file",
    "sha256_input",
    "sha256_json",
    "stale_error",
    "to_line",
    "write_error",
]


# Writing


class Commit:
    """A set of files that are written together. Use it through `commit`."""

    def __init__(self) -> None:
        self._temporaries: list[Path] = []
        self._pending: list[tuple[Path, Path]] = []  # in the order in which they were completed

    @contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """Open a file beside its final place, to write and to read. It appears when the commit ends.

        Raises
        ------
        PipelineError : the disk is full or the folder cannot be written (exit code 74)
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporaries.append(temporary)
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self._pending.append((temporary, path))
        except OSError as err:
            raise write_error(path, err, temporary) from err

    def write(self, path: Path, write_to: Callable[[IO[bytes]], object]) -> str:
        """Write a file and return its sha256; see `open`."""
        with self.open(path) as file:
            write_to(file)
        return sha256_file(self._pending[-1][0])

    def write_bytes(self, path: Path, content: bytes) -> str:
        """Write `content`; see `write`."""
        return self.write(path, lambda file: file.write(content))

    def write_json(self, path: Path, value: object) -> str:
        """Write `value` as readable JSON; see `write`."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.write_bytes(path, text.encode())

    @contextmanager
    def open_parquet(self, path: Path, schema: "pa.Schema") -> Iterator["ParquetSink"]:
        """Open a Parquet hand-off to write row by row; close the sink with its lineage inside the block. See `open`."""
        from data_ingestion.sealed_parquet import ParquetSink

        with self.open(path) as file:
            sink = ParquetSink(file, schema)
            try:
                yield sink
            finally:
                sink.abandon()  # of no effect on one that was closed

    def write_parquet(self, path: Path, table: "pa.Table", lineage: Lineage) -> str:
        """Write `table` with its lineage, a checksum on every page and one over the whole; see `open`."""
        with self.open_parquet(path, table.schema) as sink:
            sink.write(table)
            return sink.close(lineage)

    def _publish(self) -> None:
        for temporary, path in self._pending:
            try:
                os.replace(temporary, path)
            except OSError as err:
                raise write_error(path, err, temporary) from err
        for folder, path in {path.parent: path for _, path in self._pending}.items():
            try:
                _sync_folder(folder)
            except OSError as err:
                raise write_error(path, err) from err

    def discard(self) -> None:
        """Give up all that was written."""
        self._pending.clear()
        for temporary in self._temporaries:
            temporary.unlink(missing_ok=True)


@contextmanager
def commit() -> Iterator[Commit]:
    """Write files that appear together, each whole.

    All of them are complete and on the disk before the first is renamed into place, so a full disk or a crash while
    writing leaves every earlier file as it was. The renames follow in the order in which the files
    were completed: end with what vouches for the others (the manifest of a model), so that a crash between two renames
    is noticed by its reader.
    """
    files = Commit()
    try:
        yield files
        files._publish()
    finally:
        files.discard()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside its final place, where nothing stands yet; it appears when the block ends without error."""
    place = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir(parents=True)
        yield place
        for file in place.rglob("*"):
            if file.is_file():
                _sync_file(file)
        place.replace(path)
        _sync_folder(path.parent)
    except OSError as err:
        raise write_error(path, err) from err
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut. Windows has no such call and needs none."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Reading


@contextmanager
def open_parquet(path: Path, made_by: str, with_levels: bool = False) -> Iterator["ParquetSource"]:
    """Open a Parquet hand-off after verifying its checksum, to read by row groups.

    Parameters
    ----------
    path : the file
    made_by : the script that makes it
    with_levels : whether texts are read as dictionaries

    Raises
    ------
    PipelineError : it is missing, damaged, or not a file that a stage of this pipeline wrote; `made_by` is named
    """
    from data_ingestion.sealed_parquet import ParquetSource

    check_present(path, made_by)
    source = ParquetSource(path, made_by, with_levels)
    try:
        yield source
    finally:
        source.close()


def read_parquet(path: Path, made_by: str) -> tuple["pa.Table", Lineage]:
    """Read a whole Parquet hand-off and its lineage; see `open_parquet`."""
    with open_parquet(path, made_by) as source:
        return source.read(), source.lineage


def read_lineage(path: Path) -> Lineage | None:
    """Return the lineage of a Parquet hand-off, or None when it is not there whole: it must be made again."""
    from data_ingestion import sealed_parquet

    return sealed_parquet.read_lineage(path) if path.is_file() else None


def read_verified(path: Path, digest: str, made_by: str) -> bytes:
    """Return a file's content when it has the given sha256. A pickle is never opened before this.

    Raises
    ------
    PipelineError : it is missing, or not the file that was written; `made_by` is named
    """
    check_present(path, made_by)
    content = path.read_bytes()
    if sha256_bytes(content) != digest:
        raise PipelineError(
            f"{path} is not the file that was written (sha256 {sha256_bytes(content)[:12]}, expected {digest[:12]}): "
            f"it is damaged or was exchanged, so it is not opened. Run again: python {made_by}"
        )
    return content


def read_json(path: Path, made_by: str) -> dict[str, object]:
    """Read a JSON hand-off, an object.

    Raises
    ------
    PipelineError : it is missing or damaged; `made_by` is named
    """
    check_present(path, made_by)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, OSError) as err:
        raise damaged_error(path, made_by) from err
    if not isinstance(value, dict):
        raise damaged_error(path, made_by)
    return value


def sha256_input(path: Path, made_by: str) -> str:
    """Return the sha256 of a hand-off, or raise a one-line error naming the command that makes it."""
    check_present(path, made_by)
    return sha256_file(path)


def is_current(path: Path, lineage: Lineage) -> bool:
    """Return whether a parquet hand-off and what was written beside it are those that `lineage` would make again."""
    found = read_lineage(path)
    return found is not None and found.matches(lineage) and has_outputs(found, path.parent)
