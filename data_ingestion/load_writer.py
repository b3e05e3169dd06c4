"""What the loader writes while it reads: the rows that fit, the rows set aside; in the end contract and profile."""

import csv
import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

import pyarrow as pa

from data_ingestion import schema as contracts
from data_ingestion.handoff import Commit, Lineage, Workspace, naming_errors
from data_ingestion.loading import Outputs, Reading
from data_ingestion.schema import Contract
from data_ingestion.validation import REJECTED_SCHEMA, Reject, build_rejected, raw_schema

REJECT_COLUMNS = ("rejected_file", "rejected_line", "rejected_reason")  # before the file's own, in rejected.csv


class LoadWriter:
    """The outputs of one reading. Nothing is seen of them before the commit ends, nor unless they are closed.

    Parameters
    ----------
    commit : the group of files that appear together
    workspace : where they stand
    contract : what the rows are read by
    """

    def __init__(self, commit: Commit, workspace: Workspace, contract: Contract) -> None:
        self._commit, self._workspace, self._files = commit, workspace, ExitStack()
        self._is_closed = False
        self._raw = self._files.enter_context(commit.open_parquet(workspace.raw, raw_schema(contract)))
        self.rejects = RejectWriter(commit, workspace)
        self.outputs = Outputs(self.write_rows, self.rejects.write)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rejects.__exit__(kind, error, trace)
        self._files.__exit__(kind, error, trace)
        if not self._is_closed:
            self._commit.discard()

    def write_rows(self, table: pa.Table) -> None:
        """Add rows to raw.parquet."""
        with naming_errors(self._workspace.raw):
            self._raw.write(table)

    def close(
        self,
        contract: Contract,
        inferred: dict[str, str],
        current: Contract | None,
        reading: Reading,
        lineage: Lineage,
    ) -> None:
        """Write rejected.parquet, profile, schema.yaml unless it stands as it is, and last raw.parquet, which vouches
        for them all.

        Parameters
        ----------
        contract : the contract the rows fit
        inferred : checksums of its columns as they were inferred
        current : what stands in schema.yaml now
        reading : what was found
        lineage : what it was made from
        """
        tally = reading.tally
        rows = {"in": tally.rows, "rejected": tally.rejected, "kept": tally.kept}
        lineage = replace(lineage, inputs=lineage.inputs | {"schema": contract.fingerprint()}, rows=rows)
        outputs = self.rejects.close(lineage, contract)
        profile = reading.profile.to_dict(contract.columns) | {"source": contract.source}
        outputs["profile.json"] = self._commit.write_json(self._workspace.profile, profile)
        if contract != current:
            comments = {name: reading.profile.comment(name, column) for name, column in contract.columns.items()}
            text = contracts.format_contract(contract, inferred, comments)
            self._commit.write_bytes(self._workspace.schema, text)
        self._close_raw(replace(lineage, outputs=outputs))

    def close_rows(self, contract: Contract, lineage: Lineage) -> None:
        """Complete the rows alone; contract and profile stand as they are, and `lineage` vouches for them."""
        self._close_raw(replace(lineage, outputs=lineage.outputs | self.rejects.close(lineage, contract)))

    def _close_raw(self, lineage: Lineage) -> None:
        with naming_errors(self._workspace.raw):
            self._raw.close(lineage)
            self._files.close()
        self._is_closed = True


class RejectWriter:
    """The rows set aside: rejected.parquet, and rejected.csv to mend."""

    def __init__(self, commit: Commit, workspace: Workspace) -> None:
        self._workspace, self._files = workspace, ExitStack()
        self._parquet = self._files.enter_context(commit.open_parquet(workspace.rejected, REJECTED_SCHEMA))
        self._csv = self._files.enter_context(commit.open(workspace.rejected_csv))
        self._header: tuple[str, ...] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def write(self, rejects: Sequence[Reject], header: Sequence[str], separator: str) -> None:
        """Add rows.

        Parameters
        ----------
        rejects : in file order
        header : the columns of their file; those of the first file are those of the CSV
        separator : what stands between fields
        """
        with naming_errors(self._workspace.rejected):
            self._parquet.write(build_rejected(rejects))
        with naming_errors(self._workspace.rejected_csv):
            if self._header is None:
                self._header = tuple(header)
                self._csv.write(format_record([*REJECT_COLUMNS, *header], separator))
            for reject in rejects:
                text = reorder_record(reject.text, header, self._header, separator)
                start = format_record([reject.file, reject.line, reject.reason], separator)
                self._csv.write(start.removesuffix(b"\n") + separator.encode() + text.encode() + b"\n")

    def close(self, lineage: Lineage, contract: Contract) -> dict[str, str]:
        """Complete both files and return the sha256 of rejected.parquet by its name."""
        with naming_errors(self._workspace.rejected_csv):
            if self._header is None:
                self._csv.write(format_record([*REJECT_COLUMNS, *contract.columns], contract.separator))
        with naming_errors(self._workspace.rejected):
            digest = self._parquet.close(lineage)
            self._files.close()
        return {"rejected.parquet": digest}


def format_record(values: Sequence[object], separator: str) -> bytes:
    """Return one line of a CSV."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def reorder_record(text: str, header: Sequence[str], wanted: Sequence[str], separator: str) -> str:
    """Return a record with its fields in the order of another header; one of another length stays as it is."""
    if tuple(header) == tuple(wanted):
        return text
    fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    if len(fields) != len(header) or set(header) != set(wanted):
        return text
    by_name = dict(zip(header, fields, strict=True))
    return format_record([by_name[name] for name in wanted], separator).decode().removesuffix("\n")
