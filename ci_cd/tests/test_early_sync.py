"""What the disk refuses while a hand-off is being written is told, though the last sync may succeed."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from data_ingestion import handoff, sealed_parquet
from data_ingestion.handoff import Lineage, PipelineError


def test_failed_sync_is_told_when_it_came_before_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail_once)
    monkeypatch.setattr(sealed_parquet, "_SYNCED_BYTES", 1)
    table = pa.table({"number": list(range(sealed_parquet.ROWS_PER_GROUP + 1))})
    with pytest.raises(PipelineError, match="cannot write"), handoff.commit() as commit:
        commit.write_parquet(tmp_path / "rows.parquet", table, Lineage("test", {}, {}, ""))
    assert not list(tmp_path.iterdir())
