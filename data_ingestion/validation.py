"""Rows against the contract: what fits goes on, typed; what does not is set aside with its reason.

Works on one block at a time. What is remarked on but not refused is counted, with the first lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_ingestion import casting
from data_ingestion.csv_places import locate_records
from data_ingestion.csv_reader import Block, check_encoding
from data_ingestion.handoff import PipelineError
from data_ingestion.params import suggest
from data_ingestion.schema import LOADER, Column, Contract, join_names
from data_ingestion.typed_blocks import LEVELS, Layout, TypedBlock, TypedColumn, read_texts

MARKS = ("rejected_id", "rejected_file", "rejected_line", "rejected_reason")  # before the file's own, in rejected.csv
TARGET_MISSING = "target missing"
SHOWN = 5
_REJECTED = ("id", "file", "line", "column", "reason", "text")
REJECTED_SCHEMA = pa.schema({name: pa.int64() if name == "line" else pa.string() for name in _REJECTED})


@dataclass(frozen=True)
class Reject:
    """A record that is set aside: where it stands, the column at fault, why, and its text; rejects.py gives the id."""

    file: str
    line: int
    column: str | None
    reason: str
    text: str
    id: str = ""


@dataclass
class Finding:
    """What the contract did not expect of a column, and lets pass or not: how often, and in which lines first.

    Parameters
    ----------
    column : its name
    rule : what was not expected, in words
    count : in how many rows
    places : file and line of the first five
    """

    column: str
    rule: str
    count: int
    places: list[tuple[str, int]] = field(default_factory=list)

    def add(self, other: "Finding") -> None:
        """Take in what the next block says."""
        self.count += other.count
        self.places = (self.places + other.places)[:SHOWN]

    def describe(self, source: str) -> str:
        """Return it in words; files are named when the source holds several."""
        said = f'column "{self.column}": {self.count:,} {self.rule}'
        if not self.places:
            return said
        lines = [str(line) if file == source else f"{file} {line}" for file, line in self.places]
        more = f", +{self.count - len(lines):,} more" if self.count > len(lines) else ""
        return f"{said} (line{'s' * (len(lines) > 1)} {', '.join(lines)}{more})"


@dataclass(frozen=True)
class CheckedBlock:
    """The rows of a block with the right fields, those of them that fit, the rejects, and what was not expected."""

    rows: pa.Table
    table: pa.Table
    rejects: list[Reject]
    findings: list[Finding]


def check_columns(names: Sequence[str], contract: Contract, source: str) -> list[str]:
    """Return a note on columns that the contract does not know.

    Raises
    ------
    PipelineError : columns that are used are missing; near names are offered for each
    """
    check_names([name for name in names if name not in contract.columns], source)
    extra = [name for name in names if name not in contract.columns]
    absent = [n for n, column in contract.columns.items() if column.role != "ignored" and n not in names]
    if len(absent) == 1:
        raise PipelineError(
            f'{source}: column "{absent[0]}" of data/schema.yaml is missing.{suggest(absent[0], extra or list(names))} '
            f"Mend the header, or run: python {LOADER} --infer"
        )
    if absent:
        near = "".join(f' For "{name}":{suggest(name, extra or list(names))}' for name in absent[:SHOWN])
        raise PipelineError(
            f"{source}: columns {join_names(absent)} of data/schema.yaml are missing.{near} Mend the header, or run: "
            f"python {LOADER} --infer"
        )
    return [f"left out: {join_names(extra)}, unknown to data/schema.yaml"] if extra else []


def check_names(names: Sequence[str], source: str) -> None:
    """Raise when a source has the columns that rejected.csv adds to its own."""
    taken = [name for name in names if name in MARKS]
    if tuple(taken) == MARKS:
        raise PipelineError(f"{source} holds rejected rows. When they are mended, feed them back: --append {source}")
    if taken:
        raise PipelineError(f"{source}: rejected.csv needs the column name {join_names(taken)}. Rename it.")


def raw_schema(contract: Contract) -> pa.Schema:
    """Return the columns of raw.parquet; texts as dictionaries, as they are read."""
    types = {name: casting.arrow_type(column) for name, column in contract.columns.items()}
    return pa.schema({name: LEVELS if pa.types.is_string(kind) else kind for name, kind in types.items()})


def check_block(block: Block, typed: TypedBlock, layout: Layout, known: frozenset[tuple[str, str]]) -> CheckedBlock:
    """Return the rows of a block that fit the contract, and what there is to say of the others.

    Parameters
    ----------
    block : the records
    typed : the same, as columns
    layout : the contract
    known : findings whose first lines are known already, as (column, rule)
    """
    faults: dict[int, tuple[str, str]] = {}  # the first fault of each row: column, reason
    findings: list[tuple[Finding, NDArray[np.int64]]] = []
    arrays: dict[str, pa.Array] = {}
    for name, column in layout.contract.columns.items():
        read = typed.columns.get(name)
        if read is None:
            arrays[name] = pa.nulls(typed.num_rows, casting.arrow_type(column))  # an ignored one
            continue
        arrays[name] = read.values
        if column.role == "ignored":
            continue
        unexpected = find_unexpected_rows(read.values, column)
        if len(unexpected) and _policy(column) == "warn":
            findings.append((Finding(name, _describe_unexpected(column), len(unexpected)), unexpected))
        if _refuses_any(read, column, unexpected):
            read = replace(read, texts=read_texts(block, [name])[name])
        for row, reason in _find_faults(name, column, read, unexpected):
            faults.setdefault(row, (name, reason))
    rejects = _locate(block, typed, faults, findings, known)
    rows = table = pa.table({name: _to_levels(values) for name, values in arrays.items()})
    if faults:
        kept = np.ones(typed.num_rows, dtype=bool)
        kept[list(faults)] = False
        table = rows.filter(pa.array(kept))
    return CheckedBlock(rows, table, rejects, [finding for finding, _ in findings])


def _to_levels(values: pa.Array) -> pa.Array:
    """Return texts as a dictionary: every block has the same types."""
    return values.dictionary_encode().cast(LEVELS) if pa.types.is_string(values.type) else values


def find_unexpected_rows(values: pa.Array, column: Column) -> NDArray[np.int64]:
    """Return the rows whose value is of the right kind but outside the contract's range or categories."""
    if column.kind in ("category", "text"):
        if column.categories is None:
            return np.empty(0, dtype=np.int64)
        if not pa.types.is_dictionary(values.type):
            return np.flatnonzero(np.asarray(casting.find_unexpected_values(values, column)))
        unknown = np.flatnonzero(casting.find_unexpected_values(values.dictionary, column))
        return np.flatnonzero(np.isin(np.asarray(values.indices.fill_null(-1)), unknown)) if len(unknown) else unknown
    if not len(values) or (column.min is None and column.max is None):
        return np.empty(0, dtype=np.int64)
    range_ = pc.min_max(values).as_py()
    ends = pa.array([range_["min"], range_["max"]], values.type)
    if not pc.any(casting.find_unexpected_values(ends, column)).as_py():
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.asarray(casting.find_unexpected_values(values, column)))


def _policy(column: Column) -> str:
    return column.unseen if column.kind == "category" else column.out_of_range


def _refuses_any(read: TypedColumn, column: Column, unexpected: NDArray[np.int64]) -> bool:
    """Return whether values of the right kind are refused, or missing ones: their texts are wanted as they stand."""
    is_missing = read.values.null_count > 0 and not column.nullable and column.role != "target"
    return is_missing or (len(unexpected) > 0 and _policy(column) == "refuse")


def _describe_unexpected(column: Column) -> str:
    if column.kind == "category":
        return "rows with unknown categories"
    return f"values outside {column.min} to {column.max}"


def _find_faults(name: str, column: Column, read: TypedColumn, unexpected: NDArray[np.int64]) -> list[tuple[int, str]]:
    """Return (row, reason) for every value that its column does not allow."""
    faults: list[tuple[int, str]] = []
    spelled = read.values if read.texts is None else read.texts
    if read.is_fault is not None:
        faults += _explain(name, f"expects {read.expected}", np.flatnonzero(np.asarray(read.is_fault)), spelled)
    if _policy(column) == "refuse":
        allowed = "a known category" if column.kind == "category" else f"{column.min} to {column.max}"
        faults += _explain(name, f"expects {allowed}", unexpected, spelled)
    is_target = column.role == "target"
    if (is_target or not column.nullable) and read.values.null_count:
        is_missing = np.asarray(read.values.is_null())
        if read.is_fault is not None:
            is_missing &= ~np.asarray(read.is_fault)
        rows = np.flatnonzero(is_missing)
        if is_target:
            faults += [(int(row), TARGET_MISSING) for row in rows]
        else:
            faults += _explain(name, "expects a value (nullable: false)", rows, spelled)
    return faults


def _explain(name: str, rule: str, rows: NDArray[np.int64], spelled: pa.Array) -> list[tuple[int, str]]:
    texts = spelled.take(pa.array(rows)).to_pylist()
    shown = ["" if text is None else str(text)[:60] for text in texts]
    return [(int(row), f'column "{name}" {rule}, got "{text}"') for row, text in zip(rows, shown, strict=True)]


def _locate(
    block: Block,
    typed: TypedBlock,
    faults: dict[int, tuple[str, str]],
    findings: list[tuple[Finding, NDArray[np.int64]]],
    known: frozenset[tuple[str, str]],
) -> list[Reject]:
    """Return the rejects in file order, and give the findings their first lines."""
    wanted = [(finding, rows) for finding, rows in findings if (finding.column, finding.rule) not in known]
    if not faults and not typed.misfits and not wanted:
        return []
    check_encoding(block)
    content = block.content
    starts, stops, lines = locate_records(content, block.separator)
    misfits = {misfit.number - 1: misfit.reason for misfit in typed.misfits}
    fitting = np.setdiff1d(np.arange(len(starts)), list(misfits))  # the record of each row
    for finding, rows in wanted:
        shown = (lines[fitting[rows[:SHOWN]]] + block.line - 1).tolist()
        finding.places = [(block.source, line) for line in shown]
    reasons: dict[int, tuple[str | None, str]] = {place: (None, reason) for place, reason in misfits.items()}
    reasons |= {int(fitting[row]): fault for row, fault in faults.items()}
    return [
        Reject(
            block.source,
            int(lines[place]) + block.line - 1,
            column,
            reason,
            content[starts[place] : stops[place]].decode(),
        )
        for place, (column, reason) in sorted(reasons.items())
    ]


def build_rejected(rejects: Sequence[Reject]) -> pa.Table:
    """Return rejected rows as a table, their texts as they stand in the file."""
    names = REJECTED_SCHEMA.names
    return pa.table({name: [getattr(reject, name) for reject in rejects] for name in names}, REJECTED_SCHEMA)


def find_more_missing(rows: int, missing: int, name: str, column: Column) -> Finding | None:
    """Return a finding when many more values are missing than the contract knows.

    More than four standard errors above the known share, and a hundredth of the rows above it: not chance, and not
    next to nothing.
    """
    share = column.missing_share or 0.0
    if not rows or column.role == "ignored" or not column.nullable:
        return None
    noise = 4 * (max(share * (1 - share), 1 / rows) / rows) ** 0.5
    if missing / rows <= share + max(noise, 0.01):
        return None
    return Finding(name, f"values missing ({missing / rows:.1%} of the rows, expected {share:.1%})", missing)
