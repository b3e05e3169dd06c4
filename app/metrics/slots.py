"""Numbered counters with names: in memory, or in a file that the other workers read and that outlives a kill.

A file is `CAPACITY` float64 slots, then a line of JSON for each name in the order of their slots: [family, label, ...].
The slots are mapped into memory, so to count is to write to memory, and what a killed worker had counted stays in the
pages that the kernel keeps. A worker holds a lock on its file as long as it lives, however it ends. The next worker
goes on in the first file that nobody holds: there are never more files than there were workers at once.
"""

import json
import logging
import mmap
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Lock

from app.metrics.file_locks import is_locked, lock_file

logger = logging.getLogger(__name__)

Key = tuple[str, ...]  # the family, and the values of its labels
Widths = Mapping[str, int]  # how many slots a name takes, by family

CAPACITY = 16_384  # slots
MAX_WORKERS = 1_024  # of one server
SPARE = 0  # where a name is counted that has no room; it is as wide as the widest, and never shown
_SIZE = CAPACITY * 8  # bytes
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class Snapshot:
    """What one worker has counted; its name is the number of its file."""

    worker: str
    is_alive: bool
    values: dict[Key, Sequence[float]]


class Slots:
    """Where one worker counts.

    Parameters
    ----------
    widths : by family
    folder : where the worker's file is; None counts in memory

    Attributes
    ----------
    values : the slots, float64 (`CAPACITY`,)

    Raises
    ------
    OSError : the folder cannot be written
    """

    def __init__(self, widths: Widths, folder: Path | None = None) -> None:
        self.widths = widths
        self.folder = folder
        self._worker = "0"
        self._file: FileIO | None = None
        if folder:
            self._worker, self._file = open_file(folder, widths)
        self.values = memoryview(mmap.mmap(self._file.fileno() if self._file else -1, _SIZE)).cast("d")
        self._slots = number_names(read_names(self._file), widths) if self._file else {}
        self._used = max(widths.values()) + sum(widths[key[0]] for key in self._slots)
        self._is_full = False
        self._lock = Lock()

    def find(self, key: Key) -> int:
        """Return the first slot of a name, which is added when it is new."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = self._add(key)
            return slot

    def close(self) -> None:
        """Let go of the file; what was counted stays in it."""
        if self._file:
            self._file.close()

    def list_names(self) -> list[Key]:
        """Return the names that have been added, by whoever counted here."""
        with self._lock:
            return list(self._slots)

    def take_snapshots(self) -> list[Snapshot]:
        """Return what was counted here, and by all others of the folder, the dead ones too."""
        with self._lock:
            slots = dict(self._slots)
        own = Snapshot(self._worker, True, slice_values(self.values, slots, self.widths))
        others = read_snapshots(self.folder, self.widths, besides=self._worker) if self.folder else []
        return [own, *others]

    def _add(self, key: Key) -> int:
        width = self.widths[key[0]]
        try:
            if self._used + width > CAPACITY:
                raise OSError(f"all {CAPACITY:,} counters are in use")
            if self._file:
                _append(self._file, json.dumps(key).encode() + b"\n")
        except OSError as err:
            if not self._is_full:
                logger.warning('"%s" of %s and other new metrics are not counted, for %s', key[0], key[1:], err)
            self._is_full = True
            return SPARE
        self._used += width
        return self._used - width


def open_file(folder: Path, widths: Widths) -> tuple[str, FileIO]:
    """Return the first file of the folder that nobody holds, from now on held by this process, and its number.

    Raises
    ------
    OSError : the folder cannot be written
    """
    for number in map(str, range(MAX_WORKERS)):
        file = _claim(_name_file(folder, number, widths))
        if file is not None:
            _prepare(file)
            return number, file
    raise OSError(f"{MAX_WORKERS:,} workers count in {folder}, or it takes no locks")


def read_snapshots(folder: Path, widths: Widths, besides: str) -> list[Snapshot]:
    """Return what the workers of a folder have counted, all but one."""
    found = []
    start, _, end = _name_file(folder, "*", widths).name.partition("*")
    for path in sorted(folder.glob(f"{start}*{end}")):
        worker = path.name.removeprefix(start).removesuffix(end)
        with suppress(FileNotFoundError):  # somebody tidied up
            if worker != besides and path.stat().st_size >= _SIZE:
                found.append(_read_snapshot(path, worker, widths))
    return found


def read_names(file: FileIO) -> list[Key]:
    """Return the names in a file, in order; a last one that is still being written is none yet."""
    file.seek(_SIZE)
    lines = file.read().split(b"\n")[:-1]
    return [tuple(key) for key in json.loads(b"[" + b",".join(lines) + b"]")]


def number_names(keys: Iterable[Key], widths: Widths) -> dict[Key, int]:
    """Return the first slot of each name."""
    slots, used = {}, max(widths.values())
    for key in keys:
        slots[key] = used
        used += widths[key[0]]
    return slots


def slice_values(values: "memoryview[float]", slots: Mapping[Key, int], widths: Widths) -> dict[Key, Sequence[float]]:
    """Return the values of each name that has slots."""
    return {key: values[slot : slot + widths[key[0]]].tolist() for key, slot in slots.items() if slot != SPARE}


def _read_snapshot(path: Path, worker: str, widths: Widths) -> Snapshot:
    with FileIO(os.open(path, _FLAGS), "r+") as file:
        slots = number_names(read_names(file), widths)
        file.seek(0)
        values = memoryview(file.read(_SIZE)).cast("d")
        return Snapshot(worker, is_locked(file), slice_values(values, slots, widths))


def _name_file(folder: Path, worker: str, widths: Widths) -> Path:
    """Return a worker's file. The ending is of this layout: another version of the API does not go on in it."""
    return folder / f"worker-{worker}-{zlib.crc32(repr(sorted(widths.items())).encode()):08x}"


def _claim(path: Path) -> FileIO | None:
    """Return the file when nobody holds it, and it is still the one at its path once it is ours."""
    file = FileIO(os.open(path, _FLAGS | os.O_CREAT, 0o600), "r+")
    with suppress(FileNotFoundError):
        if lock_file(file) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file
    file.close()
    return None


def _prepare(file: FileIO) -> None:
    """Write what a new file lacks, for a full disk must say so here and not kill who counts; cut off a torn name."""
    size = file.seek(0, os.SEEK_END)
    if size < _SIZE:
        _append(file, bytes(_SIZE - size))
    file.seek(_SIZE)
    file.truncate(_SIZE + file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)


def _append(file: FileIO, content: bytes) -> None:
    """Write at the end of the file, all or nothing.

    Raises
    ------
    OSError : there is no room
    """
    start = file.tell()
    if file.write(content) != len(content):
        file.truncate(start)
        file.seek(start)
        raise OSError("its disk is full")
