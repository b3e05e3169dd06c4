"""What may be named as the source: packed files, tables, other encodings, several files; the same rows come of each."""

import bz2
import gzip
import io
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, STAGES, clean_environment
from small_runs import assert_refused

from data_ingestion import source_reader
from data_ingestion.handoff import PipelineError, Workspace
from data_ingestion.source_reader import SourceReader
from data_ingestion.sources import find_sources

TABLE = pa.table(
    {
        "number": [0.1, None, 1e-300],
        "integer": [1, 2, None],
        "flag": [True, None, False],
        "text": ['a "quoted", text', "two\nlines", "é"],
        "moment": [datetime(2024, 2, 29, 13, 45), None, datetime(1969, 12, 31)],
        "view": pa.array(["x", None, "z"], pa.string_view()),
        "code": pa.array(["u", "v", "u"]).dictionary_encode(),
    }
)


def write_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def write_arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def pack_zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def decode(tmp_path: Path) -> Callable[[bytes], tuple[bytes, list[str]]]:
    """The text of a file x of these bytes, and what is said of it."""

    def run(content: bytes) -> tuple[bytes, list[str]]:
        (tmp_path / "x").write_bytes(content)
        sources, _ = find_sources(str(tmp_path / "x"), Workspace(tmp_path))
        reader = SourceReader(sources[0])
        return b"".join(reader.iterate()), reader.notes

    return run


@pytest.mark.parametrize(("pack", "title"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (pack_zstd, "zstd")])
def test_packed_csv_is_unpacked_and_said_so(decode, pack: Callable[[bytes], bytes], title: str) -> None:
    text = "a,b\n1,ä\n".encode()
    assert decode(pack(text)) == (text, [f"unpacked with {title}"])
    noise = b"".join(f"{i * 7919 % 10007},{i}\n".encode() for i in range(5000))
    with pytest.raises(PipelineError, match=f"x is cut short or damaged: it cannot be unpacked with {title}"):
        decode(pack(b"a,b\n" + noise)[:-9])


def test_file_of_two_gzip_members_is_read_to_its_end(decode) -> None:
    assert decode(gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n"))[0] == b"a,b\n1,2\n"


def test_bomb_is_refused(decode) -> None:
    with pytest.raises(PipelineError, match="grows more than 200-fold"):
        decode(gzip.compress(bytes(50_000_000)))


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_table_keeps_every_value(decode, write: Callable[[pa.Table], bytes]) -> None:
    text, notes = decode(write(TABLE))
    assert notes == ["read as the table it is"]
    strings = dict.fromkeys(TABLE.column_names, pa.string())
    found = pa_csv.read_csv(
        pa.py_buffer(text),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=strings),
    ).to_pydict()
    assert [float(value or "nan") for value in found["number"]] == pytest.approx(
        [0.1, float("nan"), 1e-300], nan_ok=True
    )
    assert found["integer"] == ["1", "2", ""]
    assert found["flag"] == ["true", "", "false"]
    assert found["text"] == TABLE["text"].to_pylist()
    assert [value[:16] for value in found["moment"]] == ["2024-02-29 13:45", "", "1969-12-31 00:00"]
    assert found["view"] == ["x", "", "z"]
    assert found["code"] == ["u", "v", "u"]


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_table_cut_short_is_refused(decode, write: Callable[[pa.Table], bytes], share: float) -> None:
    content = write(TABLE)
    with pytest.raises(PipelineError, match="cut short or damaged"):
        decode(content[: int(share * len(content))])


def test_runs_of_one_value_are_read_as_their_values(decode) -> None:
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"])
    text, _ = decode(write_arrow(pa.table({"run": runs, "y": [1, 2, 3]})))
    assert text.decode().splitlines()[1:] == ['"a",1', '"a",2', '"b",3']


def test_cells_with_more_than_one_value_are_refused_by_name(decode) -> None:
    with pytest.raises(PipelineError, match='got lists, structs or bytes in "items", "owner"'):
        decode(write_parquet(pa.table({"items": [[1, 2]], "owner": [{"name": "a"}], "y": [1]})))


def test_index_of_a_pandas_table_is_refused(decode) -> None:
    with pytest.raises(PipelineError, match='holds the index of a pandas table, "__index_level_0__"'):
        decode(write_parquet(pa.table({"y": [1], "__index_level_0__": [7]})))


# Loads of other things than one plain file


def text_of(rows: range, header: str = "size,name,price") -> str:
    places = [["size", "name", "price"].index(name) for name in header.split(",")]
    cells = [[f"{i / 4}", ["rød", "grün", "blå"][i % 3], f"{i * 3 % 101}"] for i in rows]
    return "\n".join([header, *(",".join(row[place] for place in places) for row in cells)]) + "\n"


@pytest.fixture
def load(call_stage, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def run(source: object, *flags: object) -> "subprocess.CompletedProcess[str]":
        return call_stage("load", tmp_path / "root", "--source", source, "--target", "price", *flags)

    return run


def read_raw(tmp_path: Path) -> pa.Table:
    return pq.read_table(tmp_path / "root" / "data" / "raw.parquet")


def test_texts_of_a_table_that_are_read_as_numbers_are_named(load, tmp_path: Path) -> None:
    rows = range(300)
    columns = {
        "size": [i / 4 for i in rows],
        "code": [f"{10_000 + i % 7}" for i in rows],
        "price": [i % 97 for i in rows],
    }
    (tmp_path / "my.parquet").write_bytes(write_parquet(pa.table(columns)))
    done = load(tmp_path / "my.parquet")
    assert done.returncode == 0, done.stderr
    assert 'note: "code": texts in the table, read as numbers; to keep them as they are' in done.stdout


def write_months(folder: Path) -> None:
    folder.mkdir()
    (folder / "1.csv").write_text(text_of(range(50)), encoding="utf-8")
    (folder / "2.csv.gz").write_bytes(gzip.compress(text_of(range(50, 100), "price,size,name").encode()))
    (folder / "notes.md").write_text("no table", encoding="utf-8")


@pytest.mark.parametrize("form", ["folder", "pattern", "list"])
def test_several_files_are_read_as_one_table(load, tmp_path: Path, form: str) -> None:
    (tmp_path / "whole.csv").write_text(text_of(range(100)), encoding="utf-8")
    assert load(tmp_path / "whole.csv").returncode == 0
    expected = read_raw(tmp_path)
    folder = tmp_path / "months"
    write_months(folder)
    given = {"folder": folder, "pattern": folder / "*.csv*", "list": f"{folder}/1.csv, {folder}/2.csv.gz"}[form]
    done = load(given)
    assert (done.returncode, done.stderr) == (0, "")
    assert "100 rows, 3 columns" in done.stdout
    assert read_raw(tmp_path).equals(expected)


def test_reject_of_one_of_several_files_is_named_with_its_file(load, tmp_path: Path) -> None:
    folder = tmp_path / "months"
    write_months(folder)
    (folder / "3.csv").write_text(text_of(range(100, 150)) + "tall,grün,7\n", encoding="utf-8")
    done = load(folder)
    assert done.returncode == 0, done.stderr
    assert f'{folder}/3.csv line 52: column "size" expects a finite number' in done.stdout
    (row,) = pq.read_table(tmp_path / "root" / "data" / "rejected.parquet").to_pylist()
    assert (row["file"], row["line"], row["text"]) == (f"{folder}/3.csv", 52, "tall,grün,7")


def test_files_of_different_columns_are_refused(load, tmp_path: Path) -> None:
    folder = tmp_path / "months"
    write_months(folder)
    (folder / "3.csv").write_text(text_of(range(9)).replace("name", "colour"), encoding="utf-8")
    assert_refused(load(folder), '3.csv lacks "name" and adds "colour"', "Give all files one header")


def test_folder_without_tables_and_pattern_without_matches_are_refused(load, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(load(tmp_path / "empty"), "is a folder without CSV, Parquet or Arrow files", "--source")
    assert_refused(load(tmp_path / "empty" / "*.csv"), "no file matches", "--source")


@pytest.mark.parametrize("given", ["{0}/1.csv,{0}/1.csv", "{0}/*.csv,{0}/1.csv"])
def test_file_that_is_named_twice_is_refused(load, tmp_path: Path, given: str) -> None:
    write_months(tmp_path / "months")
    assert_refused(load(given.format(tmp_path / "months")), "1.csv is named twice")


def test_empty_parts_of_a_list_name_nothing(load, tmp_path: Path) -> None:
    write_months(tmp_path / "months")
    assert "50 rows" in load(f"{tmp_path}/months/1.csv, ,").stdout
    assert_refused(load(" , ", "--infer"), "names no file")


def test_pattern_leaves_out_hidden_files_and_what_the_stages_wrote(load, tmp_path: Path) -> None:
    data = tmp_path / "root" / "data"
    data.mkdir(parents=True)
    (data / "mine.csv").write_text(text_of(range(100)) + "tall,grün,7\n", encoding="utf-8")
    (data / "._mine.csv").write_bytes(b"\0\1")
    for _ in range(2):
        done = load(data / "*.csv")
        assert (done.returncode, done.stderr) == (0, "")
        assert "101 rows" in done.stdout


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0), b"\xef\xbb\xbf", b"\n\n"])
@pytest.mark.parametrize("flags", [[], ["--separator", ","]])
def test_source_without_text_is_said_to_be_empty(load, tmp_path: Path, content: bytes, flags: list[str]) -> None:
    (tmp_path / "my.csv").write_bytes(content)
    assert_refused(load(tmp_path / "my.csv", *flags), "is empty")


@pytest.mark.parametrize(("first", "title"), [(b"%PDF-1.7", "a PDF"), (b"\xff\xff\xff\xff\x10", "an Arrow stream")])
def test_file_of_another_sort_is_named(load, tmp_path: Path, first: bytes, title: str) -> None:
    (tmp_path / "my.csv").write_bytes(first + b"\0" * 100)
    assert_refused(load(tmp_path / "my.csv"), title)


def test_byte_order_mark_within_the_text_stays(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_reader, "PIECE_BYTES", 64)
    text = text_of(range(100)).replace("grün", "\ufeffgrün")
    (tmp_path / "my.csv").write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    assert load(tmp_path / "my.csv").returncode == 0
    names = read_raw(tmp_path)["name"].to_pylist()
    assert names == [["rød", "\ufeffgrün", "blå"][i % 3] for i in range(100)]


def test_pipe_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    flags = ["--root", tmp_path / "root", "--source", "-", "--target", "price"]
    done = subprocess.run(
        [sys.executable, REPOSITORY / STAGES["load"], *flags],
        input=text_of(range(100)).encode(),
        capture_output=True,
        env=clean_environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "standard input: 100 rows" in done.stdout.decode()
    assert read_raw(tmp_path).num_rows == 100
    assert not list((tmp_path / "root" / "data").glob(".source*"))


@pytest.mark.skipif(os.name == "nt", reason="a drive letter is no part of such an address")
def test_address_is_opened_by_pyarrow(load, tmp_path: Path) -> None:
    (tmp_path / "whole.csv").write_text(text_of(range(100)), encoding="utf-8")
    done = load(f"file://{tmp_path}/whole.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_raw(tmp_path).num_rows == 100
    assert_refused(load(f"file://{tmp_path}/absent.csv"), "absent.csv cannot be read", "name the file")
    refused = load("https://example.org/whole.csv", "--infer")
    assert_refused(
        refused, "is not an address that PyArrow opens", 'curl -o data/file.csv "https://example.org/whole.csv"'
    )


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16"])
def test_declared_encoding_is_read_and_kept_in_the_contract(load, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "plain.csv").write_text(text_of(range(100)), encoding="utf-8")
    load(tmp_path / "plain.csv")
    expected = read_raw(tmp_path)
    source = tmp_path / "other.csv"
    source.write_bytes(text_of(range(100)).encode(encoding))
    done = load(source, "--encoding", encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_raw(tmp_path).equals(expected)
    again = load(source)
    assert (again.returncode, again.stderr) == (0, "")
    assert f"encoding: {encoding}" in (tmp_path / "root" / "data" / "schema.yaml").read_text(encoding="utf-8")


def test_text_that_is_not_of_the_declared_encoding_is_refused(load, tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_bytes(text_of(range(100)).encode())
    assert_refused(load(tmp_path / "my.csv", "--encoding", "ascii"), "is not ascii", "Save it as UTF-8")
    assert_refused(load(tmp_path / "my.csv", "--encoding", "latin-nine"), 'unknown encoding "latin-nine"')


def test_byte_that_is_not_utf8_is_named_beyond_the_first_block(load, tmp_path: Path) -> None:
    content = io.BytesIO()
    content.write(text_of(range(400_000)).encode())
    place = content.tell() + 4
    content.write("1.0,gr\xfcn,5\n".encode("latin-1"))
    (tmp_path / "my.csv").write_bytes(content.getvalue())
    assert_refused(load(tmp_path / "my.csv"), f"line 400002: byte 0xfc at offset {place + 2} is not UTF-8", "latin-1")
