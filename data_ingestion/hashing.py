"""The sha256 of a file, taken while it is read, the beginning of it before anybody reads it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import IO

_PIECE_BYTES = 8 * 1024 * 1024  # large, for between two pieces a thread waits until others let it run

Progress = Callable[[int], object]


class HeadStart:
    """Hashes the beginning of a file in a thread, until somebody reads it: starting up leaves a core idle.

    Parameters
    ----------
    path : the file
    """

    def __init__(self, path: Path) -> None:
        self._digest, self._size, self._is_over = hashlib.sha256(), 0, Event()
        self._thread = Thread(target=self._hash, args=(path,), daemon=True)
        self._thread.start()

    def _hash(self, path: Path) -> None:
        try:
            with path.open("rb", buffering=0) as file:
                while not self._is_over.is_set() and (piece := file.read(_PIECE_BYTES)):
                    self._digest.update(piece)
                    self._size += len(piece)
        except OSError:  # whoever reads the file will say so
            return

    def finish(self) -> str:
        """Wait until the whole file is hashed, and return its sha256."""
        self._thread.join()
        return self._digest.hexdigest()

    def end(self) -> tuple["hashlib._Hash", int]:
        """Stop, and return the digest of the beginning, and how many bytes that is."""
        self._is_over.set()
        self._thread.join()
        return self._digest.copy(), self._size


class HashingReader:
    """Reads a file as long as it was when it was found, hashes what it reads, and tells how far it is.

    Parameters
    ----------
    file : open for reading, at its beginning
    length : how much of it is read, in bytes
    progress : called with the bytes read so far
    head_start : what has hashed its beginning
    """

    def __init__(
        self, file: IO[bytes], length: int, progress: Progress | None, head_start: HeadStart | None = None
    ) -> None:
        self._file, self._length, self._progress = file, length, progress
        self._digest, self._hashed = head_start.end() if head_start else (hashlib.sha256(), 0)
        self._size = 0
        self.closed = False

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        piece = self._file.read(min(size, self._length - self._size))
        self._digest.update(memoryview(piece)[max(0, self._hashed - self._size) :])
        self._size += len(piece)
        if self._progress is not None:
            self._progress(self._size)
        return piece

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def close(self) -> None:
        """Leave the file to whoever opened it."""
        self.closed = True

    def hexdigest(self) -> str:
        """Return the sha256 of what has been read."""
        return self._digest.hexdigest()
