"""Feed mended rows back: those of a rejected.csv that now fit the contract join the rows of raw.parquet.

A rejected.csv begins with three columns that say which rejected row each of its rows was. Rows of any other file with
the contract's columns are added too.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, Workspace, sha256_json
from data_ingestion.load_writer import REJECT_COLUMNS, LoadWriter, format_record, reorder_record
from data_ingestion.loading import Outputs, Progress, Reading, read_sources
from data_ingestion.schema import Column, Contract, count_of
from data_ingestion.source_reader import SourceReader
from data_ingestion.typed_blocks import Layout
from data_ingestion.validation import Reject, raw_schema

Key = tuple[str, int]  # the file and line of a rejected row


@dataclass
class Mended:
    """What a file of mended rows holds.

    Parameters
    ----------
    known : the rows that wait to be mended
    header : the columns of the source, in the order in which the rejected rows are written
    fitting : those that fit now
    failing : those that still do not, as they are written now
    others : rows at fault that were not rejected before
    rows : how many rows were added
    again : how many had been fed back already
    """

    known: frozenset[Key]
    header: tuple[str, ...]
    fitting: set[Key] = field(default_factory=set)
    failing: dict[Key, Reject] = field(default_factory=dict)
    others: list[Reject] = field(default_factory=list)
    rows: int = 0
    again: int = 0


def append_rows(workspace: Workspace, reader: SourceReader, is_check: bool, progress: Progress) -> list[str]:
    """Add the rows of a file that fit the contract to raw.parquet, and return what there is to say.

    Raises
    ------
    PipelineError : there is no load yet that rows could join, or the file lacks columns
    """
    contract, _ = contracts.read_contract(workspace.schema)
    before, _ = files.read_parquet(workspace.rejected, contracts.LOADER)
    waiting = [Reject(**row) for row in before.to_pylist()]
    with files.open_parquet(workspace.raw, contracts.LOADER) as raw, files.commit() as commit:
        contracts.check_raw(workspace.raw, raw.schema.names, raw.lineage, contract)
        mended = Mended(
            frozenset((reject.file, reject.line) for reject in waiting), read_header(workspace.rejected_csv, contract)
        )
        with LoadWriter(commit, workspace, contract) as writer:
            schema = raw_schema(contract)
            for group in raw.iterate():
                writer.write_rows(group.cast(schema))
            reading = _read_mended(reader, contract, mended, writer, schema, progress)
            left = _list_left(waiting, mended)
            writer.rejects.write(left, mended.header, contract.separator)
            if mended.rows and not is_check:
                lineage = _describe_lineage(raw.lineage, reader, mended, left)
                writer.close_rows(contract, lineage)
    return _describe(reader, reading, mended, left, is_check)


def _read_mended(
    reader: SourceReader, contract: Contract, mended: Mended, writer: LoadWriter, schema: pa.Schema, progress: Progress
) -> Reading:
    """Read the file by the contract and write the rows that fit and were not fed back before."""
    marks = {name: Column(kind="text", role="ignored") for name in REJECT_COLUMNS}
    layout = Layout(contract.model_copy(update={"columns": {**marks, **contract.columns}}))

    def write_rows(table: pa.Table) -> None:
        keys = list(_read_keys(table))
        is_new = [key is None or (key in mended.known and key not in mended.fitting) for key in keys]
        mended.fitting |= {key for key in keys if key is not None and key in mended.known}
        mended.again += len(keys) - sum(is_new)
        rows = table.filter(pa.array(is_new, pa.bool_())).select(schema.names)
        mended.rows += rows.num_rows
        writer.write_rows(rows)

    def write_rejects(rejects: Sequence[Reject], header: Sequence[str], separator: str) -> None:
        for reject in rejects:
            fields = next(csv.reader(io.StringIO(reject.text, newline=""), delimiter=separator))
            if header[: len(REJECT_COLUMNS)] != REJECT_COLUMNS or not fields[1].strip().isdigit():
                mended.others.append(reject)
                continue
            text = format_record(fields[len(REJECT_COLUMNS) :], separator).decode().removesuffix("\n")
            text = reorder_record(text, header[len(REJECT_COLUMNS) :], mended.header, separator)
            key = (fields[0].strip(), int(fields[1]))
            mended.failing[key] = replace(reject, file=key[0], line=key[1], text=text)

    return read_sources([reader], contract.separator, layout, False, Outputs(write_rows, write_rejects), progress)


def read_header(rejected_csv: Path, contract: Contract) -> tuple[str, ...]:
    """Return the source's columns in their order, which rejected.csv knows as long as it is there."""
    try:
        with rejected_csv.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file, delimiter=contract.separator), [])
    except (OSError, ValueError, csv.Error):  # it is the user's to edit; the contract knows the columns too
        header = []
    own = tuple(name.strip() for name in header[len(REJECT_COLUMNS) :])
    return own if set(contract.columns) <= set(own) else tuple(contract.columns)


def _read_keys(table: pa.Table) -> list[Key | None]:
    """Return which rejected row each row was, None where the file does not say."""
    names, lines = (table[name].cast(pa.string()).to_pylist() for name in REJECT_COLUMNS[:2])
    return [
        (name, int(line)) if name and line and line.isdigit() else None for name, line in zip(names, lines, strict=True)
    ]


def _list_left(waiting: Sequence[Reject], mended: Mended) -> list[Reject]:
    """Return the rows that are still rejected, as they are written now."""
    left = []
    for reject in waiting:
        now = mended.failing.get((reject.file, reject.line), reject)
        if (reject.file, reject.line) not in mended.fitting:  # a count of fields would count the first three too
            left.append(replace(now, reason=now.reason if now.column else reject.reason))
    return left + mended.others


def _describe_lineage(made: Lineage, reader: SourceReader, mended: Mended, left: Sequence[Reject]) -> Lineage:
    """Return the lineage of the rows before with that of the rows added."""
    appended = sha256_json([made.inputs.get("appended", ""), reader.sha256])
    rows = {
        "in": made.rows["kept"] + mended.rows + len(left),
        "rejected": len(left),
        "kept": made.rows["kept"] + mended.rows,
        "appended": made.rows.get("appended", 0) + mended.rows,
    }
    return replace(made, inputs=made.inputs | {"appended": appended}, rows=rows)


def _describe(
    reader: SourceReader, reading: Reading, mended: Mended, left: Sequence[Reject], is_check: bool
) -> list[str]:
    lines = [
        f"{reader.source.name}: {count_of(mended.rows, 'row')} of {reading.tally.rows:,} fit data/schema.yaml and "
        + ("would join" if is_check else "joined")
        + " data/raw.parquet"
    ]
    lines += [f"  fed back before, so left out: {count_of(mended.again, 'row')}"] if mended.again else []
    lines += [f"  line {fault.line}: {fault.reason}" for fault in reading.tally.first_faults]
    lines.append(f"  {count_of(len(left), 'row')} left in data/rejected.csv")
    return lines
