"""From encoded columns to answers: lines, boosted trees, and what is made of several of them. Needs numpy alone.

Each formula answers (n_rows,) numbers for a regression, and (n_rows, n_classes) probabilities for a classification,
with the operations that scikit-learn and the project's own estimators use, in the same order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LIMIT = 1e30  # as in models/pairs.py
SMALLEST = 1e-15  # as in models/ensemble.py
LINE_CELLS = 1_000_000  # of a line's table at a time

Link = Literal["identity", "logit", "softmax"]
Floats = NDArray[np.float64]
_NO_PLACES, _NO_VALUES = np.empty(0, dtype=np.intp), np.empty(0)


# Pairs of columns


@dataclass(frozen=True)
class Pairs:
    """New columns from pairs of columns, all by one sign; see `pairs.PairFeatures`.

    Parameters
    ----------
    sign : what is made of a pair
    a, b : (n_pairs,) the columns
    scale_a, scale_b : (n_pairs,) their standard deviations
    """

    sign: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    scale_a: tuple[float, ...]
    scale_b: tuple[float, ...]

    def combine(self, X: Floats) -> Floats:
        """Return (n_pairs, n_rows) for encoded columns, (n_columns, n_rows)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._combine(X[list(self.a)], X[list(self.b)])

    def _combine(self, a: Floats, b: Floats) -> Floats:
        if self.sign == "-":
            return a - b
        if self.sign == "?":
            a = a / np.array(self.scale_a)[:, np.newaxis]
            return np.where(b == 1, a, np.where(b == 0, -a, 0.0))
        if self.sign == "/":
            ratios: Floats = np.clip(np.divide(a, b, out=np.zeros_like(a), where=b != 0), -LIMIT, LIMIT)
            return ratios
        a, b = a / np.array(self.scale_a)[:, np.newaxis], b / np.array(self.scale_b)[:, np.newaxis]
        return a - b if self.sign == "~" else a + b if self.sign == "+" else a * b

    def combine_one(self, values: list[float]) -> list[float]:
        """Return the new values of one row."""
        places = zip(self.a, self.b, strict=True)
        if self.sign == "-":
            return [values[a] - values[b] for a, b in places]
        if self.sign == "/":
            return [min(max(values[a] / values[b], -LIMIT), LIMIT) if values[b] != 0 else 0.0 for a, b in places]
        scaled = zip(self.a, self.b, self.scale_a, self.scale_b, strict=True)
        if self.sign == "?":
            return [_switch(values[a] / scale_a, values[b]) for a, b, scale_a, _ in scaled]
        if self.sign == "~":
            return [values[a] / scale_a - values[b] / scale_b for a, b, scale_a, scale_b in scaled]
        if self.sign == "+":
            return [values[a] / scale_a + values[b] / scale_b for a, b, scale_a, scale_b in scaled]
        return [(values[a] / scale_a) * (values[b] / scale_b) for a, b, scale_a, scale_b in scaled]


def _switch(value: float, code: float) -> float:
    return value if code == 1 else -value if code == 0 else 0.0


# Formulas


@dataclass(frozen=True)
class Constant:
    """The same for every row: (1,) a number, or (n_classes,) probabilities."""

    answer: Floats
    is_number: bool

    def compute(self, X: Floats, sums: Floats) -> Floats:
        """Return the answers; see the module."""
        n_rows = X.shape[1]
        return np.full(n_rows, self.answer[0]) if self.is_number else np.tile(self.answer, (n_rows, 1))


@dataclass(frozen=True)
class OneHot:
    """A column of the encoded table as one column of 0 and 1 for each of the codes that a line knows."""

    column: int
    codes: Floats

    @property
    def width(self) -> int:
        """How many columns it makes."""
        return len(self.codes)

    def fill(self, X: Floats, table: Floats) -> None:
        """Put its columns in `table`, (n_rows, width)."""
        np.equal(X[self.column][:, np.newaxis], self.codes, out=table)


@dataclass(frozen=True)
class Scaled:
    """Columns of the encoded table with their mean taken off, and divided by their standard deviation."""

    columns: NDArray[np.intp]
    means: Floats
    scales: Floats

    @property
    def width(self) -> int:
        """How many columns it makes."""
        return len(self.columns)

    def fill(self, X: Floats, table: Floats) -> None:
        """Put its columns in `table`, (n_rows, width)."""
        np.subtract(X[self.columns].T, self.means, out=table)
        np.divide(table, self.scales, out=table)


@dataclass(frozen=True)
class Line:
    """A linear model: columns times coefficients.

    Parameters
    ----------
    parts : what makes its table, side by side
    coefs : (n_sums, width)
    intercepts : (n_sums,)
    link : what is made of the sums
    """

    parts: tuple[OneHot | Scaled, ...]
    coefs: Floats
    intercepts: Floats
    link: Link

    def compute(self, X: Floats, sums: Floats) -> Floats:
        """Return the answers; see the module."""
        if X.shape[1] == 1:
            return apply_link(self._single.score(X[:, 0]), self.link, by_columns=False)
        step = max(LINE_CELLS // max(self.coefs.shape[1], 1), 1)
        scores = np.empty((X.shape[1], len(self.coefs)))
        for start in range(0, len(scores), step):
            self._score(X[:, start : start + step], scores[start : start + step])
        return apply_link(scores, self.link, by_columns=False)

    @cached_property
    def _single(self) -> "_SingleRow":
        return _SingleRow(self)

    def _score(self, X: Floats, scores: Floats) -> None:
        table = np.empty((len(scores), self.coefs.shape[1]))
        start = 0
        for part in self.parts:
            part.fill(X, table[:, start : start + part.width])
            start += part.width
        for number, coef in enumerate(self.coefs):
            scores[:, number] = np.add.reduce(table * coef, axis=1)
        scores += self.intercepts


class _SingleRow:
    """A line for one row at a time, in about half of the time: all parts of a kind are filled in together."""

    def __init__(self, line: Line) -> None:
        self._coefs = np.ascontiguousarray(line.coefs)  # or a sum would be added up in another order
        self._intercepts = line.intercepts
        starts = np.cumsum([0, *(part.width for part in line.parts)]).tolist()
        parts = list(zip(line.parts, starts, strict=False))
        scaled = [(part, start) for part, start in parts if isinstance(part, Scaled)]
        self._places = np.concatenate([_NO_PLACES, *(np.arange(start, start + part.width) for part, start in scaled)])
        self._columns = np.concatenate([_NO_PLACES, *(part.columns for part, _ in scaled)])
        self._means = np.concatenate([_NO_VALUES, *(part.means for part, _ in scaled)])
        self._scales = np.concatenate([_NO_VALUES, *(part.scales for part, _ in scaled)])
        self._codes = [
            (part.column, {code: place for place, code in enumerate(part.codes.tolist(), start)})
            for part, start in parts
            if isinstance(part, OneHot)
        ]

    def score(self, values: Floats) -> Floats:
        """Return (1, n_sums), the same bits as `Line._score`, for (n_columns,) of one row."""
        table = np.zeros(self._coefs.shape[1])
        table[self._places] = (values.take(self._columns) - self._means) / self._scales
        for column, places in self._codes:
            place = places.get(values.item(column))
            if place is not None:
                table[place] = 1.0
        scores: Floats = np.add.reduce(table * self._coefs, axis=1) + self._intercepts
        return scores[np.newaxis]


@dataclass(frozen=True)
class Trees:
    """Boosted trees: what the forest has added up, from one of its sums on."""

    first: int
    count: int
    link: Link

    def compute(self, X: Floats, sums: Floats) -> Floats:
        """Return the answers; see the module."""
        return apply_link(sums[:, self.first : self.first + self.count], self.link, by_columns=True)


@dataclass(frozen=True)
class OnLine:
    """Trees on top of a line, or on a logarithm; see `boosting.BoostedRegressor`."""

    line: Line | None
    trees: Trees
    is_log: bool

    def compute(self, X: Floats, sums: Floats) -> Floats:
        """Return the answers; see the module."""
        below: Floats | float = self.line.compute(X, sums) if self.line is not None else 0.0
        answers: Floats = below + self.trees.compute(X, sums)
        return np.expm1(answers) if self.is_log else answers


@dataclass(frozen=True)
class Average:
    """The weighted mean of several, calibrated or not; see `ensemble.WeightedClassifier`.

    Parameters
    ----------
    members, weights : added up in their order
    places : for each member, where its classes stand among all; none where it knows all, or predicts numbers
    n_classes : 0 for numbers
    slope, intercepts : of the calibration; None leaves the mean as it is
    """

    members: "tuple[Formula, ...]"
    weights: tuple[float, ...]
    places: tuple[tuple[int, ...], ...]
    n_classes: int
    slope: float | None
    intercepts: tuple[float, ...]

    def compute(self, X: Floats, sums: Floats) -> Floats:
        """Return the answers; see the module."""
        total: Floats | None = None
        for member, weight, places in zip(self.members, self.weights, self.places, strict=True):
            answers = self._align(member.compute(X, sums), places)
            total = weight * answers if total is None else total + weight * answers
        assert total is not None
        return total if self.slope is None else calibrate(total, self.slope, self.intercepts)

    def _align(self, answers: Floats, places: tuple[int, ...]) -> Floats:
        if not places:
            return answers
        aligned = np.zeros((len(answers), self.n_classes))
        aligned[:, list(places)] = answers
        return aligned


Formula = Constant | Line | Trees | OnLine | Average
FORMULAS: tuple[type, ...] = (Pairs, Constant, OneHot, Scaled, Line, Trees, OnLine, Average)


# What is made of sums


def apply_link(raw: Floats, link: Link, by_columns: bool) -> Floats:
    """Return what (n_rows, n_sums) stand for.

    Parameters
    ----------
    raw : sums
    link : identity (numbers), logit (the log-odds of the second of two classes), softmax (one sum for each class)
    by_columns : how softmax adds up, see `compute_softmax`
    """
    if link == "identity":
        return raw[:, 0]
    if link == "softmax":
        return compute_softmax(raw, by_columns)
    shares = np.empty((len(raw), 2))
    shares[:, 1] = compute_expit(raw[:, 0])
    np.subtract(1, shares[:, 1], out=shares[:, 0])
    return shares


def compute_expit(raw: Floats) -> Floats:
    """Return 1 / (1 + exp(-raw)) with the exp of the C library, as scipy.special.expit does; numpy's own may differ."""
    try:
        return 1 / (1 + np.array([math.exp(-value) for value in raw.tolist()]))
    except OverflowError:
        return 1 / (1 + np.array([math.exp(-value) if value > -709 else _exp(-value) for value in raw.tolist()]))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def compute_softmax(raw: Floats, by_columns: bool) -> Floats:
    """Return exp(raw) of (n_rows, n_classes), divided so that rows add up to 1.

    Parameters
    ----------
    raw : sums
    by_columns : add up one column after the other, as numpy does where columns lie together; else as it does where
        rows do. For eight classes and more it is not the same.
    """
    odds: Floats = np.exp(np.ascontiguousarray(raw - raw.max(axis=1, keepdims=True)))
    total = add_columns(odds) if by_columns else odds.sum(axis=1)
    odds /= total[:, np.newaxis]
    return odds


def calibrate(probabilities: Floats, slope: float, intercepts: Sequence[float]) -> Floats:
    """Return softmax(slope * log(p) + intercept); see `ensemble.calibrate_probabilities`."""
    logits = slope * np.log(np.maximum(probabilities, SMALLEST)) + np.asarray(intercepts, dtype=np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = odds / add_columns(odds)[:, np.newaxis]
    return result


def add_columns(values: Floats) -> Floats:
    """Return (n_rows,) the sums of (n_rows, n_columns), one column after the other."""
    total = values[:, 0].copy()
    for place in range(1, values.shape[1]):
        total += values[:, place]
    return total
