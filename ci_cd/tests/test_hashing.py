"""The sha256 of a source is that of its content, however much of it was hashed before anybody read it."""

import hashlib
from pathlib import Path

import pytest

from data_ingestion import hashing
from data_ingestion.hashing import HashingReader, HeadStart

CONTENT = bytes(range(256)) * 40


@pytest.mark.parametrize("ahead", [0, 1, 1000, 5000, len(CONTENT)])
def test_digest_is_that_of_the_file_when_a_part_was_hashed_ahead(tmp_path: Path, ahead: int) -> None:
    (tmp_path / "head").write_bytes(CONTENT[:ahead])  # stands for a file whose head start ended there
    head_start = HeadStart(tmp_path / "head")
    head_start.finish()
    (tmp_path / "whole").write_bytes(CONTENT)
    with (tmp_path / "whole").open("rb") as file:
        reader = HashingReader(file, len(CONTENT), None, head_start)
        assert b"".join(iter(lambda: reader.read(999), b"")) == CONTENT
    assert reader.hexdigest() == hashlib.sha256(CONTENT).hexdigest()


def test_head_start_hashes_the_whole_file_when_nobody_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_PIECE_BYTES", 100)
    (tmp_path / "file").write_bytes(CONTENT)
    assert HeadStart(tmp_path / "file").finish() == hashlib.sha256(CONTENT).hexdigest()
