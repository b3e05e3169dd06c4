"""How rows are stored in a Parquet hand-off: small, in few pages, and the same when they come back."""

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_ingestion.lineage import Lineage
from data_ingestion.sealed_parquet import ParquetSink, ParquetSource

ROWS = 60_000


def write_table(path: Path, table: pa.Table) -> None:
    """Write a sealed file, as the loader does, in tables of a thousand rows."""
    with path.open("w+b") as file:
        sink = ParquetSink(file, table.schema)
        for start in range(0, table.num_rows, 1_000):
            sink.write(table.slice(start, 1_000))
        sink.close(Lineage("test", {}, {}, ""))


def test_values_that_repeat_have_dictionaries_and_others_are_packed(tmp_path: Path) -> None:
    first = datetime(2024, 1, 1)
    table = pa.table(
        {
            "grade": [row % 7 for row in range(ROWS)],
            "number": list(range(ROWS)),
            "day": [first + timedelta(days=row // 5_000) for row in range(ROWS)],
            "moment": [first + timedelta(seconds=row) for row in range(ROWS)],
            "price": [row % 90 / 10 for row in range(ROWS)],
            "weight": [None if row % 50 == 0 else row / 7 for row in range(ROWS)],
        }
    )
    write_table(tmp_path / "rows.parquet", table)
    group = pq.ParquetFile(tmp_path / "rows.parquet").metadata.row_group(0)
    found = {group.column(place).path_in_schema: set(group.column(place).encodings) for place in range(6)}
    assert all("RLE_DICTIONARY" in found[name] for name in ("grade", "day", "price"))
    assert all("DELTA_BINARY_PACKED" in found[name] for name in ("number", "moment"))
    assert "BYTE_STREAM_SPLIT" in found["weight"]
    source = ParquetSource(tmp_path / "rows.parquet", "this test")
    assert source.read().equals(table)
    source.close()
