"""The files that the stages hand to each other: where they are, and how they are written and checked.

This is the only module that opens them. Every write goes through `commit`: a file appears whole or not at all. Every
hand-off carries its lineage (what it was made from, by sha256), and the next stage refuses what does not match.
"""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from data_ingestion import seal

if TYPE_CHECKING:
    import pyarrow as pa

REPOSITORY = Path(__file__).resolve().parents[1]

EXIT_BAD_INPUT = 2  # a flag, a parameter, a source file or a hand-off is not as expected
EXIT_UNAVAILABLE = 69  # the tracking store does not answer (EX_UNAVAILABLE of sysexits.h)
EXIT_CANNOT_WRITE = 74  # the disk is full, or the folder cannot be written (EX_IOERR of sysexits.h)
EXIT_BUSY = 75  # another run holds this root (EX_TEMPFAIL)

_LINEAGE_KEY, _SEAL_KEY = b"lineage", b"seal"
_LEFTOVER = re.compile(r"^\..+\.\d+\.tmp$")


class PipelineError(Exception):
    """An expected failure: one sentence what is wrong, one what to do. Shown without a traceback."""

    def __init__(self, message: str, exit_code: int = EXIT_BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Workspace:
    """The places of all hand-offs below one root folder."""

    root: Path

    @property
    def schema(self) -> Path:
        """The data contract, yours to edit."""
        return self.root / "data" / "schema.yaml"

    @property
    def raw(self) -> Path:
        """The typed rows of the source."""
        return self.root / "data" / "raw.parquet"

    @property
    def rejected(self) -> Path:
        """The rows set aside, with line, column and reason."""
        return self.root / "data" / "rejected.parquet"

    @property
    def processed(self) -> Path:
        """Encoded features and target of every row, with its split."""
        return self.root / "data" / "processed.parquet"

    @property
    def encoder(self) -> Path:
        """The fitted encoder: raw table in, encoded features out."""
        return self.root / "data" / "encoder.pkl"

    @property
    def models(self) -> Path:
        """The folder that the API watches: the saved model and its metrics."""
        return self.root / "models"

    @property
    def metrics(self) -> Path:
        """How good the saved model is; one section per stage."""
        return self.models / "metrics.json"

    @property
    def report(self) -> Path:
        """The page that shows it."""
        return self.root / "evaluation" / "report.html"

    @property
    def figures(self) -> Path:
        """Its figures as files."""
        return self.root / "evaluation" / "figures"

    @property
    def tracking(self) -> Path:
        """The MLflow store and what waits to be sent to a server."""
        return self.root / "mlflow"

    def show(self, path: Path) -> str:
        """Return `path` as a reader types it: relative to the root where it lies inside, with forward slashes."""
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            return str(path)


@dataclass(frozen=True)
class Lineage:
    """What a hand-off was made from. Two equal lineages mean equal content: every stage is deterministic.

    Parameters
    ----------
    stage : name of the script that wrote it
    inputs : what went in, by name, as sha256
    params : the stage's effective parameters
    code : sha256 over the sources and library versions the stage runs on
    outputs : the files written beside this one in the same commit, by name, as sha256
    rows : row counts worth carrying on
    """

    stage: str
    inputs: dict[str, str]
    params: dict[str, object]
    code: str
    outputs: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def matches(self, other: "Lineage") -> bool:
        """Return whether both were made by the same stage from the same inputs, parameters and code."""
        return (self.stage, self.inputs, self.params, self.code) == (
            other.stage,
            other.inputs,
            other.params,
            other.code,
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain values that JSON can hold."""
        return asdict(self)


def sha256_bytes(content: bytes) -> str:
    """Return the sha256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_input(path: Path, made_by: str) -> str:
    """Return the sha256 of a hand-off, or raise a one-line error naming the command that makes it."""
    check_present(path, made_by)
    return sha256_file(path)


def sha256_json(value: object) -> str:
    """Return the sha256 of a plain value, the same for equal values on every machine."""
    return sha256_bytes(json.dumps(value, sort_keys=True, ensure_ascii=True).encode())


def sha256_code(folders: Sequence[str], distributions: Sequence[str] = ()) -> str:
    """Return one sha256 over the Python sources of `folders` and the installed versions of `distributions`."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    for folder in folders:
        for source in sorted((REPOSITORY / folder).glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    for name in distributions:
        digest.update(f"{name}=={version(name)}\0".encode())
    return digest.hexdigest()


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
        for folder in {path.parent for _, path in self._pending}:
            _sync_folder(folder)

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


def write_error(path: Path, err: OSError, temporary: Path | None = None) -> PipelineError:
    """Return the one-line error for a failed write of `path`."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free
        needed = temporary.stat().st_size + 1 if temporary is not None and temporary.exists() else 1
        why = f"the disk is full ({free:,} bytes free, more than {needed:,} needed for this file)"
        repair = "Free some space"
    else:
        why = os.strerror(err.errno) if err.errno else str(err)
        repair = f"Make {path.parent} a folder that this user can write to"
    message = f"cannot write {path}: {why}. What was there before is untouched. {repair}, then run the command again."
    return PipelineError(message, EXIT_CANNOT_WRITE)


def check_writable(folders: Sequence[Path]) -> None:
    """Raise a one-line error when a folder cannot be written, before any work is spent."""
    for folder in folders:
        probe = folder / f".probe.{os.getpid()}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as err:
            raise write_error(probe, err) from err


def sweep_leftovers(folders: Sequence[Path]) -> None:
    """Remove the temporary files of runs that were killed. Call it only while holding `lock_root`."""
    for folder in folders:
        if folder.is_dir():
            for path in folder.iterdir():
                if not _LEFTOVER.match(path.name):
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


@contextmanager
def lock_root(root: Path) -> Iterator[None]:
    """Hold `root` for one stage at a time; the lock ends with the process, however it ends.

    Raises
    ------
    PipelineError : another process holds it (exit code 75); the message names its pid and start
    """
    from filelock import FileLock, Timeout

    folder = root / "data"
    check_writable([folder])
    lock, holder = FileLock(folder / ".lock"), folder / ".lock.holder"
    try:
        lock.acquire(blocking=False)
    except Timeout as err:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "another process is running"
        message = f"{root} is in use: {who}. Wait for it to end, or give this run its own folder with --root."
        raise PipelineError(message, EXIT_BUSY) from err
    try:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        holder.write_text(f"pid {os.getpid()} has been running since {started}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def open_workspace(root: Path) -> Iterator[Workspace]:
    """Lock `root`, clear what killed runs left there, and check that every folder can be written."""
    workspace = Workspace(root)
    folders = [root / "data", workspace.models, workspace.report.parent, workspace.figures]
    folders += [workspace.tracking, workspace.tracking / "pending"]
    with lock_root(root):
        check_writable(folders)
        sweep_leftovers(folders)
        yield workspace


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


def check_present(path: Path, made_by: str) -> None:
    """Raise a one-line error naming the command to run when a hand-off is not there."""
    if not path.is_file():
        raise PipelineError(f"{path} is not there yet. Run: python {made_by}")


def damaged_error(path: Path, made_by: str) -> PipelineError:
    """Return the one-line error for a hand-off that fails its checks."""
    return PipelineError(f"{path} is damaged: its content is not what was written. Run again: python {made_by}")


def stale_error(path: Path, reason: str, made_by: str) -> PipelineError:
    """Return the one-line error for a hand-off that no longer matches what it was made from."""
    return PipelineError(f"{path} is out of date: {reason}. Run again: python {made_by}")


def is_current(path: Path, lineage: Lineage) -> bool:
    """Return whether a parquet hand-off and what was written beside it are those that `lineage` would make again."""
    found = read_lineage(path)
    return found is not None and found.matches(lineage) and has_outputs(found, path.parent)


def has_outputs(lineage: Lineage, folder: Path) -> bool:
    """Return whether every file that was written with this lineage is still there, unchanged."""
    return all((folder / n).is_file() and sha256_file(folder / n) == s for n, s in lineage.outputs.items())


def parse_lineage(value: object) -> Lineage:
    """Return the lineage held in a JSON object.

    Raises
    ------
    TypeError : the object is not a lineage
    """
    if not isinstance(value, dict):
        raise TypeError("a lineage is a JSON object")
    return Lineage(**value)


def _parse_lineage(path: Path, text: bytes | None, made_by: str) -> Lineage:
    if text is None:
        raise PipelineError(f"{path} was not written by this pipeline: it carries no lineage. Run: python {made_by}")
    try:
        return parse_lineage(json.loads(text))
    except (ValueError, TypeError) as err:
        raise damaged_error(path, made_by) from err


# Running a stage


def run_stage(main: Callable[[], int | None]) -> int:
    """Run a stage's `main` and return its exit code; an expected error becomes one line on stderr."""
    try:
        return main() or 0
    except PipelineError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; nothing was changed", file=sys.stderr)
        return 130
