"""What the columns of a source hold, gathered block by block in bounded memory.

Counts, ranges and levels are exact over the whole file. Quantiles, means and distinct values come from a sample of the
rows, which is the whole file up to 65,536 rows; the sample depends on the rows' numbers alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_ingestion.schema import Column
from data_ingestion.texts import Forms, Texts, count_texts, merge_texts
from data_ingestion.typed_blocks import TypedColumn

MAX_LEVELS = 100_000
MAX_NUMBERS = 1_000  # of a numeric target: with more different values, nobody asks how many
_MERGED_AT_ONCE = 200_000
SAMPLE_ROWS = 65_536
MAX_SAMPLE_CELLS = 4_000_000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_HEAD_ROWS = 1_000
_TOP = 10
_SHOWN_CHARS = 200


@dataclass
class ColumnFacts:
    """What is known of a column, of one block or of all so far.

    Parameters
    ----------
    rows, missing, faults : counts
    max_levels : how many distinct values are too many to be kept
    low, high : the range of numbers and dates
    levels : the distinct values with counts, numbers as texts; None when there are too many, or nobody asked
    forms : how the values are written, where that was not plain
    """

    rows: int
    missing: int
    faults: int
    max_levels: int
    low: object = None
    high: object = None
    levels: Texts | None = None
    forms: Forms = field(default_factory=Forms)
    _waiting: list[Texts] = field(default_factory=list)
    _waiting_levels: int = 0

    @property
    def present(self) -> int:
        """How many values are not missing, those at fault among them."""
        return self.rows - self.missing

    def add(self, other: "ColumnFacts") -> None:
        """Take in the facts of the next block."""
        self.rows += other.rows
        self.missing += other.missing
        self.faults += other.faults
        self.forms += other.forms
        self.low = _pick(min, self.low, other.low)
        self.high = _pick(max, self.high, other.high)
        if self.levels is None:
            return
        if other.levels is None:
            self._forget_levels()
            return
        self._waiting.append(other.levels)
        self._waiting_levels += len(other.levels.values)
        if self._waiting_levels > min(_MERGED_AT_ONCE, self.max_levels):
            self.merge_levels()

    def merge_levels(self) -> None:
        """Put the levels of the blocks together; until then they wait, because each merge looks at all of them."""
        if self.levels is None:
            return
        if self._waiting:
            self.levels = merge_texts([self.levels, *self._waiting])
            self._waiting, self._waiting_levels = [], 0
        if len(self.levels.values) > self.max_levels:
            self._forget_levels()

    def _forget_levels(self) -> None:
        self.levels, self._waiting, self._waiting_levels = None, [], 0


def _pick(choose, one: object, other: object) -> object:  # type: ignore[no-untyped-def]
    known = [value for value in (one, other) if value is not None]
    return choose(known) if known else None


def find_facts(
    read: TypedColumn, column: Column, missing: list[str], with_levels: bool, with_forms: bool
) -> ColumnFacts:
    """Return what one block says of a column.

    Parameters
    ----------
    read : the column
    column : its part of the contract
    missing : the spellings that mean missing
    with_levels : whether distinct values are counted
    with_forms : whether it matters how values are written
    """
    values = read.values
    faults = 0 if read.is_fault is None else int(pc.sum(read.is_fault).as_py() or 0)
    facts = ColumnFacts(len(values), values.null_count - faults, faults, MAX_LEVELS)
    if pa.types.is_dictionary(values.type):
        if with_levels:
            facts.levels = count_texts(values, [])
        return facts
    if not (pa.types.is_string(values.type) or pa.types.is_boolean(values.type)):
        facts.low, facts.high = read.ends.to_pylist()
    if column.kind == "boolean" and read.texts is not None:
        facts.levels = merge_texts([count_texts(read.texts, missing)]) if with_levels else None
        return facts
    if with_levels:
        found = values.drop_null().value_counts()
        facts.max_levels = MAX_NUMBERS
        if len(found) <= MAX_NUMBERS:
            facts.levels = Texts(found.field("values").cast(pa.string()), np.asarray(found.field("counts")))
    if with_forms and read.texts is not None:
        facts.forms = count_texts(read.texts, missing).count_forms()
    elif with_forms:
        is_whole = column.kind == "integer"
        facts.forms = Forms(facts.present, facts.present, facts.present if is_whole else 0)
    return facts


@dataclass(frozen=True)
class PickedRows:
    """Rows of one block that may be in the sample, each with its hash; `rows` is how many the block has."""

    table: pa.Table
    hashes: NDArray[np.uint64]
    rows: int


class RowSample:
    """A sample of the rows, the same whatever threads read them.

    A row stays when the hash of its place is below a threshold, which is halved whenever the sample grows too large.
    """

    def __init__(self, n_columns: int) -> None:
        self._target = max(1_000, min(SAMPLE_ROWS, MAX_SAMPLE_CELLS // max(1, n_columns)))
        self._threshold = np.uint64(2**64 - 1)
        self._picked: list[PickedRows] = []
        self._size = 0
        self.rows = 0

    @property
    def is_whole(self) -> bool:
        """Whether it holds every row."""
        return self._size == self.rows

    def pick(self, table: pa.Table, block: int) -> PickedRows:
        """Return the rows of a block that may stay; runs in any thread, ahead of its turn."""
        places = (np.uint64(block) << np.uint64(32)) + np.arange(table.num_rows, dtype=np.uint64)
        return _keep_below(PickedRows(table, _mix(places), table.num_rows), self._threshold)

    def add(self, picked: PickedRows) -> None:
        """Take in the rows of the next block."""
        self.rows += picked.rows
        self._picked.append(_keep_below(picked, self._threshold))
        self._size += len(self._picked[-1].hashes)
        while self._size > 2 * self._target:
            self._threshold //= np.uint64(2)
            self._picked = [_keep_below(part, self._threshold) for part in self._picked]
            self._size = sum(len(part.hashes) for part in self._picked)

    def to_table(self) -> pa.Table:
        """Return the sampled rows, in their order."""
        return pa.concat_tables([part.table for part in self._picked]).combine_chunks()


def _keep_below(picked: PickedRows, threshold: np.uint64) -> PickedRows:
    chosen = picked.hashes <= threshold
    table = picked.table if chosen.all() else picked.table.take(np.flatnonzero(chosen))
    return PickedRows(_without_dictionaries(table), picked.hashes[chosen], picked.rows)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Return plain texts: a few rows must not hold on to the dictionary of a block."""
    for place, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(pa.string()))
    return table


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash of each number (splitmix64; Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class Profile:
    """What the source holds.

    Parameters
    ----------
    rows : how many rows have the fields of the header
    facts : of each column, over all rows
    sample : some of them; a value at fault is null
    is_whole : whether the sample holds all
    head : the first thousand
    """

    rows: int
    facts: Mapping[str, ColumnFacts]
    sample: pa.Table
    is_whole: bool
    head: pa.Table

    def count_distinct(self, name: str) -> int:
        """Return how many different values a column has: exact where sample or levels are whole, else estimated."""
        return self._distinct[name]

    @cached_property
    def _distinct(self) -> dict[str, int]:
        found = {}
        for name, facts in self.facts.items():
            if facts.levels is not None:
                found[name] = len(facts.levels.values)
                continue
            counts = np.asarray(self.sample[name].combine_chunks().drop_null().value_counts().field("counts"))
            found[name] = len(counts) if self.is_whole else min(estimate_distinct(counts), facts.present)
        return found

    def find_quantiles(self, name: str) -> dict[str, object]:
        """Return the quantiles of a column of numbers or dates, by the share of rows below."""
        values = self.sample[name].combine_chunks()
        is_date = pa.types.is_timestamp(values.type)
        numbers = (values.cast(pa.int64()) if is_date else values).drop_null()
        if not len(numbers):
            return {}
        found = pc.quantile(numbers, list(QUANTILES), interpolation="nearest")
        found = found.cast(values.type) if is_date else found
        return {f"{share:g}": _plain(value) for share, value in zip(QUANTILES, found.to_pylist(), strict=True)}

    def describe(self, name: str, column: Column) -> dict[str, object]:
        """Return the figures of one column as plain values."""
        facts = self.facts[name]
        described: dict[str, object] = {
            "kind": column.kind,
            "role": column.role,
            "rows": facts.rows,
            "missing": facts.missing,
            "missing_share": facts.missing / facts.rows if facts.rows else 0.0,
            "faults": facts.faults,
            "distinct": self.count_distinct(name),
            "distinct_is_exact": facts.levels is not None or self.is_whole,
        }
        if facts.low is not None:
            described |= {"min": _plain(facts.low), "max": _plain(facts.high), "quantiles": self.find_quantiles(name)}
        if column.kind in ("number", "integer"):
            values = self.sample[name]
            described |= {"mean": pc.mean(values).as_py(), "stddev": pc.stddev(values, ddof=0).as_py()}
        if facts.levels is not None and column.kind in ("category", "boolean", "text"):
            order = np.argsort(-facts.levels.counts, kind="stable")[:_TOP]
            top = zip(facts.levels.values.take(order).to_pylist(), facts.levels.counts[order].tolist(), strict=True)
            described["top"] = [{"value": _plain(value), "rows": count} for value, count in top]
        examples = pc.unique(self.head[name].combine_chunks().drop_null()).slice(0, 5).to_pylist()
        return described | {"examples": [_plain(value) for value in examples]}

    def to_dict(self, columns: Mapping[str, Column]) -> dict[str, object]:
        """Return all figures as plain values."""
        return {
            "rows": self.rows,
            "sampled_rows": self.sample.num_rows,
            "columns": {name: self.describe(name, column) for name, column in columns.items() if name in self.facts},
        }

    def comment(self, name: str, column: Column) -> str:
        """Return one line on a column for a reader of the contract."""
        facts = self.facts.get(name)
        if facts is None or not facts.rows:
            return ""
        parts = [f"{facts.missing:,} of {facts.rows:,} missing" if facts.missing else "none missing"]
        quantiles = self.find_quantiles(name) if facts.low is not None else {}
        if quantiles:
            shares = "/".join(f"{100 * float(share):g}" for share in quantiles)
            parts.append(f"quantiles {shares} %: " + ", ".join(_short(value) for value in quantiles.values()))
        about = "" if facts.levels is not None or self.is_whole else "about "
        parts.append(f"{about}{self.count_distinct(name):,} different values")
        return "; ".join(parts)


def estimate_distinct(counts: NDArray[np.int64]) -> int:
    """Return how many different values there are in all, from how often each stands in a sample.

    Chao's estimate, from those that stand there once and twice (Chao, Scandinavian Journal of Statistics 11, 1984).
    """
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return int(len(counts) + once * (once - 1) / (2 * (twice + 1)))


def _plain(value: object) -> object:
    """Return a value as JSON can hold it, long texts cut."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "…"
    return value.isoformat() if hasattr(value, "isoformat") else value


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(_plain(value))


def take_head(head: pa.Table | None, table: pa.Table) -> pa.Table:
    """Return the first thousand rows so far."""
    if head is None:
        return _without_dictionaries(table.slice(0, _HEAD_ROWS))
    if head.num_rows >= _HEAD_ROWS:
        return head
    return pa.concat_tables([head, _without_dictionaries(table.slice(0, _HEAD_ROWS - head.num_rows))]).combine_chunks()
