"""What the loader writes while it reads: the rows that fit, the rows set aside; in the end contract and profile."""

from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

import pyarrow as pa

from data_ingestion import schema as contracts
from data_ingestion.handoff import Commit, Lineage, Workspace, naming_errors
from data_ingestion.loading import Outputs, Reading
from data_ingestion.rejects import RejectWriter
from data_ingestion.schema import Contract
from data_ingestion.validation import raw_schema


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
        made_by = {"schema": contract.fingerprint(), "order": contract.hash_order()}
        lineage = replace(lineage, inputs=lineage.inputs | made_by, rows=rows)
        outputs = self.rejects.close(lineage, contract)
        profile = reading.profile.to_dict(contract.columns) | {"source": contract.source}
        outputs["profile.json"] = self._commit.write_json(self._workspace.profile, profile)
        if current is None or contract != current or contract.hash_order() != current.hash_order():
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
