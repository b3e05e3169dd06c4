"""The rows that are set aside: rejected.parquet, which knows them, and rejected.csv, in which they are mended.

A row keeps its id for as long as it waits: it says which row a mended one was, whatever has become of its text.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from data_ingestion.csv_reader import MAX_RECORD_BYTES
from data_ingestion.handoff import Commit, Lineage, Workspace, naming_errors
from data_ingestion.schema import Contract
from data_ingestion.validation import MARKS, REJECTED_SCHEMA, Reject, build_rejected


class RejectWriter:
    """Both files, while they are written.

    Parameters
    ----------
    commit : the group of files that appear together
    workspace : where they stand
    """

    def __init__(self, commit: Commit, workspace: Workspace) -> None:
        self._workspace, self._files = workspace, ExitStack()
        self._parquet = self._files.enter_context(commit.open_parquet(workspace.rejected, REJECTED_SCHEMA))
        self._csv = self._files.enter_context(commit.open(workspace.rejected_csv))
        self._header: tuple[str, ...] | None = None
        self._separator = ","
        self._seen: Counter[str] = Counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def write(self, rejects: Sequence[Reject], header: Sequence[str], separator: str) -> None:
        """Add rows; the header and separator of the first are those of the CSV.

        Parameters
        ----------
        rejects : in file order, their texts as they stand in their file
        header : the columns of that file
        separator : what stands between its fields
        """
        rejects = [reject if reject.id else replace(reject, id=self._name(reject)) for reject in rejects]
        with naming_errors(self._workspace.rejected):
            self._parquet.write(build_rejected(rejects))
        with naming_errors(self._workspace.rejected_csv):
            if self._header is None:
                self._start(header, separator)
            for reject in rejects:
                fields = order_fields(read_fields(reject.text, separator), header, self._header or ())
                marks = [reject.id, reject.file, reject.line, reject.reason]
                self._csv.write(format_record([*marks, *fields], self._separator))

    def _start(self, header: Sequence[str], separator: str) -> None:
        self._header, self._separator = tuple(header), separator
        self._csv.write(format_record([*MARKS, *header], separator))

    def _name(self, reject: Reject) -> str:
        """Return an id: of what stands where; the same again is counted."""
        plain = hashlib.sha256(f"{reject.file}\0{reject.line}\0{reject.text}".encode()).hexdigest()[:12]
        self._seen[plain] += 1
        return plain if self._seen[plain] == 1 else f"{plain}-{self._seen[plain]}"

    def close(self, lineage: Lineage, contract: Contract) -> dict[str, str]:
        """Complete both files and return the sha256 of rejected.parquet by its name."""
        with naming_errors(self._workspace.rejected_csv):
            if self._header is None:
                self._start(list(contract.columns), contract.separator)
        with naming_errors(self._workspace.rejected):
            digest = self._parquet.close(lineage)
            self._files.close()
        return {"rejected.parquet": digest}


def read_fields(text: str, separator: str) -> list[str]:
    """Return the fields of one record."""
    limit = csv.field_size_limit(MAX_RECORD_BYTES)  # the module's own is 128 kB, and counts for all who use it
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    finally:
        csv.field_size_limit(limit)


def order_fields(fields: list[str], header: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the fields in the order of another header; those of a record of another length stay as they are."""
    if tuple(header) == tuple(wanted) or len(fields) != len(header) or not set(wanted) <= set(header):
        return fields
    by_name = dict(zip(header, fields, strict=True))
    return [by_name[name] for name in wanted]


def format_record(values: Sequence[object], separator: str) -> bytes:
    """Return one line of a CSV; what holds an end of a line of any sort stands in quotes."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n").encode() + b"\n"
