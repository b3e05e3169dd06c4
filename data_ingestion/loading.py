"""One reading of the sources: blocks are read by several threads, and put together in the order of the file.

Memory is bounded by a few blocks a thread, whatever the size of the source. What comes out is the same for any number
of threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa

from data_ingestion import csv_reader
from data_ingestion.csv_reader import Block, read_blocks, recycle
from data_ingestion.handoff import PipelineError
from data_ingestion.profiling import (
    MAX_LEVELS,
    ColumnFacts,
    PickedRows,
    Profile,
    RowSample,
    estimate_distinct,
    find_facts,
    take_head,
)
from data_ingestion.schema import Column, join_names
from data_ingestion.source_reader import SourceReader
from data_ingestion.tally import Tally
from data_ingestion.texts import Texts, count_texts
from data_ingestion.typed_blocks import Layout, read_block, read_texts
from data_ingestion.validation import SHOWN, CheckedBlock, Finding, Reject, check_block, check_columns, check_names

PEEK_BYTES = 1024 * 1024
MIN_PEEK_BYTES = 64 * 1024  # of each file, and of the beginning of each
_PIECES = 16
_MAX_PEEKED_FILES = 64

Progress = Callable[[int, int], object]  # bytes of the sources, rows


@dataclass(frozen=True)
class Outputs:
    """Where rows go as they are read, in order; None where nothing is to be written."""

    write_rows: Callable[[pa.Table], object]
    write_rejects: Callable[[Sequence[Reject], Sequence[str], str], object]  # with their header and separator


@dataclass
class Reading:
    """What one reading of the sources found."""

    tally: Tally
    profile: Profile
    findings: list[Finding]
    notes: list[str]


@dataclass(frozen=True)
class _Outcome:
    """What a thread makes of one block, whose text it does not keep."""

    header: tuple[str, ...]
    separator: str
    checked: CheckedBlock
    facts: dict[str, ColumnFacts]
    picked: PickedRows
    rows: int


@dataclass
class _State:
    """What is known so far; threads read it only to leave out what is known already."""

    layout: Layout
    infers: bool
    tally: Tally
    sample: RowSample
    facts: dict[str, ColumnFacts] = field(default_factory=dict)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    located: frozenset[tuple[str, str]] = frozenset()
    head: pa.Table | None = None
    spare: list[bytearray] = field(default_factory=list)


def count_workers() -> int:
    """Return how many threads read: one a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_sources(
    readers: Sequence[SourceReader],
    separator: str | None,
    layout: Layout,
    infers: bool,
    outputs: Outputs | None,
    progress: Progress | None = None,
) -> Reading:
    """Read all sources by a contract, and hand on the rows that fit it.

    Parameters
    ----------
    readers : the files
    separator : one character; None detects it
    layout : the contract, and how its columns are read
    infers : whether it is a guess, so that what the columns hold is counted
    outputs : where the rows go
    progress : called now and then with the bytes and rows so far

    Raises
    ------
    PipelineError : a file is damaged, is no CSV, or lacks columns
    """
    state = _State(layout, infers, Tally(), RowSample(len(layout.contract.columns)))
    notes: list[str] = []
    workers = count_workers()
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(1) as writer:
        running: deque[Future[_Outcome]] = deque()
        writing: deque[Future[object]] = deque()

        def put_away() -> None:
            outcome = running.popleft().result()
            _take_in(state, outcome)
            if outputs is not None:
                writing.append(writer.submit(_write, outputs, outcome))
            while len(writing) > 4:  # whole row groups are written now and then, and nobody is to wait for that
                writing.popleft().result()

        try:
            blocks = _iterate_blocks(readers, separator, state, notes, progress)
            for number, block in enumerate(blocks):
                running.append(pool.submit(_work, number, block, state))
                if len(running) > workers + 2:
                    put_away()
            while running:
                put_away()
            while writing:
                writing.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            writer.shutdown(cancel_futures=True)
            raise
    for facts in state.facts.values():
        facts.merge_levels()
    head = state.head if state.head is not None else state.sample.to_table()
    profile = Profile(state.sample.rows, state.facts, state.sample.to_table(), state.sample.is_whole, head)
    return Reading(state.tally, profile, list(state.findings.values()), notes)


def _iterate_blocks(
    readers: Sequence[SourceReader],
    separator: str | None,
    state: _State,
    notes: list[str],
    progress: Progress | None,
) -> Iterator[Block]:
    """Yield the blocks of all files, their columns checked."""
    before, mark, contract, infers = 0, separator, state.layout.contract, state.infers
    for reader in readers:

        def report(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, state.tally.rows)

        header = None
        sign = "," if reader.is_table else mark
        text, size = reader.iterate(report), csv_reader.BLOCK_BYTES
        for block in read_blocks(text, sign, reader.source.name, size, state.spare):
            if header is None:
                header = block.header
                mark = mark or (None if reader.is_table else block.separator)
                if infers and reader is not readers[0]:
                    check_same_columns(header, list(contract.columns), block.source)
                if infers:
                    check_names(header, block.source)
                else:
                    notes += [note for note in check_columns(header, contract, block.source) if note not in notes]
            yield block
        before += reader.source.size


def check_same_columns(header: Sequence[str], expected: Sequence[str], source: str) -> None:
    """Raise unless a file has the columns of the first one, in whatever order."""
    absent, extra = [n for n in expected if n not in header], [n for n in header if n not in expected]
    if absent or extra:
        parts = [f"{what} {join_names(names)}" for what, names in (("lacks", absent), ("adds", extra)) if names]
        raise PipelineError(f"{source} {' and '.join(parts)} compared with the first file. Give all files one header.")


def _work(number: int, block: Block, state: _State) -> _Outcome:
    """Read one block, the first being number 0; runs in a thread."""
    layout = state.layout
    typed = read_block(block, layout)
    facts = {
        name: find_facts(
            read,
            layout.contract.columns[name],
            layout.contract.missing_spellings(name),
            with_levels=_wants_levels(name, layout.contract.columns[name], state),
            with_forms=state.infers,
        )
        for name, read in typed.columns.items()
    }
    checked = check_block(block, typed, layout, state.located)
    picked = state.sample.pick(checked.rows, number)
    recycle(block, state.spare)
    return _Outcome(block.header, block.separator, checked, facts, picked, typed.num_rows + len(typed.misfits))


def _wants_levels(name: str, column: Column, state: _State) -> bool:
    """Return whether the distinct values of a column are counted: those of texts, and of a target."""
    known = state.facts.get(name)
    if known is not None and known.levels is None:  # too many already
        return False
    return column.role == "target" or (
        column.kind in ("category", "boolean", "text") and name not in state.layout.without_levels
    )


def _take_in(state: _State, outcome: _Outcome) -> None:
    """Add a block to what is known; called in the order of the blocks."""
    state.tally.add(outcome.rows, outcome.checked.rejects)
    for name, facts in outcome.facts.items():
        known = state.facts.get(name)
        if known is not None:
            known.add(facts)
            continue
        facts.merge_levels()
        state.facts[name] = facts  # whole before any thread sees it
    for finding in outcome.checked.findings:
        found = state.findings.setdefault((finding.column, finding.rule), Finding(finding.column, finding.rule, 0))
        found.add(finding)
        if len(found.places) >= SHOWN:
            state.located |= {(finding.column, finding.rule)}
    state.sample.add(outcome.picked)
    state.head = take_head(state.head, outcome.checked.rows)


def _write(outputs: Outputs, outcome: _Outcome) -> None:
    outputs.write_rows(outcome.checked.table)
    if outcome.checked.rejects:
        outputs.write_rejects(outcome.checked.rejects, outcome.header, outcome.separator)


# A first look


@dataclass(frozen=True)
class Peek:
    """A few pieces of the sources as texts.

    Parameters
    ----------
    texts : the present texts by column
    separator : of the files
    header : the names of the columns
    raw : all texts by column, trimmed
    """

    texts: dict[str, Texts]
    separator: str
    header: tuple[str, ...]
    raw: dict[str, pa.Array]


def peek_sources(readers: Sequence[SourceReader], separator: str | None, missing: list[str]) -> Peek:
    """Return a few pieces of the sources: the whole where that is small, else the beginning, the end and some between.

    Parameters
    ----------
    readers : the files
    separator : one character; None detects it
    missing : the spellings that mean missing
    """
    step = max(1, len(readers) // _MAX_PEEKED_FILES)
    chosen = readers[::step]
    blocks = [block for reader in chosen for block in _peek(reader, separator, PEEK_BYTES // len(chosen))]
    header, mark = blocks[0].header, blocks[0].separator
    pieces: dict[str, list[pa.Array]] = {name: [] for name in header}
    for block in blocks:
        if set(block.header) != set(header):
            check_same_columns(block.header, header, block.source)
        for name, texts in read_texts(block, block.header).items():
            pieces[name].append(texts)
    raw = {name: pa.concat_arrays(parts) for name, parts in pieces.items()}
    return Peek({name: count_texts(texts, missing) for name, texts in raw.items()}, mark, header, raw)


def _peek(reader: SourceReader, separator: str | None, budget: int) -> Iterator[Block]:
    """Yield blocks of about `budget` bytes of one file."""
    mark = "," if reader.is_table else separator
    budget = max(budget, MIN_PEEK_BYTES)
    is_seekable = not reader.is_table and reader.is_plain and reader.source.size > budget
    length = budget // _PIECES if is_seekable else budget
    text = reader.iterate(is_first_look=True)
    blocks = read_blocks(text, mark, reader.source.name, max(length, MIN_PEEK_BYTES))
    first = next(blocks)
    yield first
    if not is_seekable:
        left = budget - len(first.view)
        while left > 0 and (block := next(blocks, None)) is not None:
            left -= len(block.view)
            yield block
        return
    for piece in reader.read_pieces(_PIECES - 1, length):
        yield replace(first, view=memoryview(piece))


def guess_levels(texts: dict[str, Texts]) -> frozenset[str]:
    """Return the columns whose texts hardly repeat, so that counting them does not pay.

    Parameters
    ----------
    texts : the present texts by column, of a few pieces
    """
    return frozenset(
        name
        for name, column in texts.items()
        if len(column.values) > 1_000 and estimate_distinct(column.counts) > MAX_LEVELS
    )
