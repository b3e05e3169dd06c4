"""From HistGradientBoosting's trees to a `Forest`.

What is read here is not all public in scikit-learn. A pickle needs the very version it was made with, this is read in
the same process, and what does not look as it does there is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn._loss.link import IdentityLink
from sklearn.base import BaseEstimator

from models.formulas import Link, Trees
from models.scorer import NotCompilableError
from models.tree_tables import MAX_LEAVES, Forest

N_OWN = 256  # numbers that HistGradientBoosting may have for the codes of a column

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Column:
    """A column as a boosting estimator sees it.

    Parameters
    ----------
    place : where it is among all columns
    codes : those it knows, ascending, for which it has numbers of its own from 0; None for a column of numbers
    is_known : (256,) whether one of its own numbers was there when it cut the column into bins
    """

    place: int
    codes: Floats | None
    is_known: Bools


@dataclass(frozen=True)
class _Splits:
    """The splits of one tree, (n_splits,) each, and what its coded splits do with codes.

    Parameters
    ----------
    places, thresholds, missing_right : which column is asked, up to where it goes left, whether NaN goes right
    first, count : the leaves to the left
    coded : (split, codes, whether each goes right and last whether an unknown one does) for each split by codes
    """

    places: NDArray[np.intp]
    thresholds: Floats
    missing_right: Bools
    first: NDArray[np.uint8]
    count: NDArray[np.uint8]
    coded: list[tuple[int, Floats, Bools]]


class ForestBuilder:
    """Collects the trees of one estimator after the other."""

    def __init__(self) -> None:
        self._baselines: list[float] = []
        self._sizes: list[int] = []
        self._leaves: list[Floats] = []
        self._splits: list[_Splits] = []

    def add(self, boosting: BaseEstimator, places: Sequence[int]) -> Trees:
        """Take the trees of a fitted HistGradientBoosting estimator, and return what becomes of their sums.

        Parameters
        ----------
        boosting : fitted
        places : where its columns are among all

        Raises
        ------
        NotCompilableError : a tree has too many leaves, or the loss has another scale
        """
        count = int(boosting.n_trees_per_iteration_)
        trees = Trees(len(self._sizes), count, _find_link(boosting, count))
        columns = _list_columns(boosting, places)
        self._baselines += np.ravel(boosting._baseline_prediction).tolist()
        for number in range(count):
            for predictors in boosting._predictors:
                nodes = predictors[number].nodes
                is_leaf = _check_nodes(nodes)
                self._leaves.append(nodes["value"][is_leaf].astype(np.float64))
                self._splits.append(_read_splits(nodes, is_leaf, predictors[number].raw_left_cat_bitsets, columns))
            self._sizes.append(len(boosting._predictors))
        return trees

    def build(self) -> Forest | None:
        """Return the forest, None without a tree."""
        if not self._sizes:
            return None
        places, thresholds, missing_right, first, count = (
            np.concatenate([getattr(splits, name) for splits in self._splits])
            for name in ("places", "thresholds", "missing_right", "first", "count")
        )
        starts = np.cumsum([0, *(len(splits.places) for splits in self._splits)]).tolist()
        coded = {
            start + split: (codes, right)
            for start, splits in zip(starts, self._splits)
            for split, codes, right in splits.coded
        }
        is_coded = np.zeros(len(places), dtype=bool)
        is_coded[list(coded)] = True
        asked = sorted(set(zip(is_coded.tolist(), places.tolist(), strict=True)))  # numbers first
        question, place = np.zeros(len(places), dtype=np.uint16), np.zeros(len(places), dtype=np.uint32)
        values: list[Floats] = []
        rights: list[Bools] = []
        for number, (by_code, column) in enumerate(asked):
            here = np.flatnonzero((places == column) & (is_coded == by_code))
            question[here] = number
            if by_code:
                place[here] = len(rights) + np.arange(len(here))
                known, rows = _join_codes([coded[split] for split in here.tolist()])
                rights += rows
            else:
                known = np.unique(np.append(thresholds[here], np.inf))
                place[here] = np.searchsorted(known, thresholds[here])
            values.append(known)
        return Forest(
            columns=tuple(column for _, column in asked),
            is_coded=tuple(by_code for by_code, _ in asked),
            values=np.concatenate([*values, np.empty(0)]),
            n_values=tuple(map(len, values)),
            baselines=np.array(self._baselines, dtype=np.float64),
            sizes=tuple(self._sizes),
            n_leaves=np.array([len(leaves) for leaves in self._leaves], dtype=np.uint8),
            leaves=np.concatenate(self._leaves),
            question=question,
            place=place,
            first=first,
            count=count,
            missing_right=missing_right.astype(np.uint8),
            goes_right=_pack(rights),
        )


def _find_link(boosting: BaseEstimator, count: int) -> Link:
    if hasattr(boosting, "classes_"):
        return "logit" if count == 1 else "softmax"
    if type(boosting._loss.link) is not IdentityLink:
        raise NotCompilableError(f"its loss {boosting.loss} has a scale of its own")
    return "identity"


def _list_columns(boosting: BaseEstimator, places: Sequence[int]) -> list[_Column]:
    """Return the columns in the order in which the nodes count them: those of codes come first."""
    is_coded = boosting.is_categorical_
    if is_coded is None:
        return [_Column(place, None, np.zeros(N_OWN, dtype=bool)) for place in places]
    encoder = boosting._preprocessor.named_transformers_["encoder"]
    bitsets, rows = boosting._bin_mapper.make_known_categories_bitsets()
    columns = [
        _Column(places[column], codes[~np.isnan(codes)], _unpack(bitsets[rows[number]]))
        for number, (column, codes) in enumerate(
            zip(np.flatnonzero(is_coded).tolist(), encoder.categories_, strict=True)
        )
    ]
    return columns + [
        _Column(places[column], None, np.zeros(N_OWN, dtype=bool)) for column in np.flatnonzero(~is_coded).tolist()
    ]


def _check_nodes(nodes: NDArray[np.void]) -> Bools:
    """Return which nodes are leaves.

    Raises
    ------
    NotCompilableError : there are too many, or a node is not directly before its left child
    """
    is_leaf: Bools = nodes["is_leaf"] == 1
    inner = np.flatnonzero(~is_leaf)
    if np.count_nonzero(is_leaf) > MAX_LEAVES:
        raise NotCompilableError(f"a tree has {np.count_nonzero(is_leaf)} leaves, more than {MAX_LEAVES}")
    if (nodes["left"][inner] != inner + 1).any():
        raise NotCompilableError("the nodes of its trees are in an order that is not known")
    return is_leaf


def _read_splits(
    nodes: NDArray[np.void], is_leaf: Bools, bitsets: NDArray[np.uint32], columns: Sequence[_Column]
) -> _Splits:
    """Return the splits of a tree; its nodes stand as one meets them from left to right."""
    inner = nodes[~is_leaf]
    before: NDArray[np.intp] = np.cumsum(is_leaf) - is_leaf  # the leaves left of each node
    first: NDArray[np.intp] = before[inner["left"]]
    missing_right = inner["missing_go_to_left"] == 0
    asked = inner["feature_idx"].tolist()
    coded = []
    for split in np.flatnonzero(inner["is_categorical"]).tolist():
        column = columns[asked[split]]
        if column.codes is None:
            raise NotCompilableError("a tree takes a column of numbers for codes")
        own = slice(0, len(column.codes))
        unknown = bool(missing_right[split])
        is_left = _unpack(bitsets[inner["bitset_idx"][split]])[own]
        right = ~is_left & (column.is_known[own] | unknown)
        coded.append((split, column.codes, np.append(right, unknown)))
    return _Splits(
        np.array([columns[number].place for number in asked], dtype=np.intp),
        inner["num_threshold"].astype(np.float64),
        missing_right,
        first.astype(np.uint8),
        (before[inner["right"]] - first).astype(np.uint8),
        coded,
    )


def _join_codes(found: Sequence[tuple[Floats, Bools]]) -> tuple[Floats, list[Bools]]:
    """Return the codes that any split knows, and for each split which of them go right, last the unknown ones."""
    known = np.unique(np.concatenate([codes for codes, _ in found]))
    rows = []
    for codes, right in found:
        row = np.full(len(known) + 1, right[-1])
        row[np.searchsorted(known, codes)] = right[:-1]
        rows.append(row)
    return known, rows


def _unpack(bitset: NDArray[np.uint32]) -> Bools:
    """Return (256,) the bits of eight words."""
    return np.unpackbits(bitset.astype("<u4").view(np.uint8), bitorder="little").astype(bool)


def _pack(rows: Sequence[Bools]) -> NDArray[np.uint8]:
    """Return (n_rows, n_bytes) rows of bits, the shorter ones filled up with 0."""
    bits = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=bool)
    for packed, row in zip(bits, rows, strict=True):
        packed[: len(row)] = row
    return np.packbits(bits, axis=1, bitorder="little")
