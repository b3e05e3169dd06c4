"""From a JSON object to a row the model takes, checked as the contract says, with what the model has not seen.

A pydantic model made from the contract took 13 µs a row, and warnings 5 more; one loop over prepared limits takes 1 µs.
Only what it does not pass at once is read value by value, where every rule and its words are.
"""

from math import inf
from typing import NamedTuple

from app.errors import ErrorList
from app.rows.values import RefusedValueError, list_known, read_value
from data_ingestion.schema import EXACT_INTEGERS, Column, Contract, read_bounds
from models.artifact import Row, Value

MISSING, UNSEEN, OUTSIDE = "missing", "unseen", "out_of_range"  # what a warning is about


class FeatureReader:
    """Reads the values of one feature, and says what the contract did not expect of them.

    Parameters
    ----------
    name : of the feature
    column : its part of the contract
    missing : texts that mean missing
    """

    def __init__(self, name: str, column: Column, missing: frozenset[str]) -> None:
        self.column = column
        self.missing = missing
        self.known = frozenset(column.categories or ()) if is_listed(column) else None
        self.low, self.high = read_bounds(column)
        is_category = self.known is not None
        self.kind_of_surprise = UNSEEN if is_category else OUTSIDE
        self.missing_text = f"{name}: missing, imputed"
        said = "unseen category" if is_category else f"outside the range {column.min} to {column.max}"
        self.surprise_text = f"{name}: {said}"

    def read(self, value: object) -> tuple[Value, str | None]:
        """Return a JSON value as the column's kind, None for missing, and a warning or None.

        Raises
        ------
        RefusedValueError : it is none
        """
        result = read_value(self.column, self.missing, value)
        if result is None:
            return None, self.missing_text
        if not self.is_surprising(result):
            return result, None
        if self.known is not None and self.column.unseen == "refuse":
            raise RefusedValueError("unseen_category", f"expects {list_known(self.column)}")
        if self.known is None and self.column.out_of_range == "refuse":
            raise RefusedValueError("out_of_range", f"expects {self.column.min} to {self.column.max}")
        return result, self.surprise_text

    def is_surprising(self, value: Value) -> bool:
        """Return whether the model has seen nothing like a value of the right kind."""
        if self.known is not None:
            return value not in self.known
        is_low = self.low is not None and value < self.low  # type: ignore[operator]
        return is_low or (self.high is not None and value > self.high)  # type: ignore[operator]


class Passing(NamedTuple):
    """What of a feature passes at once.

    Parameters
    ----------
    name : of the feature
    kind, other : the types that pass; nothing else does
    low, high : the range that passes, of numbers
    known : the values that pass, of others; None for numbers
    feature : reads what does not pass
    """

    name: str
    kind: type
    other: type
    low: float
    high: float
    known: frozenset[object] | None
    feature: FeatureReader


class RowReader:
    """Reads rows as a contract says."""

    def __init__(self, contract: Contract) -> None:
        self.columns = frozenset(contract.columns)
        self.features = {
            name: FeatureReader(name, column, frozenset(contract.missing_spellings(name)))
            for name, column in contract.features.items()
        }
        self.plan = [describe_passing(name, feature) for name, feature in self.features.items()]
        self.meanings: dict[str, tuple[str, str]] = {}  # of warnings: feature, and MISSING, UNSEEN or OUTSIDE
        for name, feature in self.features.items():
            self.meanings[feature.missing_text] = (name, MISSING)
            self.meanings[feature.surprise_text] = (name, feature.kind_of_surprise)

    def read(self, value: object, errors: ErrorList, index: int | None = None) -> tuple[Row, list[str]] | None:
        """Return the features of a JSON object, and warnings; None when it is at fault, which is added to `errors`.

        Parameters
        ----------
        value : a JSON value
        errors : grows
        index : the row's place in a batch
        """
        if not isinstance(value, dict):
            errors.add("object_type", "expects an object", index=index)
            return None
        row: dict[str, Value] = {}
        warnings: list[str] = []
        is_good = self.columns.issuperset(value)
        if not is_good:
            for name in value:
                if name not in self.columns:
                    errors.add("unknown_field", "is not in the contract; see /schema", name, index)
        get = value.get
        for name, kind, other, low, high, known, feature in self.plan:
            item = get(name)
            given = item.__class__
            if (given is kind or given is other) and (low <= item <= high if known is None else item in known):  # type: ignore[operator]
                row[name] = item
                continue
            try:
                row[name], warning = feature.read(item)
            except RefusedValueError as fault:
                errors.add(fault.rule, fault.message, name, index)
                is_good = False
            else:
                if warning is not None:
                    warnings.append(warning)
        return (row, warnings) if is_good else None


def is_listed(column: Column) -> bool:
    """Return whether the contract lists the values of a column."""
    return column.kind == "category" and column.categories is not None


def describe_passing(name: str, feature: FeatureReader) -> Passing:
    """Return what of a feature passes at once: what `FeatureReader.read` returns unchanged, without a warning."""
    kind = feature.column.kind
    if kind in ("number", "integer"):
        low = max(-EXACT_INTEGERS, -inf if feature.low is None else feature.low)
        high = min(EXACT_INTEGERS, inf if feature.high is None else feature.high)
        return Passing(name, float if kind == "number" else int, int, low, high, None, feature)  # type: ignore[arg-type]
    if kind == "boolean":
        return Passing(name, bool, bool, 0, 0, frozenset({True, False}), feature)
    plain = {text for text in feature.known or () if text == text.strip() and text not in feature.missing}
    return Passing(name, str, str, 0, 0, frozenset(plain), feature)
