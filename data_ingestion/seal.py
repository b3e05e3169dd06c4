"""A checksum of a whole file, inside that file.

Parquet's page checksums leave out the footer, where names, types and lineage stand: one flipped bit in twenty came back
as another table. So the footer also holds the sha256 of the whole file, taken with zeros where the digest stands.
"""

import hashlib

_MARK = b"sha256 of this file with zeros here: "
_DIGITS = 64
BLANK = _MARK + b"0" * _DIGITS  # goes into the file's metadata before it is sealed


def seal(content: bytes) -> bytes:
    """Return the content of a file with its digest in the place of `BLANK`."""
    place = content.rindex(BLANK) + len(_MARK)
    return content[:place] + _digest(content, place) + content[place + _DIGITS :]


def has_seal(content: bytes) -> bool:
    """Return whether a file claims to be sealed."""
    return _MARK in content


def is_intact(content: bytes) -> bool:
    """Return whether a file is, to the last bit, the one that was sealed."""
    place = content.rfind(_MARK) + len(_MARK)
    return has_seal(content) and content[place : place + _DIGITS] == _digest(content, place)


def _digest(content: bytes, place: int) -> bytes:
    """Return the digest of a file, whatever stands at `place` now."""
    view = memoryview(content)
    digest = hashlib.sha256(view[:place])
    digest.update(b"0" * _DIGITS)
    digest.update(view[place + _DIGITS :])
    return digest.hexdigest().encode()
