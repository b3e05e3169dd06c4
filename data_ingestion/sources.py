"""From what the user names as the source to the files to read: one, several, a folder, a pipe or an address.

source_reader.py reads them.
"""

import glob
import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data_ingestion.handoff import APPENDED, REPOSITORY, PipelineError, Workspace, naming_errors

ENDINGS = (".csv", ".tsv", ".txt", ".gz", ".bz2", ".zst", ".parquet", ".arrow", ".feather")
COPIED_BYTES = 1024 * 1024
STDIN = "-"


@dataclass(frozen=True)
class Source:
    """One file to read.

    Parameters
    ----------
    path : where it stands
    name : what messages call it
    encoding : as declared; None finds it out
    size : in bytes
    modified_ns : when it was last written
    """

    path: Path
    name: str
    encoding: str | None
    size: int
    modified_ns: int


@contextmanager
def open_sources(given: str, workspace: Workspace) -> Iterator[tuple[list[Source], str]]:
    """Find the files that a source names; see `find_sources`. What came over a pipe is removed in the end."""
    try:
        yield find_sources(given, workspace)
    finally:
        _kept_stream(workspace).unlink(missing_ok=True)


def find_sources(given: str, workspace: Workspace) -> tuple[list[Source], str]:
    """Return the files that a source names, sorted, and its own name for the contract.

    Parameters
    ----------
    given : a file, several with commas between them, a pattern with `*`, a folder, an address, or `-` for the pipe
    workspace : what comes over a pipe or from an address is kept in its data folder until the run ends

    Raises
    ------
    PipelineError : a file is missing, empty, not a regular file, or a link that leaves data/
    """
    if given == STDIN or "://" in given:
        kept = _keep_stream(given, workspace)
        name = "standard input" if given == STDIN else given
        return [check_source(kept, name, workspace)], name
    parts = [given] if find_place(given, workspace.root) else [p.strip() for p in given.split(",") if p.strip()]
    if not parts:
        raise PipelineError(f'--source "{given}" names no file. Name an existing CSV: --source path/to/file.csv')
    paths = [path for part in parts for path in _list_paths(part, workspace)]
    twice = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if twice:
        raise PipelineError(f"{workspace.show(twice[0])} is named twice. Name it once: its rows would count twice.")
    sources = [check_source(path, workspace.show(path), workspace) for path in paths]
    name = ", ".join(workspace.show(find_place(part, workspace.root) or Path(part)) for part in parts)
    return sources, name


def find_place(given: str, root: Path) -> Path | None:
    """Return where a path exists: from the current folder, else below the root, else in the repository."""
    places = [Path(os.path.abspath(folder / given)) for folder in (Path.cwd(), root, REPOSITORY)]
    return next((place for place in places if os.path.lexists(place)), None)


def _list_paths(part: str, workspace: Workspace) -> list[Path]:
    place = find_place(part, workspace.root)
    if place is not None and place.is_dir():
        found = sorted(
            path for path in place.iterdir() if path.suffix.lower() in ENDINGS and _is_input(path, workspace)
        )
        if not found:
            raise PipelineError(f"{place} is a folder without CSV, Parquet or Arrow files. Name a file: --source FILE")
        return found
    if place is None and glob.has_magic(part):
        for folder in (Path.cwd(), workspace.root, REPOSITORY):
            matches = [Path(os.path.abspath(match)) for match in sorted(glob.glob(str(folder / part), recursive=True))]
            matches = [path for path in matches if _is_input(path, workspace)]
            if matches:
                return matches
        raise PipelineError(f"no file matches {part}. Name an existing CSV: --source path/to/file.csv")
    return [place or Path(os.path.abspath(part))]


def _is_input(path: Path, workspace: Workspace) -> bool:
    """Return whether a file may be meant by a folder or a pattern: neither hidden, nor what the stages wrote."""
    own = {workspace.raw, workspace.rejected, workspace.rejected_csv, workspace.processed}
    is_copy = path.parent == workspace.raw.parent and path.name.startswith(APPENDED)
    return path.is_file() and not path.name.startswith(".") and path not in own and not is_copy


def check_source(path: Path, name: str, workspace: Workspace) -> Source:
    """Return a file to read, as it is now.

    Raises
    ------
    PipelineError : it is missing, empty, not a regular file, or a link that leaves data/
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
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise PipelineError(
            f"{path} is a pipe or device, expected a CSV file. For a pipe: --source - and < {path}; else name a file."
        )
    if not status.st_size:
        raise PipelineError(f"{name} is empty, expected a header line and rows. Name another file: --source FILE")
    return Source(path, name, None, status.st_size, status.st_mtime_ns)


def _keep_stream(given: str, workspace: Workspace) -> Path:
    """Copy a pipe or an address to a file, because the rows may have to be read more than once."""
    kept = _kept_stream(workspace)
    with naming_errors(kept), kept.open("wb") as file, _open_stream(given) as stream:
        for piece in _read_stream(stream, given):
            file.write(piece)
    return kept


def _read_stream(stream: IO[bytes], given: str) -> Iterator[bytes]:
    while True:
        try:
            piece = stream.read(COPIED_BYTES)
        except OSError as err:
            raise _unreadable(given, err) from err
        if not piece:
            return
        yield piece


def _unreadable(given: str, err: Exception) -> PipelineError:
    why = " ".join(str(err).split())
    return PipelineError(f"{given} cannot be read: {why}. Download it, then name the file: --source FILE")


def _kept_stream(workspace: Workspace) -> Path:
    return workspace.root / "data" / f".source.{os.getpid()}.tmp"


def _open_stream(given: str) -> IO[bytes]:
    if given == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise PipelineError("--source - reads a pipe, and there is none. Pipe a CSV into it, or name a file.")
        return sys.stdin.buffer
    import pyarrow as pa
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(given)
    except (pa.ArrowException, OSError, ValueError) as err:
        raise PipelineError(
            f"{given} is not an address that PyArrow opens (s3, gs, abfs, hdfs, file). Download it, for one with: "
            f'curl -o data/file.csv "{given}"'
        ) from err
    try:
        stream: IO[bytes] = filesystem.open_input_stream(path, compression=None)
    except OSError as err:
        raise _unreadable(given, err) from err
    return stream


def join_digests(digests: list[str]) -> str:
    """Return one sha256 for several; a single one stays as it is."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
