"""The saved model as plain arrays and JSON, `saved_model.npz`: raw rows in, answers out, with numpy alone.

It holds what models/compiling.py made of the fitted pipeline, and answers as the pipeline does. No pickle: opening it
runs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.formulas import FORMULAS, Average, Formula, Line, OnLine, Pairs
from models.packing import PackingError, read_packed
from models.raw_values import MAX_NUMBER, CategoryFeature, Coded, DateFeature, NumberFeature, Values, put_coded
from models.tree_tables import Forest, TreeTables

__all__ = ["Coded", "CompiledModel", "NotCompilableError", "Scorer", "Values", "load_scorer", "needs_table"]

Floats = NDArray[np.float64]

_NO_SUMS = np.empty((1, 0))  # of one row
_NO_COLUMNS = np.empty((0, 1))


class NotCompilableError(Exception):
    """A fitted pipeline holds what a scorer cannot answer; the message says what."""


@dataclass(frozen=True)
class CompiledModel:
    """What is in the file.

    Parameters
    ----------
    features : what raw columns become
    n_encoded : the columns that they become
    pairs : what is added to these columns
    forest : the trees of all members, None without any
    formula : what is made of it all
    threshold : for two classes, the probability of the second from which on it is the answer; None takes the likelier
    is_classification : whether answers are probabilities
    """

    features: tuple[NumberFeature | CategoryFeature | DateFeature, ...]
    n_encoded: int
    pairs: tuple[Pairs, ...]
    forest: Forest | None
    formula: Formula
    threshold: float | None
    is_classification: bool


KINDS = {
    kind.__name__: kind for kind in (CompiledModel, NumberFeature, CategoryFeature, DateFeature, Forest, *FORMULAS)
}


class Scorer:
    """A compiled model, ready to answer. A row gets the same bits alone and among others."""

    def __init__(self, compiled: CompiledModel) -> None:
        self.compiled = compiled
        self._tables = None if compiled.forest is None else TreeTables(compiled.forest)
        self._missing: list[float] = self._encode({}, 1)[:, 0].tolist()  # a row without any value, but for the flags
        for feature in compiled.features:
            if feature.flag is not None:
                self._missing[feature.flag] = 0.0
        self._plan = [
            (feature.name, feature.column if is_number(feature) else None, feature.put) for feature in compiled.features
        ]
        self._needs_table = needs_table(compiled.formula)

    @property
    def size_bytes(self) -> int:
        """The memory that the tables of its trees take."""
        return 0 if self._tables is None else self._tables.size_bytes

    def score_rows(self, rows: Sequence[Mapping[str, object]]) -> Floats:
        """Return the answers for raw rows.

        Parameters
        ----------
        rows : raw features by column name; one that is not there, None and NaN are missing

        Returns
        -------
        (n_rows,) numbers for a regression, else (n_rows, n_classes) probabilities

        Raises
        ------
        ValueError : a value is not of its column's kind
        """
        return self.score_row(rows[0]) if len(rows) == 1 else self._score(self._encode_rows(rows))

    def score_row(self, row: Mapping[str, object]) -> Floats:
        """Return the answer for one row, as `score_rows` does."""
        values = self.encode_row(row)
        for pairs in self.compiled.pairs:
            values += pairs.combine_one(values)
        sums = _NO_SUMS if self._tables is None else self._tables.add_up_one(values)
        X = np.array(values)[:, np.newaxis] if self._needs_table else _NO_COLUMNS
        return self.compiled.formula.compute(X, sums)

    def score_columns(self, columns: Mapping[str, Values | Coded], n_rows: int) -> Floats:
        """Return the answers for raw columns, as `score_rows` does for rows.

        Parameters
        ----------
        columns : (n_rows,) values by name; one that is not there is missing. Arrays of numbers, booleans or
            datetime64 (in UTC, NaT for missing) are read as they are, and of `Coded` ones each level once
        n_rows : how many rows there are
        """
        return self._score(self._encode(columns, n_rows))

    def score_encoded(self, X: Floats) -> Floats:
        """Return the answers for rows that are encoded already, (n_rows, n_encoded) as in processed.parquet."""
        return self._score(np.ascontiguousarray(X.T))

    def encode_row(self, row: Mapping[str, object]) -> list[float]:
        """Return the encoded columns of one raw row."""
        values, get = self._missing.copy(), row.get
        for name, column, put in self._plan:
            value = get(name)
            if column is not None and value.__class__ is float and -MAX_NUMBER <= value <= MAX_NUMBER:
                values[column] = value
            else:
                put(value, values)
        return values

    def encode_rows(self, rows: Sequence[Mapping[str, object]]) -> Floats:
        """Return the encoded columns of raw rows, (n_rows, n_encoded)."""
        return self._encode_rows(rows).T

    def choose_places(self, probabilities: Floats) -> NDArray[np.intp]:
        """Return for each row of (n_rows, n_classes) the place of its answer among the classes."""
        if self.compiled.threshold is None:
            return np.asarray(probabilities.argmax(axis=1), dtype=np.intp)
        return (probabilities[:, 1] >= self.compiled.threshold).astype(np.intp)

    def _encode(self, columns: Mapping[str, Values | Coded], n_rows: int) -> Floats:
        X = np.empty((self.compiled.n_encoded, n_rows))
        missing = Coded(np.zeros(n_rows, dtype=np.intp), [None])
        for feature in self.compiled.features:
            values = columns.get(feature.name, missing)
            if isinstance(values, Coded):
                put_coded(feature, values, X)
            else:
                feature.put_all(values, X)
        return X

    def _encode_rows(self, rows: Sequence[Mapping[str, object]]) -> Floats:
        columns = {f.name: [row.get(f.name) for row in rows] for f in self.compiled.features}
        return self._encode(columns, len(rows))

    def _score(self, X: Floats) -> Floats:
        for pairs in self.compiled.pairs:
            X = np.concatenate([X, pairs.combine(X)])
        sums = np.empty((X.shape[1], 0)) if self._tables is None else self._tables.add_up(X)
        return self.compiled.formula.compute(X, sums)


def load_scorer(content: bytes) -> Scorer:
    """Return the scorer in the bytes of a saved_model.npz.

    Raises
    ------
    PackingError : it is none
    """
    compiled = read_packed(content, KINDS)
    if not isinstance(compiled, CompiledModel):
        raise PackingError("it holds no model")
    return Scorer(compiled)


def is_number(feature: NumberFeature | CategoryFeature | DateFeature) -> bool:
    """Return whether a float is what a feature takes, and goes into its column as it is."""
    return isinstance(feature, NumberFeature) and feature.kind == "number"


def needs_table(formula: Formula) -> bool:
    """Return whether a formula asks for the encoded columns, not for the sums of trees alone."""
    if isinstance(formula, Average):
        return any(needs_table(member) for member in formula.members)
    return isinstance(formula, Line) or (isinstance(formula, OnLine) and formula.line is not None)
