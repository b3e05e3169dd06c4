"""Some rows of a batch, column by column: read as the contract says, each different value once, or whole as numbers.

What a value means is decided by `FeatureReader`, for one value as for many. Only numbers and moments that it would let
pass without a word are passed here, all at once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.rows.reader import FeatureReader, Passing
from app.rows.values import RefusedValueError
from models.artifact import Value
from models.scorer import Coded, Values

SLICE_ROWS = 8_192  # enough for numpy; other requests get their turn in between

Floats = NDArray[np.float64]
Moments = NDArray[np.datetime64]
Mask = NDArray[np.bool_]
Places = NDArray[np.intp]
Levels = tuple[Places, list[object]]  # (n_rows,) codes, and the values that they stand for
Read = Callable[[object], tuple[Value, str | None]]  # as FeatureReader.read


class Fault(NamedTuple):
    """Why a row is refused; see `schemas.FieldError`."""

    field: str | None
    rule: str
    message: str


@dataclass
class Notes:
    """What there is to say of some rows: which rows, and what."""

    warnings: list[tuple[Mask, str]] = field(default_factory=list)
    faults: list[tuple[Mask, Fault]] = field(default_factory=list)

    def add(self, mask: Mask, said: str | Fault) -> None:
        """Add a warning or a fault."""
        if isinstance(said, Fault):
            self.faults.append((mask, said))
        else:
            self.warnings.append((mask, said))


@dataclass(frozen=True)
class Slice:
    """Some rows, read.

    Parameters
    ----------
    start : the index of the first
    n_rows : how many there are
    columns : the features, as `Scorer.score_columns` takes them; what is at fault is missing in them
    notes : what there is to say of them
    kept : the columns of the body, when they are wanted in the answer, each as its reader makes them
    """

    start: int
    n_rows: int
    columns: dict[str, Values | Coded]
    notes: Notes
    kept: Sequence[object] = ()


def read_numbers(
    passing: Passing, numbers: Floats, get_levels: Callable[[Places], Levels], read: Read, notes: Notes
) -> Floats:
    """Return the numbers of a feature, NaN where missing or at fault.

    Parameters
    ----------
    passing : of the feature
    numbers : (n_rows,) NaN where a value is none
    get_levels : returns what stands in some rows, for `read`
    read : reads what does not pass at once
    notes : grow
    """
    is_odd = ~((numbers >= passing.low) & (numbers <= passing.high))
    if passing.kind is int:
        is_odd |= numbers != np.floor(numbers)
    if not is_odd.any():
        return numbers
    rows = np.flatnonzero(is_odd)
    codes, levels = get_levels(rows)
    values = read_levels(passing.name, levels, read, notes, len(numbers), rows, codes)
    numbers = numbers.copy()
    numbers[rows] = np.array(values, dtype=np.float64)[codes]
    return numbers


def read_moments(passing: Passing, moments: Moments, notes: Notes) -> Moments:
    """Return the moments of a feature, NaT where missing or at fault.

    Parameters
    ----------
    passing : of the feature
    moments : (n_rows,) datetime64[us], UTC
    notes : grow
    """
    feature = passing.feature
    is_odd = np.isnat(moments)
    for bound, is_beyond in ((feature.low, np.less), (feature.high, np.greater)):
        if bound is not None:
            is_odd |= is_beyond(moments, np.array(bound, dtype=moments.dtype))
    if not is_odd.any():
        return moments
    rows = np.flatnonzero(is_odd)
    codes, levels = encode(moments[rows].tolist())
    texts = [None if level is None else level.isoformat() for level in levels]  # type: ignore[attr-defined]
    values = read_levels(passing.name, texts, feature.read, notes, len(moments), rows, codes)
    moments = moments.copy()
    moments[rows] = np.array(values, dtype="datetime64[us]")[codes]
    return moments


def read_coded(passing: Passing, given: Coded, read: Read, notes: Notes) -> Coded:
    """Return the values of a feature of which few are different; missing or at fault is None."""
    codes, levels = given.codes, given.levels
    if len(levels) > len(codes):  # a dictionary of more rows than these
        used, codes = np.unique(codes, return_inverse=True)
        levels = [levels[place] for place in used.tolist()]
    values = read_levels(passing.name, levels, read, notes, len(codes), slice(None), codes)
    return Coded(codes, values)


def read_levels(
    name: str,
    levels: Sequence[object],
    read: Read,
    notes: Notes,
    n_rows: int,
    rows: Places | slice,
    codes: NDArray[np.integer],
) -> list[Value]:
    """Return what different raw values of a feature are, None for missing or at fault.

    Parameters
    ----------
    name, levels, read : of the feature
    notes : grow
    n_rows : of the slice
    rows, codes : where the values stand, and which of the levels each is
    """
    values: list[Value] = []
    said: dict[str | Fault, list[int]] = {}
    for place, level in enumerate(levels):
        words: str | Fault | None
        try:
            value, words = read(level)
        except RefusedValueError as fault:
            value, words = None, Fault(name, fault.rule, fault.message)
        values.append(value)
        if words is not None:
            said.setdefault(words, []).append(place)
    for words, places in said.items():
        is_level = np.zeros(len(levels), dtype=bool)
        is_level[places] = True
        mask = np.zeros(n_rows, dtype=bool)
        mask[rows] = is_level[codes]
        if mask.any():
            notes.add(mask, words)
    return values


def encode(values: Sequence[object]) -> Levels:
    """Return (n_rows,) codes of hashable values, and the different values in the order in which they come."""
    levels = list(dict.fromkeys(values))
    places = {level: place for place, level in enumerate(levels)}
    return np.fromiter(map(places.__getitem__, values), dtype=np.intp, count=len(values)), levels


def list_values(feature: FeatureReader, values: Values | Coded) -> list[Value]:
    """Return a column of a slice value by value, as a row holds it."""
    if isinstance(values, Coded):
        levels: Sequence[object] = values.levels
        return [levels[code] for code in values.codes.tolist()]
    if not isinstance(values, np.ndarray):
        return list(values)  # type: ignore[arg-type]
    convert = int if feature.column.kind == "integer" else _keep
    return [None if is_nan(value) else convert(value) for value in values.tolist()]


def _keep(value: Value) -> Value:
    return value


def is_nan(value: object) -> bool:
    """Return whether a value is NaN, or None as NaT becomes it."""
    return value is None or (isinstance(value, float) and math.isnan(value))
