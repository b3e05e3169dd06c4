"""Mended rows are fed back: each once, none lost, none doubled, whatever the file in which they were mended."""

import csv
import io
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_runs import assert_refused, snapshot

from data_ingestion import csv_reader
from data_ingestion.rejects import read_fields

Call = Callable[..., "subprocess.CompletedProcess[str]"]
HEADER = ["size", "color", "some", "price"]


def format_rows(header: Sequence[str], rows: Sequence[Sequence[object]], separator: str = ",") -> str:
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if separator != "," else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator="\n", delimiter=separator, quoting=quoting).writerows([header, *rows])
    return text.getvalue()


def good_rows(n_rows: int = 300) -> list[list[object]]:
    return [[i / 4, ["red", "blue"][i % 2], "" if i % 50 == 0 else i % 7, i * 3 % 101] for i in range(n_rows)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def rejected(call_stage, root: Path, tmp_path: Path) -> Path:
    """A load of 300 rows, of which three are set aside; the file in which to mend them."""
    rows = good_rows()
    rows[4][0] = "tall"
    rows[8] = rows[8][:2]
    rows[19][3] = ""
    (tmp_path / "my.csv").write_text(format_rows(HEADER, rows), encoding="utf-8")
    done = call_stage("load", root, "--source", tmp_path / "my.csv", "--target", "price")
    assert done.returncode == 0, done.stderr
    return root / "data" / "rejected.csv"


def read(root: Path, name: str) -> list[dict[str, object]]:
    return pq.read_table(root / "data" / f"{name}.parquet").to_pylist()


def mend(path: Path, *exchanges: tuple[str, str], to: Path | None = None) -> Path:
    text = path.read_bytes().decode()
    for old, new in exchanges:
        assert old in text
        text = text.replace(old, new)
    (to or path).write_bytes(text.encode())
    return to or path


def test_mended_rows_join_and_the_others_stay(call_stage: Call, root: Path, rejected: Path) -> None:
    head = rejected.read_text(encoding="utf-8").splitlines()[0]
    assert head == "rejected_id,rejected_file,rejected_line,rejected_reason,size,color,some,price"
    mend(rejected, (",tall,", ",1.5,"), ("4.75,blue,5,", "4.75,blue,5,11"))
    done = call_stage("load", root, "--append", rejected)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 rows of 3 fit" in done.stdout
    raw = read(root, "raw")
    assert len(raw) == 299
    assert [row["size"] for row in raw[-2:]] == [1.5, 4.75]
    (left,) = read(root, "rejected")
    assert (left["line"], left["reason"], left["text"]) == (10, "expected 4 fields, got 2", "2.0,red")
    assert len(rejected.read_text(encoding="utf-8").splitlines()) == 2
    assert call_stage("preprocess", root).returncode == 0


def test_mended_rows_are_read_as_written_whatever_the_encoding_of_their_source(
    call_stage: Call, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = good_rows()
    rows[4] = ["tall", "café", 4, 11]
    rows[8] = [2.0, "café", 4, 11]
    (tmp_path / "my.csv").write_text(format_rows(HEADER, rows), encoding="latin-1")
    monkeypatch.setenv("PIPELINE_ENCODING", "latin-1")
    assert call_stage("load", root, "--source", tmp_path / "my.csv", "--target", "price").returncode == 0
    rejected = mend(root / "data" / "rejected.csv", (",tall,", ",1.5,"))
    done = call_stage("load", root, "--append", rejected)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(row["color"] == "café" for row in read(root, "raw")) == 2


@pytest.mark.parametrize("size", [60, csv_reader.BLOCK_BYTES])
def test_row_is_fed_back_once(
    call_stage: Call, root: Path, tmp_path: Path, rejected: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Not twice in one file, wherever that is cut, and not with a second command."""
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", size)
    mended = mend(rejected, (",tall,", ",1.5,"), to=tmp_path / "mended.csv")
    lines = mended.read_text(encoding="utf-8").splitlines()
    mended.write_text("\n".join([lines[0], lines[1], lines[1], *lines[2:]]) + "\n", encoding="utf-8")
    first = call_stage("load", root, "--append", mended).stdout
    assert "1 row of 4 fit" in first
    assert "fed back before, so left out: 1 row" in first
    before = snapshot(root)
    again = call_stage("load", root, "--append", mended).stdout
    assert "0 rows of 4 fit" in again
    assert "fed back before, so left out: 2 rows" in again
    assert again.endswith("nothing was written\n")
    assert {name: content for name, content in snapshot(root).items() if name in before} == before


def test_rows_of_the_same_place_in_files_of_the_same_name_are_told_apart(
    call_stage: Call, root: Path, tmp_path: Path, rejected: Path
) -> None:
    """A file that is replaced every day."""
    daily = tmp_path / "daily.csv"
    for row in (["mon", "red", 1, 5], ["tue", "blue", 2, 6]):
        daily.write_text(format_rows(HEADER, [row]), encoding="utf-8")
        call_stage("load", root, "--append", daily)
    assert len(read(root, "rejected")) == 5
    mend(rejected, (",mon,", ",1.5,"), ("4.75,blue,5,", "4.75,blue,5,11"))
    assert "2 rows of 5 fit" in call_stage("load", root, "--append", rejected).stdout
    texts = [row["text"] for row in read(root, "rejected")]
    assert texts == ["tall,red,4,12", "2.0,red", "tue,blue,2,6"]


def test_rejects_of_another_order_and_separator_are_written_in_those_of_the_source(
    call_stage: Call, root: Path, tmp_path: Path, rejected: Path
) -> None:
    rows = [[7, 1, "x\ry", "bad"], [8, 2, "red", 3]]
    (tmp_path / "more.csv").write_bytes(format_rows(["price", "some", "color", "size"], rows, ";").encode())
    done = call_stage("load", root, "--append", tmp_path / "more.csv", "--separator", ";")
    assert "1 row of 2 fit" in done.stdout
    records = list(csv.reader(io.StringIO(rejected.read_bytes().decode(), newline="")))
    assert records[-1][4:] == ["bad", "x\ry", "1", "7"]
    mend(rejected, (",bad,", ",2.5,"))
    assert "1 row of 4 fit" in call_stage("load", root, "--append", rejected).stdout
    assert read(root, "raw")[-1] == {"size": 2.5, "color": "x\ry", "some": 1, "price": 7}


def test_row_that_is_added_to_rejected_csv_by_hand_waits_like_the_others(
    call_stage: Call, root: Path, rejected: Path
) -> None:
    with rejected.open("a", encoding="utf-8") as file:
        file.write(",,,,9,red,1,bad\n,,,,9,red,1,5\nabc\n")
    assert "1 row of 6 fit" in call_stage("load", root, "--append", rejected).stdout
    mend(rejected, (",9,red,1,bad", ",9,red,1,6"))
    assert "1 row of 5 fit" in call_stage("load", root, "--append", rejected).stdout
    assert [row["price"] for row in read(root, "raw")[-2:]] == [5, 6]


def test_field_longer_than_the_csv_module_takes_is_kept(call_stage: Call, root: Path, rejected: Path) -> None:
    mend(rejected, (",tall,red", f",tall,{'r' * 200_000}"))
    assert call_stage("load", root, "--append", rejected).returncode == 0
    assert max(len(str(row["text"])) for row in read(root, "rejected")) > 200_000


def test_load_knows_of_rows_that_were_fed_back(call_stage: Call, root: Path, tmp_path: Path, rejected: Path) -> None:
    call_stage("load", root, "--append", mend(rejected, (",tall,", ",1.5,")))
    flags = ["--source", tmp_path / "my.csv", "--target", "price"]
    assert "is up to date" in call_stage("load", root, *flags, "--if-changed").stdout
    said = call_stage("load", root, *flags).stdout
    (copy,) = (root / "data").glob("appended-*.csv")
    assert f"1 row fed back with --append before must be fed back again: --append data/{copy.name}" in said
    assert "1 row of 3 fit" in call_stage("load", root, "--append", copy).stdout


def test_rows_of_another_file_may_be_added(call_stage: Call, root: Path, tmp_path: Path, rejected: Path) -> None:
    (tmp_path / "more.csv").write_text(format_rows(HEADER, good_rows(10)), encoding="utf-8")
    assert "10 rows of 10 fit" in call_stage("load", root, "--append", tmp_path / "more.csv").stdout
    assert pq.read_metadata(root / "data" / "raw.parquet").num_rows == 307


def test_rejected_rows_are_no_source(call_stage: Call, root: Path, rejected: Path) -> None:
    done = call_stage("load", root, "--source", rejected, "--target", "price", "--infer")
    assert_refused(done, "holds rejected rows", "--append data/rejected.csv")


def test_long_field_is_read_and_leaves_other_readers_their_limit() -> None:
    before = csv.field_size_limit()
    assert read_fields("1," + "a" * 200_000, ",") == ["1", "a" * 200_000]
    assert csv.field_size_limit() == before
