"""Where the workers of one server leave their numbers for each other.

METRICS_DIR says it. Else a worker that uvicorn has spawned uses a folder that only its siblings can name, and only its
user can open, in memory where the system has /dev/shm. A process that is its own server needs none.
"""

import hashlib
import logging
import multiprocessing
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from io import FileIO
from pathlib import Path

from app.metrics.file_locks import is_locked

logger = logging.getLogger(__name__)

PREFIX = "model-api-"
MEMORY = Path("/dev/shm")


def list_folders(given: Path | None) -> list[Path] | None:
    """Return the folders to try, the best first; None when there are no other workers.

    Parameters
    ----------
    given : METRICS_DIR
    """
    if given is not None:
        return [given]
    parent = multiprocessing.parent_process()
    if parent is None:
        return None
    # The key that the parent gives to all its children and to nobody else, whenever it starts them.
    secret = bytes(multiprocessing.current_process().authkey)
    name = f"{PREFIX}{parent.pid}-{hashlib.sha256(secret).hexdigest()[:16]}"
    return [base / name for base in list_bases()]


def list_bases() -> list[Path]:
    """Return where private folders may be made: in memory, which no disk slows down, then among temporary files."""
    bases = [MEMORY] if MEMORY.is_dir() else []
    with suppress(FileNotFoundError):  # there is no such folder that can be written
        bases.append(Path(tempfile.gettempdir()))
    return bases


def make_folder(folder: Path, is_private: bool) -> None:
    """Make the folder, for its user alone; a private one that is there already has to be so.

    Raises
    ------
    OSError : it cannot be made, or it is somebody else's
    """
    folder.mkdir(0o700, parents=True, exist_ok=True)
    if is_private and not is_own(folder):
        raise PermissionError(f"{folder} belongs to somebody else")


def sweep_leftovers(base: Path) -> None:
    """Remove the private folders of servers that are gone; what cannot be removed stays."""
    for folder in base.glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        # Both, for another container's server has another numbering of processes, and a starting one no lock yet.
        if pid.isdecimal() and is_own(folder) and not is_running(int(pid)) and not has_worker(folder):
            logger.debug("removing %s, whose server is gone", folder)
            shutil.rmtree(folder, ignore_errors=True)


def is_own(folder: Path) -> bool:
    """Return whether it is a real folder that only this user can open."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    if os.name != "posix":  # other systems keep temporary files in the user's own folder
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def is_running(pid: int) -> bool:
    """Return whether there is such a process. Windows cannot tell, and there no file in use can be removed."""
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def has_worker(folder: Path) -> bool:
    """Return whether a living worker counts in the folder."""
    for path in folder.glob("worker-*"):
        with suppress(FileNotFoundError), FileIO(path, "r+") as file:
            if is_locked(file):
                return True
    return False
