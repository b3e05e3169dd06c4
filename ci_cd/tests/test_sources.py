"""Source files other than a plain CSV: the same table comes out of each, and a damaged one is refused."""

import bz2
import gzip
from collections.abc import Callable
from datetime import datetime

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from data_ingestion.handoff import PipelineError
from data_ingestion.sources import decode_source

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


@pytest.mark.parametrize(("pack", "title"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (pack_zstd, "zstd")])
def test_packed_csv_is_unpacked_and_said_so(pack: Callable[[bytes], bytes], title: str) -> None:
    text = "a,b\n1,ä\n".encode()
    assert decode_source(pack(text), "x.csv") == (text, [f"unpacked with {title}"])
    with pytest.raises(PipelineError, match=f"x.csv is cut short or damaged: it cannot be unpacked with {title}"):
        decode_source(pack(text * 1000)[:-9], "x.csv")


def test_file_of_two_gzip_members_is_read_to_its_end() -> None:
    assert decode_source(gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n"), "x.csv.gz")[0] == b"a,b\n1,2\n"


def test_bomb_is_refused() -> None:
    with pytest.raises(PipelineError, match="grows more than 200-fold"):
        decode_source(gzip.compress(bytes(50_000_000)), "x.csv.gz")


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_table_keeps_every_value(write: Callable[[pa.Table], bytes]) -> None:
    text, notes = decode_source(write(TABLE), "x")
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
def test_table_cut_short_is_refused(write: Callable[[pa.Table], bytes], share: float) -> None:
    content = write(TABLE)
    with pytest.raises(PipelineError, match="cut short or damaged"):
        decode_source(content[: int(share * len(content))], "x")


def test_cells_with_more_than_one_value_are_refused_by_name() -> None:
    with pytest.raises(PipelineError, match='got lists, structs or bytes in "items", "owner"'):
        decode_source(write_parquet(pa.table({"items": [[1, 2]], "owner": [{"name": "a"}], "y": [1]})), "x")


def test_index_of_a_pandas_table_is_refused() -> None:
    with pytest.raises(PipelineError, match='holds the index of a pandas table, "__index_level_0__"'):
        decode_source(write_parquet(pa.table({"y": [1], "__index_level_0__": [7]})), "x")
