"""Feed mended rows back: those of a rejected.csv that now fit the contract join the rows of raw.parquet.

A rejected.csv begins with columns that say which rejected row each of its rows was. Rows of any other file with the
contract's columns are added too.
"""

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import pyarrow as pa

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, Workspace, sha256_json
from data_ingestion.load_writer import LoadWriter
from data_ingestion.loading import Outputs, Progress, Reading, read_sources
from data_ingestion.rejects import format_record, order_fields, read_fields
from data_ingestion.schema import Column, Contract, count_of
from data_ingestion.source_reader import SourceReader
from data_ingestion.tally import MAX_NAMED
from data_ingestion.typed_blocks import Layout
from data_ingestion.validation import MARKS, Reject, raw_schema


@dataclass
class Mended:
    """What a file of mended rows holds.

    Parameters
    ----------
    waiting : the rows that wait to be mended, by id
    header : the columns of the source, in the order in which the rejected rows are written
    separator : what stands between their fields
    fitting : the ids of those that fit now
    failing : those that were changed and still do not fit, by id, as they are written now
    others : rows at fault that were not rejected before
    rows : how many rows were added
    again : how many had been fed back already
    """

    waiting: Mapping[str, Reject]
    header: tuple[str, ...]
    separator: str
    fitting: set[str] = field(default_factory=set)
    failing: dict[str, Reject] = field(default_factory=dict)
    others: list[Reject] = field(default_factory=list)
    rows: int = 0
    again: int = 0

    @property
    def is_news(self) -> bool:
        """Whether anything is to be written."""
        return bool(self.rows or self.failing or self.others)

    def take_row(self, id: str | None) -> bool:
        """Return whether a row that fits is to be added: it was not rejected before, or waits and comes once."""
        is_new = not id or (id in self.waiting and id not in self.fitting)
        if id and is_new:
            self.fitting.add(id)
        self.again += not is_new
        self.rows += is_new
        return is_new

    def take_reject(self, reject: Reject, header: Sequence[str], separator: str) -> None:
        """Take in a row that does not fit: one that waits, as it is written now, or another."""
        fields = read_fields(reject.text, separator)
        id = ""
        if tuple(header[: len(MARKS)]) == MARKS:
            id, fields, header = (fields[0].strip() if fields else ""), fields[len(MARKS) :], header[len(MARKS) :]
        ordered = order_fields(fields, header, self.header)
        text = format_record(ordered, self.separator).decode().removesuffix("\n")
        if id not in self.waiting:
            self.others.append(replace(reject, text=text))
        elif read_fields(self.waiting[id].text, self.separator) != ordered:
            self.failing[id] = replace(reject, id=id, text=text)


def append_rows(
    workspace: Workspace, reader: SourceReader, separator: str | None, is_check: bool, progress: Progress
) -> tuple[bool, list[str]]:
    """Add the rows of a file that fit to raw.parquet; return whether anything was written, and what there is to say.

    Raises
    ------
    PipelineError : there is no load yet that rows could join, or the file lacks columns
    """
    contract, _ = contracts.read_contract(workspace.schema)
    before, _ = files.read_parquet(workspace.rejected, contracts.LOADER)
    waiting = [Reject(**row) for row in before.to_pylist()]
    with files.open_parquet(workspace.raw, contracts.LOADER) as raw, files.commit() as commit:
        contracts.check_raw(workspace.raw, raw.schema.names, raw.lineage, contract)
        header = read_header(workspace.rejected_csv, contract)
        mended = Mended({reject.id: reject for reject in waiting}, header, contract.separator)
        with LoadWriter(commit, workspace, contract) as writer:
            schema = raw_schema(contract)
            for group in raw.iterate():
                writer.write_rows(group.cast(schema))
            reading = _read_mended(reader, separator or contract.separator, contract, mended, writer, progress)
            left = _list_left(waiting, mended)
            writer.rejects.write(left, mended.header, contract.separator)
            is_written = mended.is_news and not is_check
            if is_written and mended.fitting:  # rejected.csv is written anew, and a load begins without these rows
                commit.write(_name_copy(workspace, reader), lambda file: copy_file(reader.source.path, file))
            if is_written:
                writer.close_rows(contract, _describe_lineage(raw.lineage, reader, mended, left))
    return is_written, _describe(reader, reading, mended, left, is_check)


def _read_mended(
    reader: SourceReader,
    separator: str,
    contract: Contract,
    mended: Mended,
    writer: LoadWriter,
    progress: Progress,
) -> Reading:
    """Read the file by the contract and write the rows that fit and were not fed back before."""
    marks = {name: Column(kind="text", role="ignored") for name in MARKS}
    layout = Layout(contract.model_copy(update={"columns": {**marks, **contract.columns}}))

    def write_rows(table: pa.Table) -> None:
        ids = table[MARKS[0]].cast(pa.string()).to_pylist()
        is_new = pa.array([mended.take_row(id) for id in ids], pa.bool_())
        writer.write_rows(table.filter(is_new).select(list(contract.columns)))

    def write_rejects(rejects: Sequence[Reject], header: Sequence[str], separator: str) -> None:
        for reject in rejects:
            mended.take_reject(reject, header, separator)

    return read_sources([reader], separator, layout, False, Outputs(write_rows, write_rejects), progress)


def is_rejected_csv(path: Path) -> bool:
    """Return whether a file is a rejected.csv in UTF-8, as it was written; a spreadsheet may save it otherwise."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(len(MARKS[0])) == MARKS[0] and all(True for _ in file)
    except (OSError, UnicodeDecodeError):  # it is read, and refused, with the encoding that was named
        return False


def read_header(rejected_csv: Path, contract: Contract) -> tuple[str, ...]:
    """Return the source's columns in their order, which rejected.csv knows as long as it is there."""
    try:
        with rejected_csv.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file, delimiter=contract.separator), [])
    except (OSError, ValueError, csv.Error):  # it is the user's to edit; the contract knows the columns too
        header = []
    own = tuple(name.strip() for name in header[len(MARKS) :])
    return own if set(contract.columns) <= set(own) else tuple(contract.columns)


def _name_copy(workspace: Workspace, reader: SourceReader) -> Path:
    return workspace.root / "data" / f"{files.APPENDED}{reader.sha256[:12]}.csv"


def copy_file(path: Path, file: IO[bytes]) -> None:
    """Copy a file's content."""
    with path.open("rb") as source:
        shutil.copyfileobj(source, file)


def _list_left(waiting: Sequence[Reject], mended: Mended) -> list[Reject]:
    """Return the rows that are still rejected, as they are written now."""
    left = []
    for reject in waiting:
        if reject.id not in mended.fitting:
            now = mended.failing.get(reject.id, reject)
            # A count of fields would count the marks too. Where the row stands does not change.
            reason = now.reason if now.column else reject.reason
            left.append(replace(now, file=reject.file, line=reject.line, reason=reason))
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
    lines += [f"  {fault}" for fault in reading.tally.describe_faults(reader.source.name)[:MAX_NAMED]]
    findings = [finding.describe(reader.source.name) for finding in reading.findings]
    lines += [f"  note: {note}" for note in [*reading.notes, *findings]]
    lines.append(f"  {count_of(len(left), 'row')} left in data/rejected.csv")
    return lines
