"""The files that the stages hand to each other: how they are written and checked.

This is the only module that opens them, and the one face of the four it is made of: errors.py, workspace.py (places,
locks), lineage.py (checksums) and seal.py. Every write goes through `commit`: a file appears whole or not at all. Every
hand-off carries its lineage, and the next stage refuses what does not match.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from data_ingestion import seal
from data_ingestion.errors import (
    EXIT_BAD_INPUT,
    EXIT_BUSY,
    EXIT_CANNOT_WRITE,
    EXIT_UNAVAILABLE,
    PipelineError,
    check_present,
    damaged_error,
    run_stage,
    stale_error,
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
from data_ingestion.workspace import REPOSITORY, Workspace, check_writable, open_workspace

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
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
    "new_folder",
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
    "write_error",
]

_LINEAGE_KEY, _SEAL_KEY = b"lineage", b"seal"


# Writing


class Commit:
    """A set of files that are written together. Use it through `commit`."""

    def __init__(self) -> None:
        self._pending: list[tuple[Path, Path]] = []

    def write(self, path: Path, write_to: Callable[[IO[bytes]], object]) -> str:
        """Write a file beside its final place and return its sha256. It appears when the commit ends.

        Raises
        ------
        PipelineError : the disk is full or the folder cannot be written (exit code 74)
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._pending.append((temporary, path))
            with temporary.open("wb") as file:
                write_to(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise write_error(path, err, temporary) from err
        return sha256_file(temporary)

    def write_bytes(self, path: Path, content: bytes) -> str:
        """Write `content`; see `write`."""
        return self.write(path, lambda file: file.write(content))

    def write_json(self, path: Path, value: object) -> str:
        """Write `value` as readable JSON; see `write`."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.write_bytes(path, text.encode())

    def write_parquet(self, path: Path, table: "pa.Table", lineage: Lineage) -> str:
        """Write `table` with its lineage, a checksum on every page and one over the whole; see `write`."""
        import pyarrow.parquet as pq

        lineage_text = json.dumps(lineage.to_dict(), sort_keys=True).encode()
        table = table.replace_schema_metadata({_LINEAGE_KEY: lineage_text, _SEAL_KEY: seal.BLANK})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        return self.write_bytes(path, seal.seal(buffer.getvalue()))

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

    def _discard(self) -> None:
        for temporary, _ in self._pending:
            temporary.unlink(missing_ok=True)


@contextmanager
def commit() -> Iterator[Commit]:
    """Write files that appear together, each whole.

    All of them are complete and on the disk before the first is renamed into place, so a full disk or a crash while
    writing leaves every earlier file as it was. The renames follow in the order of the writes: write last what
    vouches for the others (the manifest of a model), so that a crash between two renames is noticed by its reader.
    """
    files = Commit()
    try:
        yield files
        files._publish()
    finally:
        files._discard()


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


def read_parquet(path: Path, made_by: str) -> tuple["pa.Table", Lineage]:
    """Read a parquet hand-off and its lineage, after verifying its checksum.

    Raises
    ------
    PipelineError : it is missing, damaged, or not a file that a stage of this pipeline wrote; `made_by` is named
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_present(path, made_by)
    content = path.read_bytes()
    if seal.has_seal(content) and not seal.is_intact(content):
        raise damaged_error(path, made_by)
    try:
        table = pq.read_table(pa.py_buffer(content), page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError) as err:
        raise damaged_error(path, made_by) from err
    lineage = _parse_lineage(path, (table.schema.metadata or {}).get(_LINEAGE_KEY), made_by)
    if not seal.has_seal(content):
        raise damaged_error(path, made_by)
    return table, lineage


def read_lineage(path: Path) -> Lineage | None:
    """Return the lineage of a parquet hand-off, or None when it is not there whole: it must be made again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
        if not seal.is_intact(content):
            return None
        metadata = pq.read_metadata(pa.py_buffer(content)).metadata
        return _parse_lineage(path, (metadata or {}).get(_LINEAGE_KEY), "")
    except (pa.ArrowException, OSError, PipelineError):
        return None


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


def _parse_lineage(path: Path, text: bytes | None, made_by: str) -> Lineage:
    if text is None:
        raise PipelineError(f"{path} was not written by this pipeline: it carries no lineage. Run: python {made_by}")
    try:
        return parse_lineage(json.loads(text))
    except (ValueError, TypeError) as err:
        raise damaged_error(path, made_by) from err
