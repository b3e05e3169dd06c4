"""From the slices of a batch to answers, still in columns: whatever form they came in and go out in."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from app.batches.slices import Fault, Floats, Mask, Places, Slice, list_values
from app.model_host import Served
from models.artifact import SavedModel

NO_ANSWER = Fault(None, "no_finite_answer", "the model has no finite answer for these values")
ID_DIGITS = 32

Said = TypeVar("Said")


@dataclass(frozen=True)
class Grouped(Generic[Said]):
    """What is said of rows, the same of many.

    Parameters
    ----------
    codes : (n_rows,) which of the groups is said of each row
    groups : the first is empty
    """

    codes: Places
    groups: list[tuple[Said, ...]]


@dataclass(frozen=True)
class Answers:
    """The answers for a slice.

    Parameters
    ----------
    start : the index of the first row
    is_good : (n_rows,) whether there is an answer; of other rows only the faults mean something
    values : (n_rows,) numbers, or the places of classes
    shares : (n_rows, n_classes) probabilities; None for a regression
    bounds : (n_rows, 2) the interval around a number; None where none is known
    members : (n_rows,) which classes are in the set of each row; None where none is known
    ids : hexadecimal digits, ID_DIGITS for each row
    warnings, faults : of each row
    kept : the columns of the body that are wanted
    """

    start: int
    is_good: Mask
    values: Floats | Places
    shares: Floats | None
    bounds: Floats | None
    members: Grouped[int] | None
    ids: bytes
    warnings: Grouped[str]
    faults: Grouped[Fault]
    kept: Sequence[object]

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self.is_good)


def answer_slice(served: Served, some: Slice) -> Answers:
    """Return the answers for a slice."""
    values, shares = predict_columns(served, some)
    is_finite: Mask = np.asarray(np.isfinite(values) if shares is None else np.isfinite(shares).all(axis=1))
    is_good = is_finite.copy()
    for mask, _ in some.notes.faults:
        is_finite |= mask  # whether it has an answer does not matter any more
        is_good &= ~mask
    faults = some.notes.faults if is_finite.all() else [*some.notes.faults, (~is_finite, NO_ANSWER)]
    bounds, members = find_uncertainty(served, values, shares)
    return Answers(
        some.start,
        is_good,
        values,
        shares,
        bounds,
        members,
        os.urandom(some.n_rows * ID_DIGITS // 2).hex().encode(),
        group([(mask & is_good, said) for mask, said in some.notes.warnings], some.n_rows),
        group(faults, some.n_rows),
        some.kept,
    )


def predict_columns(served: Served, some: Slice) -> tuple[Floats | Places, Floats | None]:
    """Return (n_rows,) numbers, or the places of classes and (n_rows, n_classes) their probabilities."""
    model = served.model
    if isinstance(model, SavedModel):
        return _predict_rows(served, model, some)
    answers = model.scorer.score_columns(some.columns, some.n_rows)
    if not served.contract.is_classification:
        return answers, None
    return model.scorer.choose_places(answers), answers


def _predict_rows(served: Served, model: SavedModel, some: Slice) -> tuple[Floats | Places, Floats | None]:
    """Ask a model that takes rows."""
    readers = served.reader.features
    columns = {name: list_values(readers[name], values) for name, values in some.columns.items()}
    predictions = model.predict([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    if predictions.probabilities is None:
        return np.array(predictions.values, dtype=np.float64), None
    places = {label: place for place, label in enumerate(model.manifest.classes or [])}
    return np.array([places[label] for label in predictions.values]), predictions.probabilities  # type: ignore[index]


def group(said: Sequence[tuple[Mask, Said]], n_rows: int) -> Grouped[Said]:
    """Return for each row all that is said of it, in the order in which it is given."""
    codes = np.zeros(n_rows, dtype=np.intp)
    if not said:
        return Grouped(codes, [()])
    table = np.stack([mask for mask, _ in said])
    rows = np.flatnonzero(table.any(axis=0))
    if not len(rows):
        return Grouped(codes, [()])
    kinds, inverse = np.unique(table[:, rows], axis=1, return_inverse=True)
    codes[rows] = inverse.ravel() + 1
    groups = [tuple(words for (_, words), is_said in zip(said, kind, strict=True) if is_said) for kind in kinds.T]
    return Grouped(codes, [(), *groups])


def find_uncertainty(
    served: Served, values: Floats | Places, shares: Floats | None
) -> tuple[Floats | None, Grouped[int] | None]:
    """Return (n_rows, 2) the intervals around numbers, or the sets of classes; None for what is not known."""
    uncertainty = served.model.manifest.uncertainty
    if uncertainty is None:
        return None, None
    if uncertainty.kind == "intervals":
        return uncertainty.bounds(values), None
    assert shares is not None
    is_inside = uncertainty.contains(shares)
    return None, group([(mask, place) for place, mask in enumerate(is_inside.T)], len(is_inside))


def count_warnings(served: Served, some: Answers) -> Counter[tuple[str, str]]:
    """Return how often each warning is given: feature, and what it is about."""
    counted: Counter[tuple[str, str]] = Counter()
    counts = np.bincount(some.warnings.codes, minlength=len(some.warnings.groups))
    for words, count in zip(some.warnings.groups, counts.tolist(), strict=True):
        for said in words:
            counted[served.reader.meanings[said]] += count
    return counted


def join_groups(said: Grouped[str]) -> list[str | None]:
    """Return each group as one text; None for the empty one."""
    return ["; ".join(words) or None for words in said.groups]


def describe_faults(faults: Grouped[Fault]) -> list[str | None]:
    """Return each group of faults as one text, as FIELD: MESSAGE; None for the empty one."""
    texts = [[f"{field}: {message}" if field else message for field, _, message in words] for words in faults.groups]
    return ["; ".join(words) or None for words in texts]


def describe_members(members: Grouped[int], labels: Sequence[str]) -> list[str]:
    """Return each set of classes as one text."""
    return ["; ".join(labels[place] for place in places) for places in members.groups]
