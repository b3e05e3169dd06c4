"""Read one feature of a slice from values as a body holds them, some hundreds at a time.

So many Python objects stay in the processor's cache; of a whole slice each would have to be fetched from memory again.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from app.batches.slices import Floats, Levels, Notes, Places, Read, encode, read_coded, read_numbers
from app.rows.reader import Passing
from models.scorer import Coded, Values

CHUNK_ROWS = 256
HASHABLE: Final = frozenset({str, bool, type(None)})  # and none of them equal to another type's


class ValueReader(Protocol):
    """Reads a feature of a slice."""

    def add(self, values: Sequence[object]) -> None:
        """Take the next values."""

    def finish(self, notes: Notes) -> Values | Coded:
        """Return all of them as the scorer takes them, and add what there is to say of them."""


class NumberReader:
    """Reads numbers.

    Parameters
    ----------
    passing : of the feature
    to_numbers : returns values as numbers, as integers where these are read; NaN where one is none that may pass
    read : reads what does not pass at once
    """

    def __init__(self, passing: Passing, to_numbers: Callable[[Sequence[object]], Floats], read: Read) -> None:
        self._passing = passing
        self._to_numbers = to_numbers
        self._read = read
        self._numbers: list[Floats] = []
        self._starts: list[int] = []
        self._given: list[Sequence[object]] = []  # nothing of pieces that pass whole
        self._n_rows = 0

    def add(self, values: Sequence[object]) -> None:
        """Take the next values."""
        numbers = self._to_numbers(values)
        passes = not len(numbers) or (numbers.min() >= self._passing.low and numbers.max() <= self._passing.high)
        self._numbers.append(numbers)
        self._starts.append(self._n_rows)
        self._given.append(() if passes else values)
        self._n_rows += len(values)

    def finish(self, notes: Notes) -> Values | Coded:
        """Return the numbers; see `ValueReader`."""
        return read_numbers(self._passing, np.concatenate(self._numbers), self._get_levels, self._read, notes)

    def _get_levels(self, rows: Places) -> Levels:
        pieces = np.searchsorted(self._starts, rows, side="right") - 1
        places = rows - np.array(self._starts)[pieces]
        found = [self._given[piece][place] for piece, place in zip(pieces.tolist(), places.tolist(), strict=True)]
        return encode(found) if HASHABLE.issuperset(map(type, found)) else (np.arange(len(found)), found)


class LevelReader:
    """Reads what is not plain numbers, each different value once.

    Parameters
    ----------
    passing : of the feature
    read : reads a value
    """

    def __init__(self, passing: Passing, read: Read) -> None:
        self._passing = passing
        self._read = read
        self._levels: list[object] = []
        self._places: dict[object, int] = {}
        self._codes: list[Places] = []

    def add(self, values: Sequence[object]) -> None:
        """Take the next values."""
        start = len(self._levels)
        if HASHABLE.issuperset(map(type, values)):
            new = [value for value in dict.fromkeys(values) if value not in self._places]
            self._levels += new
            self._places.update(zip(new, range(start, start + len(new)), strict=True))
            codes = np.fromiter(map(self._places.__getitem__, values), dtype=np.intp, count=len(values))
        else:  # 1 is equal to True, and a list cannot be looked up
            self._levels += values
            codes = np.arange(start, start + len(values))
        self._codes.append(codes)

    def finish(self, notes: Notes) -> Values | Coded:
        """Return the values; see `ValueReader`."""
        return read_coded(self._passing, Coded(np.concatenate(self._codes), self._levels), self._read, notes)
