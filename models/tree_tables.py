"""Boosted trees as tables of bits: a row's values select a row of each table, and what is left over is its leaves.

Every tree has a word of as many bits as it has leaves, from left to right. A split that a value fails (it goes right)
rules out the leaves to its left: the lowest bit that no split has ruled out is the leaf where the row arrives
(QuickScorer; Lucchese et al., SIGIR 2015). Here the words that a value leaves are looked up for many trees at once:
values between two neighbouring thresholds do the same. Needs numpy alone.
"""

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MAX_LEAVES = 64
SPAN_ROWS = 4096  # are searched for their answers at once, which takes long
BLOCK_ROWS = 192  # are looked up at once: their words stay in the processor's cache
CHUNK_BYTES = 2048  # of a row's words: more take one row faster, and need more memory
N_BUCKETS, MAX_COMPARED = 4096, 3  # for the thresholds of a column, and how many of them in a bucket
INTEGER_BYTES = 2**24  # of tables that are kept as integers too
WORDS: dict[int, type[np.unsignedinteger]] = {64: np.uint64, 32: np.uint32, 16: np.uint16}
ALL = np.uint64(2**64 - 1)

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Forest:
    """Trees in the order in which they are added up, from left to right, and of each what its splits ask.

    Parameters
    ----------
    columns : (n_questions,) the columns of the encoded table that are asked for, those of numbers first
    is_coded : (n_questions,) whether a column holds codes, else numbers
    values : for each column its thresholds ascending, the last one infinity; or its known codes ascending
    n_values : (n_questions,) how many of `values` are of each column
    baselines : (n_sums,) what the trees are added to
    sizes : (n_sums,) how many trees there are for each sum
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
    baselines: Floats
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
class _Question:
    """A column that trees ask for.

    Parameters
    ----------
    column, is_coded, values : see `Forest`
    start : where its answers begin among those to all questions: one for each value, and one for NaN or unknown codes
    """

    column: int
    is_coded: bool
    values: Floats
    start: int

    @property
    def n_answers(self) -> int:
        """How many different answers there are."""
        return len(self.values) + 1

    def find(self, column: Floats) -> Places:
        """Return (n_rows,) which of its answers each value is, from 0."""
        if not self.is_coded:
            return self.edges.find(column)
        places = np.searchsorted(self.values, column)
        places[self.values.take(places, mode="clip") != column] = len(self.values)
        return places

    @cached_property
    def edges(self) -> "Edges":
        """Its thresholds."""
        return Edges(self.values)


class Edges:
    """Finds values among thresholds: buckets of one width say nearly where, in a fifth of the time of a search.

    A larger value is never in a lower bucket, so the thresholds of lower buckets are below a value, and those of its
    own are compared. Where too many thresholds lie in one bucket, each value is searched.

    Parameters
    ----------
    values : (n_edges,) ascending, the last one infinity
    """

    def __init__(self, values: Floats) -> None:
        finite = values[:-1]
        self._values = values
        self._low = finite[0] if len(finite) else 0.0
        with np.errstate(over="ignore", divide="ignore"):
            self._scale = N_BUCKETS / (finite[-1] - finite[0]) if len(finite) else 0.0
        counts = np.bincount(self._choose_buckets(finite), minlength=N_BUCKETS + 1)
        self._starts = np.cumsum(counts) - counts
        self._n_compared = int(counts.max())

    def find(self, column: Floats) -> Places:
        """Return (n_rows,) how many thresholds are below each value, all and one more for NaN."""
        if self._n_compared > MAX_COMPARED:
            return np.searchsorted(self._values, column)  # NaN comes after infinity
        places = self._starts.take(self._choose_buckets(column))
        for _ in range(self._n_compared):
            places += self._values.take(places) < column
        places[np.isnan(column)] = len(self._values)
        return places

    def _choose_buckets(self, column: Floats) -> Places:
        with np.errstate(over="ignore", invalid="ignore"):
            buckets = (column - self._low) * self._scale
        return np.fmin(np.fmax(buckets, 0), N_BUCKETS).astype(np.intp)


@dataclass(frozen=True)
class _Chunk:
    """Some of the trees, with the table of their words.

    Parameters
    ----------
    words : the type of a word
    table : (n_table_rows, n_bytes / 8) a word for each tree
    questions : which are asked
    spans : where the answers to each of these begin among those to all, and end
    rows : (n_answers to all questions,) the row of the table that an answer selects
    bases : (n_trees,) where among all leaves each tree's begin
    sums : (which sum, its first tree, the tree after its last), as far as they are here
    """

    words: type[np.unsignedinteger]
    table: NDArray[np.uint64]
    questions: Places
    spans: list[tuple[int, int]]
    rows: Places
    bases: Places
    sums: list[tuple[int, int, int]]

    def select(self, answers: list[Places]) -> list[Places]:
        """Return the rows of the table, (n_rows,) for each question, that (n_rows,) answers to all questions select."""
        asked = zip(self.questions.tolist(), self.spans, strict=True)
        return [self.rows[start:stop].take(answers[number]) for number, (start, stop) in asked]

    def look_up(self, selected: list[Places], n_rows: int) -> Words:
        """Return (n_trees, n_rows) the words that are left after all (n_rows,) answers, given the rows they select."""
        if not selected:
            left = np.tile(self.table[0], (n_rows, 1))
        else:
            left = self.table.take(selected[0], axis=0)
            ruled = np.empty_like(left)
        for rows in selected[1:]:
            self.table.take(rows, axis=0, out=ruled, mode="clip")  # "raise" would work in a copy
            np.bitwise_and(left, ruled, out=left)
        words: Words = np.ascontiguousarray(left.view(self.words)[:, : len(self.bases)].T)
        return words

    def find_one(self, answers: Sequence[int]) -> NDArray[np.uint8]:
        """Return (n_trees,) the leaves where one row arrives, given its answers to all questions."""
        if not len(self.questions):
            left = self.table[0].copy()  # it is written over
        else:
            asked = zip(self.questions.tolist(), self.spans, strict=True)
            rows = self.rows.take([start + answers[number] for number, (start, _) in asked])
            left = np.bitwise_and.reduce(self.table.take(rows, axis=0), axis=0)
        return find_lowest(left.view(self.words)[: len(self.bases)])


class _Integers:
    """The table of a chunk with each row as one integer of Python: for a single row, calls of numpy take most time."""

    def __init__(self, chunk: _Chunk) -> None:
        self._kind = chunk.words
        self._n_bytes = len(chunk.bases) * np.dtype(chunk.words).itemsize
        rows = [int.from_bytes(row.tobytes()[: self._n_bytes], sys.byteorder) for row in chunk.table]
        self._masks = [
            (number, [rows[place] for place in chunk.rows[start:stop].tolist()])
            for number, (start, stop) in zip(chunk.questions.tolist(), chunk.spans, strict=True)
        ]
        self._all = (1 << 8 * self._n_bytes) - 1
        self._ones = int.from_bytes(np.ones(len(chunk.bases), dtype=chunk.words).tobytes(), sys.byteorder)

    def find_one(self, answers: Sequence[int]) -> NDArray[np.uint8]:
        """Return what `_Chunk.find_one` does."""
        left = self._all
        for number, masks in self._masks:
            left &= masks[answers[number]]
        below = (left - self._ones) & (left ^ self._all)  # as in `find_lowest`: no word is 0, so none borrows
        places: NDArray[np.uint8] = np.bitwise_count(
            np.frombuffer(below.to_bytes(self._n_bytes, sys.byteorder), self._kind)
        )
        return places


class TreeTables:
    """The tables of a forest, made from it when a model is loaded."""

    def __init__(self, forest: Forest) -> None:
        self._baselines = forest.baselines
        self._leaves = forest.leaves
        self._questions = list_questions(forest)
        self._chunks = [build_chunk(forest, self._questions, trees) for trees in cut_trees(forest)]
        self._numbers = [(q.column, q.values.tolist()) for q in self._questions if not q.is_coded]
        self._codes = [
            (q.column, {code: place for place, code in enumerate(q.values.tolist())}, len(q.values))
            for q in self._questions
            if q.is_coded
        ]
        is_small = self.size_bytes <= INTEGER_BYTES
        self._singles = [(_Integers(chunk) if is_small else chunk, chunk.bases, chunk.sums) for chunk in self._chunks]
        self._begun = begin_sums(forest)

    @property
    def size_bytes(self) -> int:
        """The memory that the tables take."""
        return sum(chunk.table.nbytes for chunk in self._chunks)

    def add_up(self, X: Floats) -> Floats:
        """Return (n_rows, n_sums) for encoded columns, (n_columns, n_rows)."""
        if X.shape[1] == 1:
            return self.add_up_one(X[:, 0].tolist())
        sums = np.tile(self._baselines, (X.shape[1], 1))
        for start, stop in cut_rows(X.shape[1], SPAN_ROWS):
            answers = [q.find(X[q.column, start:stop]) for q in self._questions]
            for chunk in self._chunks:
                self._add_chunk(chunk, chunk.select(answers), sums[start:stop])
        return sums

    def _add_chunk(self, chunk: _Chunk, selected: list[Places], sums: Floats) -> None:
        """Add the leaves of a chunk's trees to (n_rows, n_sums), given the rows of its table that are selected."""
        bases = chunk.bases[:, np.newaxis]
        for start, stop in cut_rows(len(sums), BLOCK_ROWS):
            places = find_lowest(chunk.look_up([rows[start:stop] for rows in selected], stop - start)).astype(np.intp)
            places += bases
            values = self._leaves.take(places)
            for number, first, last in chunk.sums:
                values[first] += sums[start:stop, number]
                # numpy adds up two columns and more one row after the other, as scikit-learn does
                sums[start:stop, number] = np.add.reduce(values[first:last], axis=0)

    def add_up_one(self, values: list[float]) -> Floats:
        """Return (1, n_sums) for one row's encoded values, the same bits as `add_up` gives it."""
        answers = [
            bisect_left(edges, value) if (value := values[column]) == value else len(edges)
            for column, edges in self._numbers
        ]
        answers += [places.get(values[column], unknown) for column, places, unknown in self._codes]
        sums = self._baselines.tolist()
        begun = set()
        for single, bases, parts in self._singles:
            leaves = self._begun.take(single.find_one(answers) + bases)
            for number, first, stop in parts:
                if number in begun:
                    leaves[first] += sums[number]
                begun.add(number)
                sums[number] = np.add.accumulate(leaves[first:stop]).item(-1)
        return np.array([sums])


def begin_sums(forest: Forest) -> Floats:
    """Return the leaves, with what a sum begins with added to those of its first tree."""
    leaves = forest.leaves.copy()
    stops = np.cumsum(forest.n_leaves, dtype=np.intp)
    firsts = np.cumsum(forest.sizes, dtype=np.intp) - forest.sizes
    for tree, size, baseline in zip(firsts.tolist(), forest.sizes, forest.baselines.tolist(), strict=True):
        if size:
            leaves[stops[tree] - forest.n_leaves[tree] : stops[tree]] += baseline
    return leaves


def find_lowest(words: Words) -> NDArray[np.uint8]:
    """Return the place of the lowest bit of each word; the words are written over."""
    below = words - words.dtype.type(1)
    below &= np.invert(words, out=words)
    places: NDArray[np.uint8] = np.bitwise_count(below)
    return places


def cut_rows(n_rows: int, size: int) -> list[tuple[int, int]]:
    """Return where pieces of so many rows begin and end. Two rows or more are never cut so that one is left alone."""
    starts = list(range(0, n_rows, size))
    if n_rows % size == 1 and n_rows > 1:
        starts.pop()
    return list(pairwise([*starts, n_rows]))


# Building


def list_questions(forest: Forest) -> list[_Question]:
    """Return what the trees of a forest ask."""
    ends = np.cumsum(forest.n_values, dtype=np.intp).tolist()
    asked = zip(forest.columns, forest.is_coded, forest.n_values, ends, strict=True)
    return [
        _Question(column, is_coded, forest.values[end - n : end], end - n + number)
        for number, (column, is_coded, n, end) in enumerate(asked)
    ]


def cut_trees(forest: Forest) -> list[tuple[int, int]]:
    """Return the first tree of each chunk and the one after its last: trees that need words of one width."""
    ends = np.cumsum(forest.sizes, dtype=np.intp).tolist()
    widths: list[int] = []  # of each tree; all of a sum have the same
    for end, size in zip(ends, forest.sizes, strict=True):
        most = int(forest.n_leaves[end - size : end].max(initial=1))
        widths += [min(width for width in WORDS if width >= most)] * size
    chunks: list[tuple[int, int]] = []
    for tree, width in enumerate(widths):
        fits = chunks and widths[tree - 1] == width and (tree - chunks[-1][0]) * width < 8 * CHUNK_BYTES
        chunks[-1:] = [(chunks[-1][0], tree + 1)] if fits else [*chunks[-1:], (tree, tree + 1)]
    return chunks


def build_chunk(forest: Forest, questions: list[_Question], trees: tuple[int, int]) -> _Chunk:
    """Return the table of some trees.

    Parameters
    ----------
    forest, questions : the trees, and what they ask
    trees : the first, and the one after the last
    """
    start, stop = trees
    n_leaves = forest.n_leaves[start:stop].astype(np.intp)
    kind = WORDS[min(width for width in WORDS if width >= n_leaves.max())]
    first_split = int(np.sum(forest.n_leaves[:start], dtype=np.intp)) - start
    splits = slice(first_split, first_split + int(n_leaves.sum()) - len(n_leaves))
    words = rule_out(forest.first[splits], forest.count[splits], kind)
    tree = np.repeat(np.arange(len(n_leaves)), n_leaves - 1)
    question, place = forest.question[splits], forest.place[splits].astype(np.intp)
    rows = np.zeros(sum(q.n_answers for q in questions), dtype=np.intp)
    parts: list[Words] = []
    n_rows = 0
    asked = np.unique(question).astype(np.intp)
    for number in asked.tolist():
        here = np.flatnonzero(question == number)
        q = questions[number]
        if q.is_coded:
            part, selected = _build_codes(forest.goes_right[place[here]], q, len(n_leaves), tree[here], words[here])
        else:
            right = forest.missing_right[splits][here] == 1
            part, selected = _build_numbers(place[here], right, q, len(n_leaves), tree[here], words[here])
        rows[q.start : q.start + q.n_answers] = n_rows + selected
        parts.append(part)
        n_rows += len(part)
    table = np.full((max(n_rows, 1), -(-len(n_leaves) * kind().itemsize // 8)), ALL)
    if parts:
        table.view(kind)[:, : len(n_leaves)] = np.concatenate(parts)
    bases = np.cumsum(forest.n_leaves, dtype=np.intp)[start:stop] - n_leaves
    ends = np.cumsum(forest.sizes, dtype=np.intp).tolist()
    sums = [
        (number, max(end - size, start) - start, min(end, stop) - start)
        for number, (end, size) in enumerate(zip(ends, forest.sizes, strict=True))
        if max(end - size, start) < min(end, stop)
    ]
    spans = [(questions[n].start, questions[n].start + questions[n].n_answers) for n in asked.tolist()]
    return _Chunk(kind, table, asked, spans, rows, bases, sums)


def rule_out(first: NDArray[np.uint8], count: NDArray[np.uint8], kind: type[np.unsignedinteger]) -> Words:
    """Return (n_splits,) the words that are left when a split fails: without the leaves to its left."""
    one = np.uint64(1)
    spans = (one << count.astype(np.uint64)) - one
    return (~(spans << first.astype(np.uint64))).astype(kind)


def _build_numbers(
    place: Places,
    right: NDArray[np.bool_],
    q: _Question,
    n_trees: int,
    tree: Places,
    words: Words,
) -> tuple[Words, Places]:
    """Return the part of a table for one column of numbers, and the row in it for each answer.

    Parameters
    ----------
    place, right, tree, words : (n_splits,) up to which threshold they pass, whether they fail NaN, of which tree they
        are, and what is left when they fail
    q, n_trees : what is asked, and how many trees there are
    """
    edges = np.unique(place)
    part = np.full((len(edges) + 2, n_trees), np.iinfo(words.dtype).max, dtype=words.dtype)
    np.bitwise_and.at(part, (np.searchsorted(edges, place) + 1, tree), words)
    np.bitwise_and.accumulate(part[:-1], axis=0, out=part[:-1])  # what is above an edge is above those before it
    np.bitwise_and.at(part[-1], tree[right], words[right])
    selected = np.searchsorted(edges, np.arange(q.n_answers))
    selected[-1] = len(edges) + 1
    return part, selected


def _build_codes(
    goes_right: NDArray[np.uint8], q: _Question, n_trees: int, tree: Places, words: Words
) -> tuple[Words, Places]:
    """Return the part of a table for one column of codes, and the row in it for each answer; see `_build_numbers`."""
    part = np.full((q.n_answers, n_trees), np.iinfo(words.dtype).max, dtype=words.dtype)
    split, code = np.nonzero(np.unpackbits(goes_right, axis=1, bitorder="little")[:, : q.n_answers])
    np.bitwise_and.at(part, (code, tree[split]), words[split])
    return part, np.arange(q.n_answers)
