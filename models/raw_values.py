"""From raw values to the numbers that a model takes, in numpy alone: what the fitted encoder does, feature by feature.

A feature takes one value, or many at once, and puts the numbers in its columns. What a value means is decided as
data_ingestion/encoder.py decides it, which needs pandas; the tests hold one to the other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DAY = 86_400_000_000  # microseconds
ISO = "iso"
MAX_NUMBER = 1e30  # as in the contract
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d{1,18}(\.0*)?", re.ASCII)
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
ISO_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}")
EPOCH = datetime(1970, 1, 1)
NUMERIC = frozenset({float, int, bool, type(None)})

Floats = NDArray[np.float64]
Values = Sequence[object] | NDArray[np.generic]  # an array of numbers, booleans or dates is read as it is, and faster


@dataclass(frozen=True)
class Coded:
    """Many values of which few are different: each is read once.

    Parameters
    ----------
    codes : (n_rows,) the place of each row's value among `levels`
    levels : raw values
    """

    codes: NDArray[np.integer]
    levels: Sequence[object]


class Feature(Protocol):
    """What one raw column becomes."""

    @property
    def name(self) -> str:
        """The raw column."""

    @property
    def flag(self) -> int | None:
        """Where it goes that the value was missing."""

    @property
    def columns(self) -> Sequence[int]:
        """The encoded columns that it fills."""

    def put(self, value: object, encoded: list[float]) -> None:
        """Put one value's numbers in their places; `encoded` holds what stands for missing values already."""

    def put_all(self, values: Values, encoded: Floats) -> None:
        """Put the numbers of (n_rows,) values in their rows of (n_columns, n_rows)."""


def put_coded(feature: Feature, values: Coded, encoded: Floats) -> None:
    """Put many values of which few are different; see `Feature.put_all`."""
    levels = np.empty((len(encoded), len(values.levels)))
    feature.put_all(values.levels, levels)
    for column in feature.columns:
        encoded[column] = levels[column].take(values.codes)


def is_missing(value: object, missing: frozenset[str]) -> bool:
    """Return whether a value is None, NaN, or a text that means missing, once trimmed."""
    if isinstance(value, str):
        return value.strip() in missing
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def describe_fault(name: str, expected: str, value: object) -> ValueError:
    """Return the error for a value that is not of its column's kind."""
    return ValueError(f'column "{name}": expects {expected}, got {value!r}')


@dataclass(frozen=True)
class NumberFeature:
    """A number, an integer or a boolean: one column, and where train rows lacked values a flag.

    Parameters
    ----------
    name, kind : of the raw column
    missing : texts that mean missing
    decimal, thousands, currency : how numbers are written as text, None where plainly
    true_values, false_values : the words of a boolean
    known : of the contract's categories, which only decide how a whole float is spelled; None is an error for those
    column, flag : where the number goes, and whether it was missing
    fill : what stands for a missing number
    """

    name: str
    kind: str
    missing: tuple[str, ...]
    decimal: str | None
    thousands: str | None
    currency: str | None
    true_values: tuple[str, ...]
    false_values: tuple[str, ...]
    known: tuple[str, ...] | None
    column: int
    flag: int | None
    fill: float
    _missing: frozenset[str] = field(init=False, repr=False, compare=False)
    _words: dict[str, float] = field(init=False, repr=False, compare=False)  # as they are mostly spelled, to be fast
    _plain: frozenset[type] = field(init=False, repr=False, compare=False)  # types of values that need no reading

    def __post_init__(self) -> None:
        plain: dict[str, tuple[type, ...]] = {"number": (float, int), "integer": (int,)}
        object.__setattr__(self, "_plain", frozenset(plain.get(self.kind, ())))
        words = dict.fromkeys(self.false_values, 0.0) | dict.fromkeys(self.true_values, 1.0)
        words = words if self.kind == "boolean" else {}
        object.__setattr__(self, "_missing", frozenset(self.missing))
        object.__setattr__(self, "_words", {w: n for w, n in words.items() if w == w.strip() and w not in self.missing})

    @property
    def columns(self) -> Sequence[int]:
        """Where its number goes, and its flag."""
        return (self.column,) if self.flag is None else (self.column, self.flag)

    def put(self, value: object, encoded: list[float]) -> None:
        """Put one value; see `Feature`."""
        if value.__class__ in self._plain and -MAX_NUMBER <= value <= MAX_NUMBER:  # type: ignore[operator]
            encoded[self.column] = float(value)  # type: ignore[arg-type]
        elif value.__class__ is str and value in self._words:
            encoded[self.column] = self._words[value]
        elif not is_missing(value, self._missing):
            encoded[self.column] = self.read(value)
        elif self.flag is not None:
            encoded[self.flag] = 1.0

    def put_all(self, values: Values, encoded: Floats) -> None:
        """Put many values; see `Feature`."""
        numbers = self._read_all(values)
        gaps = np.isnan(numbers)
        encoded[self.column] = np.where(gaps, self.fill, numbers)
        if self.flag is not None:
            encoded[self.flag] = gaps

    def _read_all(self, values: Values) -> Floats:
        if isinstance(values, np.ndarray):
            is_typed = values.dtype.kind in ("b" if self.kind == "boolean" else "biuf")
            values = values if is_typed else values.tolist()
        else:
            is_typed = self.kind != "boolean" and NUMERIC.issuperset(map(type, values))
        if is_typed:
            try:
                numbers = np.array(values, dtype=np.float64)
            except OverflowError as err:
                raise describe_fault(self.name, self._expects(), "an integer of more than 308 digits") from err
            faults = np.abs(numbers) > MAX_NUMBER
            if self.kind == "integer":
                faults |= np.isfinite(numbers) & (numbers != np.floor(numbers))
            if faults.any():
                raise describe_fault(self.name, self._expects(), values[int(faults.argmax())])
            return numbers
        return np.array([self._read_one(value) for value in values], dtype=np.float64)

    def _read_one(self, value: object) -> float:
        if value.__class__ is str and value in self._words:
            return self._words[value]
        return np.nan if is_missing(value, self._missing) else self.read(value)

    def read(self, value: object) -> float:
        """Return the number that a value is.

        Raises
        ------
        ValueError : it is none
        """
        try:
            return self._read_word(value) if self.kind == "boolean" else self._read_number(value)
        except (ValueError, TypeError, OverflowError) as err:
            raise describe_fault(self.name, self._expects(), value) from err

    def _expects(self) -> str:
        return {"integer": "an integer", "boolean": "a boolean"}.get(self.kind, "a number")

    def _read_number(self, value: object) -> float:
        is_integer = self.kind == "integer"
        if isinstance(value, str):
            value = value.strip() if is_integer else self._normalize(value.strip())
            if not (INTEGER if is_integer else NUMBER).fullmatch(value):
                raise ValueError("not written as one")
        number = float(value)  # type: ignore[arg-type]
        if not abs(number) <= MAX_NUMBER or (is_integer and not number.is_integer()):
            raise ValueError("too large, or not whole")
        return number

    def _normalize(self, text: str) -> str:
        decimal, thousands, currency = self.decimal, self.thousands, self.currency
        if decimal in (None, ".") and not thousands and not currency:
            return text
        if currency:
            sign = re.escape(currency)
            text = re.sub(rf"^([+-]?)\s*{sign}\s*|\s*{sign}$", r"\1", text)
        thousands = thousands or ("." if decimal == "," else "")
        grouped = rf"\d{{1,3}}({re.escape(thousands)}\d{{3}})+|" if thousands else ""
        if not re.fullmatch(rf"[+-]?({grouped}\d+)({re.escape(decimal or '.')}\d+)?", text, re.ASCII):
            raise ValueError("not written as one")
        return (text.replace(thousands, "") if thousands else text).replace(decimal or ".", ".")

    def _read_word(self, value: object) -> float:
        if isinstance(value, bool | np.bool_):
            return float(value)
        word = format_category(value, self.known).strip().lower()
        for answer, words in ((1.0, self.true_values), (0.0, self.false_values)):
            if word in [text.lower() for text in words]:
                return answer
        raise ValueError("no declared word")


@dataclass(frozen=True)
class CategoryFeature:
    """A category: one column of codes, or of target means one column or one for each class.

    Parameters
    ----------
    name : of the raw column
    missing : texts that mean missing
    known : the contract's categories, which decide how a whole float is spelled; None is an error for those
    texts : (n_levels,) what the train rows hold
    numbers : (n_levels + 2, n_columns) for each text, then for any other, then for a missing one
    column : the first of its columns
    """

    name: str
    missing: tuple[str, ...]
    known: tuple[str, ...] | None
    texts: tuple[str, ...]
    numbers: Floats
    column: int
    _missing: frozenset[str] = field(init=False, repr=False, compare=False)
    _codes: dict[str, int] = field(init=False, repr=False, compare=False)
    _places: dict[object, int] = field(init=False, repr=False, compare=False)  # of what is mostly sent, to be fast
    _lists: list[list[float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        codes = {text: place for place, text in enumerate(self.texts)}
        trimmed = [text for text in self.missing if text == text.strip()]
        object.__setattr__(self, "_missing", frozenset(self.missing))
        object.__setattr__(self, "_codes", codes)
        object.__setattr__(self, "_places", codes | dict.fromkeys([*trimmed, None], len(self.texts) + 1))
        object.__setattr__(self, "_lists", self.numbers.tolist())

    @property
    def flag(self) -> None:
        """Nothing: a missing category has a number of its own."""

    @property
    def columns(self) -> Sequence[int]:
        """Where its numbers go."""
        return range(self.column, self.column + self.numbers.shape[1])

    def put(self, value: object, encoded: list[float]) -> None:
        """Put one value; see `Feature`."""
        numbers = self._lists[self._find(value)]
        encoded[self.column] = numbers[0]
        if len(numbers) > 1:
            encoded[self.column : self.column + len(numbers)] = numbers

    def put_all(self, values: Values, encoded: Floats) -> None:
        """Put many values; see `Feature`."""
        values = values.tolist() if isinstance(values, np.ndarray) else values
        try:
            found = list(map(self._places.get, values))
        except TypeError:  # one cannot even be looked up
            found = [None] * len(values)
        if None in found:
            found = [self._find(v) if place is None else place for v, place in zip(values, found, strict=True)]
        places = np.array(found, dtype=np.intp)
        encoded[self.column : self.column + self.numbers.shape[1]] = self.numbers.T[:, places]

    def _find(self, value: object) -> int:
        if value.__class__ is str or value is None:
            place = self._places.get(value)
            if place is not None:
                return place
        if is_missing(value, self._missing):
            return len(self.texts) + 1
        try:
            text = value.strip() if isinstance(value, str) else format_category(value, self.known)
        except (ValueError, TypeError, OverflowError) as err:
            raise describe_fault(self.name, "a category", value) from err
        return self._codes.get(text, len(self.texts))


@dataclass(frozen=True)
class DateFeature:
    """A date: parts of it (some with sine and cosine), the days since 1970, and where train rows lacked it a flag.

    Parameters
    ----------
    name : of the raw column
    missing : texts that mean missing
    format : how dates are written
    parts : which of year, month, day, weekday, hour, minute
    waves : (2, n_values) sine and cosine by part, of parts that have them
    column : the first of its columns
    flag : where it goes that the date was missing
    fill : microseconds since 1970, what stands for a missing date
    """

    name: str
    missing: tuple[str, ...]
    format: str
    parts: tuple[str, ...]
    waves: Mapping[str, Floats]
    column: int
    flag: int | None
    fill: int
    _missing: frozenset[str] = field(init=False, repr=False, compare=False)
    _lists: dict[str, list[list[float]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_missing", frozenset(self.missing))
        object.__setattr__(self, "_lists", {part: wave.T.tolist() for part, wave in self.waves.items()})

    @property
    def columns(self) -> Sequence[int]:
        """Where its parts go, the days since 1970, and its flag."""
        n_columns = len(self.parts) + 2 * len(self.waves) + 1
        own = range(self.column, self.column + n_columns)
        return own if self.flag is None else [*own, self.flag]

    def put(self, value: object, encoded: list[float]) -> None:
        """Put one value; see `Feature`."""
        place = self.column
        if is_missing(value, self._missing):
            if self.flag is not None:
                encoded[self.flag] = 1.0
            return
        moment = self.read(value)
        for part in self.parts:
            number = moment.weekday() if part == "weekday" else getattr(moment, part)
            encoded[place] = float(number)
            place += 1
            if part in self._lists:
                encoded[place : place + 2] = self._lists[part][number]
                place += 2
        encoded[place] = float(count_microseconds(moment)) / float(DAY)

    def put_all(self, values: Values, encoded: Floats) -> None:
        """Put many values; see `Feature`."""
        if isinstance(values, np.ndarray) and values.dtype.kind == "M":
            gaps = np.isnat(values)
            moments = np.where(gaps, self.fill, values.astype("datetime64[us]").astype(np.int64))
        else:
            values = values.tolist() if isinstance(values, np.ndarray) else values
            gaps = np.array([is_missing(value, self._missing) for value in values], dtype=bool)
            moments = np.array(
                [
                    self.fill if gap else count_microseconds(self.read(value))
                    for value, gap in zip(values, gaps.tolist(), strict=True)
                ],
                dtype=np.int64,
            )
        numbers = split_dates(moments)
        place = self.column
        for part in self.parts:
            encoded[place] = numbers[part]
            place += 1
            if part in self.waves:
                encoded[place : place + 2] = self.waves[part][:, numbers[part]]
                place += 2
        encoded[place] = moments / DAY
        if self.flag is not None:
            encoded[self.flag] = gaps

    def read(self, value: object) -> datetime:
        """Return the moment that a value is, in UTC without saying so.

        Raises
        ------
        ValueError : it is none
        """
        try:
            return self._read(value)
        except (ValueError, TypeError, OverflowError) as err:
            raise describe_fault(self.name, "a date", value) from err

    def _read(self, value: object) -> datetime:
        text = str(value).strip()
        if isinstance(value, datetime):
            moment = value
        elif ISO_MOMENT.match(text) or (self.format == ISO and ISO_DATE.match(text)):
            moment = datetime.fromisoformat(text)
        elif self.format == ISO:
            raise ValueError("does not begin like 2024-02-29")
        else:
            moment = datetime.strptime(text, self.format)
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def format_category(value: object, known: Sequence[str] | None) -> str:
    """Return a category as its text; a whole float is spelled as the known categories are."""
    if not isinstance(value, float | np.floating) or not float(value).is_integer():
        return str(value)
    spellings = (str(int(value)), str(float(value)))
    return next((text for text in spellings if text in known), spellings[0])  # type: ignore[operator]


def count_microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970."""
    since = moment - EPOCH
    return since.days * DAY + since.seconds * 1_000_000 + since.microseconds


def split_dates(moments: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return the parts of moments given in microseconds since 1970; a Monday is weekday 0."""
    days = moments // DAY
    seconds = (moments - days * DAY) // 1_000_000
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    return {
        "year": dates.astype("datetime64[Y]").astype(np.int64) + 1970,
        "month": months.astype(np.int64) % 12 + 1,
        "day": (dates - months.astype("datetime64[D]")).astype(np.int64) + 1,
        "weekday": (days + 3) % 7,
        "hour": seconds // 3600,
        "minute": seconds // 60 % 60,
    }
