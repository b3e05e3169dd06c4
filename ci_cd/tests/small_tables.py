"""What the tests of splits and of streaming share: contracts from names and kinds, and tables cut into row groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from data_ingestion.schema import Contract, parse_contract


def make_contract(target: str = "y", task: str = "regression", **columns: str | dict[str, object]) -> Contract:
    """A contract from names and kinds; y is a number."""
    entries = {n: c if isinstance(c, dict) else {"kind": c} for n, c in columns.items()}
    entries.setdefault("y", {"kind": "number"})
    entries[target] = entries[target] | {"role": "target"}
    return parse_contract({"source": "my.csv", "target": target, "task": task, "columns": entries}, "test")


@dataclass(frozen=True)
class TableGroups:
    """A table in row groups of `size` rows."""

    table: pa.Table
    size: int = 1_000_000

    @property
    def num_rows(self) -> int:
        return self.table.num_rows

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    @property
    def num_groups(self) -> int:
        return -(-self.num_rows // self.size)

    def read_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        rows = self.table.slice(number * self.size, self.size)
        return rows if columns is None else rows.select(list(columns))
