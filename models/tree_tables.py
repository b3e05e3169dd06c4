"""Boosted trees as tables of bits: a row's values select a row of each table, and what is left over is its leaves.

Every tree has a word of as many bits as it has leaves, from left to right. A split that a value fails (it goes right)
rules out the leaves to its left: the lowest bit that no split has ruled out is the leaf where the row arrives
(QuickScorer; Lucchese et al., SIGIR 2015). Here the words that a value rules out are looked up for all trees at once:
values between two neighbouring thresholds do the same. Needs numpy alone.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_LEAVES = 64
BLOCK_ROWS = 256
BLOCK_BYTES = 2**19  # of words, so that a block's stay in the processor's cache
WORDS: dict[int, type[np.unsignedinteger]] = {64: np.uint64, 32: np.uint32, 16: np.uint16}

Floats = NDArray[np.float64]
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Forest:
    """Trees in the order in which they are added up, from left to right, and of each what its splits ask.

    Parameters
    ----------
    columns : (n_questions,) the columns of the encoded table that are asked for
    is_coded : (n_questions,) whether a column holds codes, else numbers
    values : for each column its thresholds ascending, the last one infinity; or its known codes ascending
    n_values : (n_questions,) how many of `values` are of each column
    sizes : (n_sums,) how many trees are added up for each number that is wanted
    n_leaves : (n_trees,)
    leaves : the values of all leaves, tree after tree, left to right
    question : (n_splits,) which of `columns` is asked; a tree has a split less than leaves, the trees follow each other
    place : (n_splits,) the threshold at or below which a number goes left; of codes, the row of `goes_right`
    first, count : (n_splits,) the leaves left of the split: the first, and how many
    missing_right : (n_splits,) 1 where NaN goes right
    goes_right : (n_coded_splits, n_bytes) bits: which known codes go right, and after them whether an unknown one does
    """

    columns: tuple[int, ...]
    is_coded: tuple[bool, ...]
    values: Floats
    n_values: tuple[int, ...]
    sizes: tuple[int, ...]
    n_leaves: NDArray[np.uint8]
    leaves: Floats
    question: NDArray[np.uint16]
    place: NDArray[np.uint32]
    first: NDArray[np.uint8]
    count: NDArray[np.uint8]
    missing_right: NDArray[np.uint8]
    goes_right: NDArray[np.uint8]


@dataclass(frozen=True)
class _Group:
    """Trees whose words have the same width, side by side.

    Parameters
    ----------
    words : the type of a word
    start, stop : the bytes of a row of the table
    bases : (n_trees,) where in `values` each tree's leaves begin
    values : of the leaves
    sums : (which sum, its first tree, the tree after its last)
    """

    words: type[np.unsignedinteger]
    start: int
    stop: int
    bases: Places
    values: Floats
    sums: list[tuple[int, int, int]]


class TreeTables:
    """The tables of a forest, made from it when a model is loaded."""

    def __init__(self, forest: Forest) -> None:
        lengths = np.array(forest.n_values, dtype=np.intp)
        ends = np.cumsum(lengths)
        self.n_sums = len(forest.sizes)
        self._values = [forest.values[end - n : end] for end, n in zip(ends, lengths, strict=True)]
        starts = np.cumsum(lengths + 1) - lengths - 1  # of each column's rows; the last is for NaN, or unknown codes
        questions = list(zip(forest.columns, forest.is_coded, self._values, starts.tolist(), strict=True))
        self._questions = questions
        self._numbers = [(c, v.tolist(), start) for c, is_coded, v, start in questions if not is_coded]
        self._codes = [
            (c, {code: start + place for place, code in enumerate(v.tolist())}, start + len(v))
            for c, is_coded, v, start in questions
            if is_coded
        ]
        self._groups = group_trees(forest)
        n_words = -(-self._groups[-1].stop // 8) if self._groups else 0
        self._table = np.zeros((int(np.sum(lengths + 1)), n_words), dtype=np.uint64)
        cells = self._table.view(np.uint8)
        for group, trees in zip(self._groups, list_trees(forest), strict=True):
            words = build_words(forest, trees, group.words, starts, lengths)
            cells[:, group.start : group.stop] = words.view(np.uint8)
        self._block = int(np.clip(BLOCK_BYTES // max(8 * n_words, 1), 16, BLOCK_ROWS))

    @property
    def size_bytes(self) -> int:
        """The memory that the tables take."""
        return self._table.nbytes

    def add_up(self, X: Floats) -> Floats:
        """Return (n_rows, n_sums) for encoded columns, (n_columns, n_rows)."""
        n_rows = X.shape[1]
        sums = np.empty((n_rows, self.n_sums))
        shape = (min(self._block, n_rows), self._table.shape[1])
        left, ruled = np.empty(shape, dtype=np.uint64), np.empty(shape, dtype=np.uint64)
        for start in range(0, n_rows, self._block):
            block = X[:, start : start + self._block]
            size = block.shape[1]
            self._rule_out(block, left[:size], ruled[:size])
            self._read_leaves(left[:size], sums[start : start + size])
        return sums

    def add_up_one(self, values: list[float]) -> Floats:
        """Return (1, n_sums) for one row's encoded values, the same bits as `add_up` gives it."""
        rows = [
            start + (bisect_left(edges, value) if (value := values[column]) == value else len(edges))
            for column, edges, start in self._numbers
        ]
        rows += [places.get(values[column], unknown) for column, places, unknown in self._codes]
        left = np.bitwise_and.reduce(self._table.take(rows, axis=0), axis=0)
        if not rows:
            left = ~left
        sums = np.empty((1, self.n_sums))
        for group in self._groups:
            words = left.view(np.uint8)[group.start : group.stop].view(group.words)
            values_of = group.values.take(find_lowest(words) + group.bases)
            for number, first, stop in group.sums:
                sums[0, number] = np.add.accumulate(values_of[first:stop])[-1]
        return sums

    def _rule_out(self, X: Floats, left: NDArray[np.uint64], ruled: NDArray[np.uint64]) -> None:
        """Put the words that are left in `left`, (n_rows, n_words); `ruled` is room to work in."""
        left.fill(np.iinfo(np.uint64).max)
        for column, is_coded, values, start in self._questions:
            places = np.searchsorted(values, X[column])
            if is_coded:
                places[values.take(places, mode="clip") != X[column]] = len(values)
            else:
                places[np.isnan(X[column])] = len(values)
            places += start
            self._table.take(places, axis=0, out=ruled, mode="clip")  # "raise" would work in a copy
            np.bitwise_and(left, ruled, out=left)

    def _read_leaves(self, left: NDArray[np.uint64], sums: Floats) -> None:
        """Put the sums of the leaves that `left` says in `sums`, (n_rows, n_sums)."""
        for group in self._groups:
            words = left.view(np.uint8)[:, group.start : group.stop].view(group.words)
            values = group.values.take(find_lowest(words) + group.bases)
            for number, first, stop in group.sums:
                sums[:, number] = add_in_order(values[:, first:stop])


def find_lowest(words: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Return the place of the lowest bit of each word."""
    below = words - words.dtype.type(1)
    below &= ~words
    return np.bitwise_count(below)


def add_in_order(values: Floats) -> Floats:
    """Return (n_rows,) the sums of (n_rows, n_values), each added up from left to right as scikit-learn does.

    numpy adds up a row in pairs, but rows one after the other: so the values are laid on their side. One row alone it
    would take for the former.
    """
    if len(values) == 1:
        last: Floats = np.add.accumulate(values, axis=1)[:, -1]
        return last
    total: Floats = np.add.reduce(np.ascontiguousarray(values.T), axis=0)
    return total


def list_widths(forest: Forest) -> NDArray[np.intp]:
    """Return (n_sums,) the bits of the words of each sum's trees."""
    ends = np.cumsum(forest.sizes)
    most = [int(forest.n_leaves[end - size : end].max(initial=1)) for end, size in zip(ends, forest.sizes, strict=True)]
    return np.array([min(width for width in WORDS if width >= n) for n in most], dtype=np.intp)


def list_trees(forest: Forest) -> list[Places]:
    """Return the trees of each group."""
    widths = np.repeat(list_widths(forest), forest.sizes)
    return [np.flatnonzero(widths == width) for width in WORDS if (widths == width).any()]


def group_trees(forest: Forest) -> list[_Group]:
    """Return the trees by the width of their words, the widest first."""
    widths, sizes = list_widths(forest), np.array(forest.sizes, dtype=np.intp)
    firsts = np.cumsum(forest.n_leaves, dtype=np.intp) - forest.n_leaves
    groups: list[_Group] = []
    start = 0
    for trees in list_trees(forest):
        width = int(np.repeat(widths, sizes)[trees[0]])
        here = np.flatnonzero(widths == width)
        stops = np.cumsum(sizes[here])
        sums = list(zip(here.tolist(), (stops - sizes[here]).tolist(), stops.tolist(), strict=True))
        stop = start + len(trees) * width // 8
        groups.append(_Group(WORDS[width], start, stop, firsts[trees], forest.leaves, sums))
        start = stop
    return groups


def build_words(
    forest: Forest, trees: Places, kind: type[np.unsignedinteger], starts: Places, lengths: Places
) -> NDArray[np.unsignedinteger]:
    """Return (n_rows of the table, n_trees) the words that each value leaves.

    Parameters
    ----------
    forest, trees : which of its trees
    kind : the type of a word
    starts, lengths : of each column, its first row of the table and its values
    """
    table = np.full((int(np.sum(lengths + 1)), len(trees)), np.iinfo(kind).max, dtype=kind)
    tree_of = np.repeat(np.arange(len(forest.n_leaves)), forest.n_leaves.astype(np.intp) - 1)
    position = np.full(len(forest.n_leaves), -1)
    position[trees] = np.arange(len(trees))
    chosen = np.flatnonzero(position[tree_of] >= 0)
    tree, question = position[tree_of[chosen]], forest.question[chosen].astype(np.intp)
    one = np.uint64(1)
    spans = (one << forest.count[chosen].astype(np.uint64)) - one
    words = (~(spans << forest.first[chosen].astype(np.uint64))).astype(kind)
    place, start, length = forest.place[chosen].astype(np.intp), starts[question], lengths[question]
    coded = np.array(forest.is_coded, dtype=bool)[question]
    passes = np.flatnonzero(~coded & (place + 1 < length))
    np.bitwise_and.at(table, (start[passes] + place[passes] + 1, tree[passes]), words[passes])
    for number, (first, n) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        if not forest.is_coded[number]:  # a value above a threshold is above all those before it
            np.bitwise_and.accumulate(table[first : first + n], axis=0, out=table[first : first + n])
    gaps = np.flatnonzero(~coded & (forest.missing_right[chosen] == 1))
    np.bitwise_and.at(table, (start[gaps] + length[gaps], tree[gaps]), words[gaps])
    codes = np.flatnonzero(coded)
    split, code = np.nonzero(np.unpackbits(forest.goes_right, axis=1, bitorder="little")[place[codes]])
    split = codes[split]
    np.bitwise_and.at(table, (start[split] + code, tree[split]), words[split])
    return table
