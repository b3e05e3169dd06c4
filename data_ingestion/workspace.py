"""The folder that a pipeline works in: where everything is, one run at a time, nothing left over from killed runs."""

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_ingestion.errors import EXIT_BUSY, PipelineError, write_error

REPOSITORY = Path(__file__).resolve().parents[1]

APPENDED = "appended-"  # begins the names of the copies of mended rows, in data/
_LEFTOVER = re.compile(r"^\..+\.\d+\.tmp$")


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
    def rejected_csv(self) -> Path:
        """The same rows to mend and feed back."""
        return self.root / "data" / "rejected.csv"

    @property
    def profile(self) -> Path:
        """What the columns of the source hold, in figures."""
        return self.root / "data" / "profile.json"

    @property
    def processed(self) -> Path:
        """Encoded features and target of every row, with its split."""
        return self.root / "data" / "processed.parquet"

    @property
    def encoder(self) -> Path:
        """The fitted encoder: raw table in, encoded features out."""
        return self.root / "data" / "encoder.pkl"

    @property
    def encoding(self) -> Path:
        """What became of every raw column."""
        return self.root / "data" / "encoding.json"

    @property
    def leaks(self) -> Path:
        """What looks like a leak of the target."""
        return self.root / "data" / "leaks.json"

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
        _note_holder(holder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _note_holder(path: Path) -> None:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        path.write_text(f"pid {os.getpid()} has been running since {started}", encoding="utf-8")
    except OSError as err:
        raise write_error(path, err) from err


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
