"""Locks on open files that end with the process that holds them, however it ends."""

import sys
from io import FileIO

if sys.platform == "win32":
    import msvcrt

    _PLACE = 2**30  # beyond what anybody reads: a lock of Windows keeps readers out

    def lock_file(file: FileIO) -> bool:
        """Lock the file until it is closed; return whether nobody else holds it."""
        file.seek(_PLACE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def is_locked(file: FileIO) -> bool:
        """Return whether somebody else holds the file."""
        if not lock_file(file):
            return True
        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        return False

else:
    import fcntl

    def lock_file(file: FileIO) -> bool:
        """Lock the file until it is closed; return whether nobody else holds it."""
        return _try_lock(file, fcntl.LOCK_EX)

    def is_locked(file: FileIO) -> bool:
        """Return whether somebody else holds the file."""
        if not _try_lock(file, fcntl.LOCK_SH):  # shared: two who ask at once do not take each other for a holder
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
        return False

    def _try_lock(file: FileIO, kind: int) -> bool:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
