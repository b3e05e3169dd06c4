"""A checksum of a whole Parquet file, inside that file.

Parquet's page checksums leave out the footer, where names, types and lineage stand: one flipped bit in twenty came back
as another table. So the footer also holds the sha256 of the whole file, taken with zeros where the digest stands.
"""

import hashlib
import io
import os
from pathlib import Path
from typing import IO

_MARK = b"sha256 of this file with zeros here: "
_DIGITS = 64
BLANK = _MARK + b"0" * _DIGITS  # goes into the file's metadata before it is sealed
_CHUNK_BYTES = 1024 * 1024


class SealingFile(io.RawIOBase):
    """Hashes what is written through it, and in the end puts the digest in the place of `BLANK`.

    Parameters
    ----------
    file : open for reading and writing, empty
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def write(self, data: object) -> int:
        """Write bytes, or what has the buffer of such."""
        view = memoryview(data)  # type: ignore[arg-type]
        self._digest.update(view)
        self._file.write(view)
        self._size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return how many bytes have been written."""
        return self._size

    def mark_footer(self) -> None:
        """Say that what is written from here on holds `BLANK`: only that is read again by `seal`."""
        self._footer, self._before_footer = self._size, self._digest.copy()

    def seal(self) -> str:
        """Put the digest in its place and return the sha256 of the file as it is then."""
        self._file.flush()
        self._file.seek(self._footer)
        footer = self._file.read()
        place = footer.rindex(BLANK) + len(_MARK)
        footer = footer[:place] + self._digest.hexdigest().encode() + footer[place + _DIGITS :]
        self._file.seek(self._footer)
        self._file.write(footer)
        self._before_footer.update(footer)
        return self._before_footer.hexdigest()


def has_seal(path: Path) -> bool:
    """Return whether a file claims to be sealed."""
    with path.open("rb") as file:
        return _find_seal(file) is not None


def is_intact(path: Path) -> bool:
    """Return whether a file is, to the last bit, the one that was sealed."""
    with path.open("rb") as file:
        place = _find_seal(file)
        if place is None:
            return False
        digest = hashlib.sha256()
        file.seek(0)
        for start in range(0, place, _CHUNK_BYTES):
            digest.update(file.read(min(_CHUNK_BYTES, place - start)))
        found = file.read(_DIGITS)
        digest.update(b"0" * _DIGITS)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return found == digest.hexdigest().encode()


def _find_seal(file: IO[bytes]) -> int | None:
    """Return where the digest stands, which is in the footer; the file's last eight bytes say how long that is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    footer_size = 8 + int.from_bytes(file.read(8)[:4], "little")
    start = max(0, size - footer_size)
    file.seek(start)
    place = file.read(footer_size).rfind(_MARK)
    return None if place < 0 else start + place + len(_MARK)
