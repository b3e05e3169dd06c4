"""Rows against the contract: what fits goes on, typed; what does not is set aside with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_ingestion import casting, csv_reader
from data_ingestion.csv_reader import Reject, TextTable
from data_ingestion.handoff import PipelineError
from data_ingestion.params import suggest
from data_ingestion.schema import LOADER, Column, Contract, join_names

TARGET_MISSING = "target missing"


@dataclass(frozen=True)
class Loaded:
    """What a load found: the typed rows, the rows set aside in file order, and notes for the reader."""

    table: pa.Table
    rejects: list[Reject]
    notes: list[str]


def check_columns(names: Sequence[str], contract: Contract, source: str) -> list[str]:
    """Return a note on columns that the contract does not know.

    Raises
    ------
    PipelineError : a column that is used is missing; near names are offered
    """
    for name, column in contract.columns.items():
        if column.role != "ignored" and name not in names:
            others = [other for other in names if other not in contract.columns] or list(names)
            raise PipelineError(
                f'{source}: column "{name}" of data/schema.yaml is missing.{suggest(name, others)} Mend the header, or '
                f"run: python {LOADER} --infer"
            )
    extra = [name for name in names if name not in contract.columns]
    return [f"left out: {join_names(extra)}, unknown to data/schema.yaml"] if extra else []


def apply_contract(texts: TextTable, contract: Contract) -> Loaded:
    """Return the rows that fit the contract, typed, and those that do not.

    Raises
    ------
    PipelineError : a column that is used is missing
    """
    notes = check_columns(texts.table.column_names, contract, contract.source)
    rejects: dict[int, Reject] = {}  # by row, the first fault of each
    typed = {}
    for name, column in contract.columns.items():
        if name not in texts.table.column_names:
            typed[name] = pa.nulls(texts.table.num_rows, casting.arrow_type(column))
            continue
        values = texts.table[name].combine_chunks()
        cast = casting.cast_column(values, column, contract.missing_spellings(name))
        typed[name] = cast.values
        if column.role == "ignored":
            continue
        unexpected = casting.find_unexpected_values(cast.values, column)
        if _policy(column) == "warn" and pc.any(unexpected).as_py():
            notes.append(_describe_unexpected(name, column, int(pc.sum(unexpected).as_py())))
        for row, reason in _find_faults(name, column, values, cast, unexpected):
            rejects.setdefault(row, Reject(int(texts.records[row]), name, reason))
    kept = np.ones(texts.table.num_rows, dtype=bool)
    kept[list(rejects)] = False
    table = pa.table(typed).filter(pa.array(kept))
    return Loaded(table, sorted([*texts.rejects, *rejects.values()], key=lambda reject: reject.record), notes)


def _policy(column: Column) -> str:
    return column.unseen if column.kind == "category" else column.out_of_range


def _describe_unexpected(name: str, column: Column, count: int) -> str:
    what = "unknown categories" if column.kind == "category" else f"values outside {column.min} to {column.max}"
    return f'column "{name}": {count:,} {what} (--infer takes them up into data/schema.yaml)'


def _find_faults(
    name: str, column: Column, texts: pa.Array, cast: casting.CastColumn, unexpected: pa.Array
) -> list[tuple[int, str]]:
    """Return (row, reason) for every value that its column does not allow."""
    rules = [(cast.is_fault, f"expects {cast.expected}")]
    if _policy(column) == "refuse":
        allowed = "a known category" if column.kind == "category" else f"{column.min} to {column.max}"
        rules.append((unexpected, f"expects {allowed}"))
    if not column.nullable and column.role != "target":
        rules.append((cast.is_missing, "expects a value (nullable: false)"))
    faults = [
        (row, f'column "{name}" {rule}, got "{texts[row].as_py()[:60]}"')
        for mask, rule in rules
        for row in _true_rows(mask)
    ]
    if column.role == "target":
        faults += [(row, TARGET_MISSING) for row in _true_rows(cast.is_missing)]
    return faults


def _true_rows(mask: pa.Array) -> list[int]:
    rows: list[int] = np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist()
    return rows


def check_limits(
    loaded: Loaded,
    rejected: pa.Table,
    contract: Contract,
    max_rejected: float,
    max_missing_target: float,
    min_rows: int,
) -> None:
    """Raise when too many rows are at fault, too many targets are missing, or too few rows are left.

    Parameters
    ----------
    loaded : the outcome of the load
    rejected : the rejected rows, see `build_rejected`
    contract : names the source and the target
    max_rejected, max_missing_target : shares of all rows
    min_rows : how many usable rows there must be
    """
    source, target, total = contract.source, contract.target, loaded.table.num_rows + len(loaded.rejects)
    faults = rejected.filter(pc.not_equal(rejected["reason"], TARGET_MISSING))
    check_faults(faults, total, source, max_rejected)
    without_target = rejected.num_rows - faults.num_rows
    if without_target > max_missing_target * total:
        raise PipelineError(
            f'{source}: the target "{target}" is missing in {without_target:,} of {total:,} rows, more than '
            f"max_missing_target ({max_missing_target:.0%}) allows. Fill it, or raise --max-missing-target."
        )
    check_row_count(loaded.table.num_rows, source, min_rows)
    if pc.count_distinct(loaded.table[target]).as_py() < 2:
        raise PipelineError(
            f'{source}: the target "{target}" has the same value in every usable row, so there is nothing to predict. '
            "Name another: --target COLUMN"
        )


def check_faults(faults: pa.Table, total: int, source: str, max_rejected: float) -> None:
    """Raise when too many rows are at fault, naming the first five.

    Parameters
    ----------
    faults : the rows at fault, see `build_rejected`
    total : how many rows the source has
    source : its name
    max_rejected : the share that is tolerated
    """
    if faults.num_rows > max_rejected * total:
        shown = "; ".join(f"line {row['line']}: {row['reason']}" for row in faults.slice(0, 5).to_pylist())
        more = f" (+{faults.num_rows - 5} more)" if faults.num_rows > 5 else ""
        raise PipelineError(
            f"{source}: {faults.num_rows:,} of {total:,} rows are at fault, more than max_rejected "
            f"({max_rejected:.2%}) allows. {shown}{more}. Mend them, edit data/schema.yaml (kind, missing, nullable), "
            "or raise --max-rejected."
        )


def check_row_count(count: int, source: str, min_rows: int) -> None:
    """Raise when there are too few rows to learn anything from."""
    if count < min_rows:
        raise PipelineError(
            f"{source}: {count} usable rows, expected at least {min_rows}. Add rows, or lower --min-rows (5 at least)."
        )


def build_rejected(rejects: Sequence[Reject], content: bytes, separator: str) -> pa.Table:
    """Return the rejected rows: line (int64), column, reason, and the text as it stands in the file."""
    schema = pa.schema({"line": pa.int64(), "column": pa.string(), "reason": pa.string(), "text": pa.string()})
    if not rejects:
        return schema.empty_table()
    starts, stops, lines = csv_reader.locate_records(content, separator)
    rows: list[Mapping[str, object]] = []
    for reject in rejects:
        place = reject.record - 1
        text = content[starts[place] : stops[place]].decode()
        rows.append({"line": int(lines[place]), "column": reject.column, "reason": reject.reason, "text": text})
    return pa.Table.from_pylist(rows, schema=schema)
