"""Batches in every form: the same rows get the same answers, warnings and refusals, whatever they are written in."""

import csv
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_models import GOOD, write_small_model
from trained_models import train

from app.batches import csv_rows, formats
from app.batches.answering import Limits, answer_batch
from app.batches.formats import MEDIA_TYPES, TABLES, Format, Forms, choose_format
from app.errors import ApiError
from app.main import create_app
from app.metrics.counters import Metrics
from app.model_host import Served, load_served
from app.predictions import predict_one
from app.rows.reader import FeatureReader
from app.settings import Settings
from data_ingestion.casting import cast_column
from data_ingestion.schema import Column
from models.uncertainty import Intervals, PredictionSets

LIMITS = Limits(1_000, 2**20)
FEATURES = ["class", "floor area", "rooms", "has lift", "_built"]
TYPES = [pa.string(), pa.float64(), pa.int64(), pa.bool_(), pa.timestamp("us")]
SCHEMA = pa.schema(list(zip(FEATURES, TYPES, strict=True)))
BUILT = datetime(2001, 5, 17)
TYPED = dict(zip(FEATURES, ["b", 41.5, 2, True, BUILT], strict=True))
Row = Mapping[str, object]
STRICT = {"class": {"unseen": "refuse"}, "floor_area": {"out_of_range": "refuse"}, "built": {"out_of_range": "refuse"}}
MODELS: dict[str, dict[str, object]] = {  # what their manifests say beside what training says
    "regression": {"uncertainty": Intervals(confidence=0.8, edges=[], low=[-7.5], high=[2.0]).model_dump()},
    "classes": {"uncertainty": PredictionSets(confidence=0.8, min_probability=0.3).model_dump()},
    "pickled": {"scorer": {"compiled": False, "reason": "to be tried"}},
    "strict": {},
}


class Models(dict[str, Served]):
    """Models by name, in short where an example is printed."""

    def __repr__(self) -> str:
        return "models"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    """Models of several kinds."""
    folder = tmp_path_factory.mktemp("models")
    train(folder / "regression", "regression", "boosting")
    train(folder / "classes", "multiclass", "linear")
    train(folder / "strict", "regression", "linear", **STRICT)
    shutil.copytree(folder / "classes", folder / "pickled")
    for name, changes in MODELS.items():
        path = folder / name / "saved_model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return Models({name: load_served(folder / name) for name in MODELS})


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An API with the model of a regression."""
    folder = tmp_path_factory.mktemp("models")
    write_small_model(folder)
    app = create_app(Settings(model_dir=folder))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


# Rows in every form


def write(form: Format, rows: Sequence[Row]) -> bytes:
    """Rows of typed values as a body."""
    if form in ("parquet", "arrow"):
        return write_table(form, pa.Table.from_pylist(list(rows), SCHEMA))
    plain = [{n: v.isoformat() if isinstance(v, datetime) else v for n, v in row.items()} for row in rows]
    if form == "json":
        return json.dumps(plain).encode()
    if form == "ndjson":
        return b"\n".join(json.dumps(row).encode() for row in plain)
    return write_csv([FEATURES, *([spell(row[name]) for name in FEATURES] for row in plain)])


def spell(value: object) -> object:
    """A value of a row as it stands in a CSV."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "Yes", False: "no"}[value]
    return value


def write_csv(records: Sequence[Sequence[object]], separator: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(records)
    return text.getvalue().encode()


def write_table(form: str, table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    if form == "parquet":
        pq.write_table(table, sink, **options)
    else:
        with pa.ipc.new_stream(sink, table.schema, **options) as writer:
            writer.write_table(table, max_chunksize=7)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def ask(
    served: Served, content: bytes, body: Format, answer: Format = "ndjson", keep: bool = False, limits: Limits = LIMITS
) -> bytes:
    return b"".join(answer_batch(served, content, Forms(body, answer, keep), limits, Metrics()))


def read_lines(content: bytes) -> list[dict[str, object]]:
    """The lines of an NDJSON answer without their ids, which are new with every answer."""
    lines = [json.loads(line) for line in content.splitlines()]
    ids = [line.pop("prediction_id") for line in lines if "errors" not in line]
    assert len(set(ids)) == len(ids)
    assert all(len(text) == 32 for text in ids)
    return lines


def read_table(form: Format, content: bytes) -> list[dict[str, object]]:
    if form == "csv":
        return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    if form == "parquet":
        return pq.read_table(pa.BufferReader(content)).to_pylist()
    return pa.ipc.open_stream(content).read_all().to_pylist()


def check_refused(ask_it: Callable[[], object], status: int, *words: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask_it()
    said = " ".join([caught.value.message, *(f"{e.field} {e.rule} {e.message}" for e in caught.value.errors.items)])
    assert caught.value.status == status, said
    for word in words:
        assert word in said
    return caught.value


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "class": st.sampled_from(["a", "b", "z", 'é, "x"', "NA", None]),
            "floor area": st.none() | st.floats(-90, 90) | st.sampled_from([1e30, 2e30, 1e-300, 20.5, 78.5]),
            "rooms": st.none() | st.integers(-3, 9) | st.sampled_from([2**53 + 1, 10**18 - 1, 10**18]),
            "has lift": st.sampled_from([True, False, None]),
            "_built": st.none() | st.datetimes(datetime(1999, 1, 1), datetime(2003, 1, 1)) | st.just(BUILT),
        }
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.parametrize("name", ["regression", "classes", "strict"])
@given(rows=ROWS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_same_rows_get_the_same_answers_in_every_form(models: dict[str, Served], name: str, rows: list[Row]) -> None:
    served = models[name]
    expected = read_lines(ask(served, write("ndjson", rows), "ndjson"))
    assert [line["index"] for line in expected] == list(range(len(rows)))
    for form in ("json", "csv", "parquet", "arrow"):
        assert read_lines(ask(served, write(form, rows), form)) == expected, form
    good = [line for line in expected if "errors" not in line]
    for line, row in zip(expected, json.loads(write("json", rows)), strict=True):
        assert ask_alone(served, row) == {name: value for name, value in line.items() if name != "index"}
    if good:
        answer = json.loads(ask(served, write("json", rows), "json", "json"))
        for row in answer["predictions"]:
            del row["prediction_id"]
        assert [row | {"model_version": served.version} for row in answer["predictions"]] == good


def ask_alone(served: Served, row: object) -> dict[str, object]:
    """The answer to a single row in the words of a line of NDJSON, without its id."""
    try:
        answer = predict_one(served, row, Metrics())
    except ApiError as err:
        return {"errors": err.errors.to_dicts(), "model_version": served.version}
    del answer["prediction_id"]
    return json.loads(json.dumps(answer))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_tables_say_what_lines_say(models: dict[str, Served], name: str, form: Format) -> None:
    changes: list[Row] = [{}, {"rooms": None, "has lift": None}, {"class": "z", "floor area": 99.5}, {"_built": None}]
    rows = [TYPED | change for change in changes]
    lines = read_lines(ask(models[name], write("json", rows), "json", "ndjson"))
    found = read_table(form, ask(models[name], write("parquet", rows), "parquet", form))
    assert len(found) == len(rows)
    for line, row in zip(lines, found, strict=True):
        fault = "; ".join(f"{error['field']}: {error['message']}" for error in line.get("errors", []))  # type: ignore[attr-defined]
        assert (row["error"] or "") == fault
        assert (row["warnings"] or "") == "; ".join(line.get("warnings", []))  # type: ignore[call-overload]
        said = {"prediction": line.get("prediction"), "model_version": line.get("model_version")}
        said |= {f"probability_{name}": share for name, share in line.get("probabilities", {}).items()}  # type: ignore[attr-defined]
        said |= dict(zip(("low", "high"), line.get("interval", ()), strict=False))  # type: ignore[call-overload]
        if "prediction_set" in line:
            said["prediction_set"] = "; ".join(line["prediction_set"])  # type: ignore[arg-type]
        for name_of_column, value in said.items():
            written = row[name_of_column]
            assert (float(written) if isinstance(value, float) else written or None) == value  # type: ignore[arg-type]
        assert bool(row["prediction_id"]) == (not fault)


def test_answers_go_on_over_slices(models: dict[str, Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.batches.csv_rows.SLICE_ROWS", 12)
    monkeypatch.setattr("app.batches.csv_rows.CHUNK_ROWS", 4)
    monkeypatch.setattr("app.batches.json_rows.SLICE_ROWS", 10)
    monkeypatch.setattr("app.batches.json_rows.CHUNK_ROWS", 5)
    monkeypatch.setattr("app.batches.tables.SLICE_ROWS", 5)
    monkeypatch.setattr("app.batches.table_writers.GROUP_ROWS", 10)
    rows = [
        TYPED | {"floor area": 20.5 + n, "rooms": None if n == 17 else n % 7, "class": "abz"[n % 3]} for n in range(30)
    ]
    expected = read_lines(ask(models["regression"], write("ndjson", rows), "ndjson"))
    for form in ("json", "csv", "parquet", "arrow"):
        assert read_lines(ask(models["regression"], write(form, rows), form)) == expected, form  # type: ignore[arg-type]
    for form in TABLES:
        found = read_table(form, ask(models["regression"], write("csv", rows), "csv", form, keep=True))
        assert [float(row["floor area"]) for row in found] == [row["floor area"] for row in rows]
        assert [not row["prediction"] for row in found] == [n == 17 for n in range(30)]


# CSV


@pytest.mark.parametrize(
    "column",
    [
        Column(kind="number"),
        Column(kind="integer"),
        Column(kind="number", decimal=","),
        Column(kind="number", thousands=",", currency="$"),
        Column(kind="number", decimal=",", thousands="'"),
    ],
    ids=["plain", "integer", "comma", "money", "apostrophe"],
)
@given(
    texts=st.lists(
        st.text("0123456789.,'eE+-_$ na١\t", max_size=8) | st.floats().map(str) | st.integers().map(str),
        min_size=1,
        max_size=9,
    )
)
@example(texts=["1_0", "1"])
@example(texts=["١", "2"])
@example(texts=["0" * 19 + "1", "nan", "inf", "-Infinity", "1e400", "1e31", "NA", " 7 ", "0x1F"])
@example(texts=["$1,234.5", "1.234,5", "1'234,5", "-$ 3"])
@settings(max_examples=60, deadline=None)
def test_texts_are_the_numbers_that_the_loader_reads(column: Column, texts: list[str]) -> None:
    trimmed = pa.array([text.strip() for text in texts], pa.string())
    cast = cast_column(trimmed, column, ["", "NA"])
    served = read_feature(column, texts)
    assert served == [
        "missing" if missing else "fault" if fault else float(value)
        for value, missing, fault in zip(
            cast.values.to_pylist(), cast.is_missing.to_pylist(), cast.is_fault.to_pylist(), strict=True
        )
    ]


def read_feature(column: Column, texts: list[str]) -> list[object]:
    """What the API makes of the texts of a CSV: numbers, or that they are missing or at fault."""
    from app.batches.slices import Notes, list_values
    from app.rows.reader import describe_passing

    feature, notes = FeatureReader("x", column, frozenset(["", "NA"])), Notes()
    reader = csv_rows.build_reader(describe_passing("x", feature))
    reader.add(texts)
    values = list_values(feature, reader.finish(notes))
    faults = {row for mask, _ in notes.faults for row in mask.nonzero()[0].tolist()}
    return ["fault" if n in faults else "missing" if v is None else float(v) for n, v in enumerate(values)]


def test_csv_is_read_however_it_is_written(models: dict[str, Served]) -> None:
    served = models["regression"]
    record = ["b", "41.5", "2", "Yes", "17.05.2001"]
    expected = read_lines(ask(served, write("ndjson", [TYPED]), "ndjson"))
    plain = write_csv([FEATURES, record])
    for content in (
        plain,
        b"\xef\xbb\xbf" + plain,
        plain.decode().encode("utf-16"),
        plain.replace(b"\r\n", b"\n"),
        plain.replace(b"\r\n", b"\r"),
        b"\n\n" + plain + b"\n\n",
        write_csv([FEATURES, record], ";"),
        write_csv([FEATURES, record], "\t"),
        write_csv([[f" {name} " for name in FEATURES], [f"  {text}" for text in record]]),
        write_csv([["note", *FEATURES[::-1]], ['a "note",\nof two lines', *record[::-1]]]),
        write_csv([FEATURES, ["b", "41.5", "2.0", "YES", "2001-05-17"]]),
    ):
        assert read_lines(ask(served, content, "csv")) == expected, content


def test_record_of_another_width_is_refused_alone(models: dict[str, Served]) -> None:
    record = ["b", "41.5", "2", "Yes", ""]
    lines = read_lines(
        ask(models["regression"], write_csv([FEATURES, record, record[:4], [*record, "x"], record]), "csv")
    )
    fault = {"rule": "field_count", "message": "expects 5 fields"}
    assert ["errors" in line for line in lines] == [False, True, True, False]
    assert lines[1]["errors"] == lines[2]["errors"] == [fault]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n\xff\xfe,1\n", "at line 2: expects UTF-8"),
        (b"class,floor area,rooms,has lift,_built\n\xff,1,1,Yes,\n", "at line 2: expects UTF-8"),
        (b"class,floor area,rooms,has lift,_built\na\0,1,1,Yes,\n", "NUL"),
        (b'class,floor area,rooms,has lift,_built\n"a,1,1,Yes,\n', "each quote closed"),
        (b'class,floor area,rooms,has lift,_built\n"a"b,1,1,Yes,\n', "no valid CSV at line 2"),
        (b"class,floor area,rooms,has lift,_built\n" + b"a" * 140_000 + b",1,1,Yes,\n", "131,072 characters"),
        (b"class,floor area,rooms,has lift,_built\n", "The batch has 0 rows"),
        (b"class,floor area,rooms,has lift,_built\n" + b"a,1,1,Yes,\n" * 1_001, "1 to 1,000 rows"),
        (b"\n", "is required"),
        (b"\xff\xfea", "UTF-8 or UTF-16"),
    ],
)
def test_text_that_is_no_csv_of_rows_is_refused(models: dict[str, Served], content: bytes, words: str) -> None:
    check_refused(lambda: ask(models["regression"], content, "csv"), 422, words)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_that_are_wrong_are_named(models: dict[str, Served], form: Format) -> None:
    names = ["class", "floor_area", "rooms", "has lift", "_built", "more"]
    body = write_csv([names, ["b", "1", "2", "Yes", "", ""]])
    if form == "parquet":
        body = write_table("parquet", pa.table({name: ["b"] for name in names}))
    said = check_refused(
        lambda: ask(models["regression"], body, form), 422, 'floor area missing is required; is "floor_area" meant?'
    )
    assert [(e.field, e.rule) for e in said.errors.items] == [
        ("floor area", "missing"),
        ("floor_area", "unknown_field"),
        ("more", "unknown_field"),
    ]
    check_refused(
        lambda: ask(models["regression"], write_csv([[*FEATURES, "class"], ["b"] * 6]), "csv"), 422, "stands twice"
    )


def test_kept_columns_stand_in_front_as_they_came(models: dict[str, Served]) -> None:
    names = [*FEATURES, "note", "more"]
    records = [
        ["b", "41.5", "2", "Yes", "17.05.2001", "=cmd|' /C calc'!A0", 'x, "y"\nz'],
        ["", " 7", "", "No", "", "", "-1"],
    ]
    content = ask(models["regression"], write_csv([names, *records]), "csv", "csv", keep=True)
    header, *found = csv.reader(io.StringIO(content.decode(), newline=""))
    added = ["prediction", "low", "high", "prediction_id", "model_version", "warnings", "error"]
    assert header == [*names, *added]
    assert [record[:7] for record in found] == records
    assert found[1][7:] == ["", "", "", "", "0123456789ab", "", "rooms: is required"]
    table = read_table("parquet", ask(models["regression"], write_csv([names, *records]), "csv", "parquet", keep=True))
    assert [list(row.values())[:7] for row in table] == records
    taken = write_csv([[*FEATURES, "low"], [*records[0][:5], ""]])
    check_refused(lambda: ask(models["regression"], taken, "csv", "csv", keep=True), 422, "low reserved_column")


def test_kept_row_of_another_length_can_still_be_told(models: dict[str, Served]) -> None:
    records = [["row-1", *["b", "41.5", "2", "Yes", "17.05.2001"]], ["row-2", "b"], ["row-3", *"abcdefg"]]
    content = ask(models["regression"], write_csv([["name", *FEATURES], *records]), "csv", "csv", keep=True)
    found = list(csv.reader(io.StringIO(content.decode(), newline="")))[1:]
    assert [record[:6] for record in found[1:]] == [["row-2", "b", "", "", "", ""], ["row-3", *"abcde"]]
    assert [record[-1] for record in found] == ["", "expects 6 fields", "expects 6 fields"]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (pa.array([0], pa.timestamp("us", "Mars/Olympus")), "time zone"),
        (pa.array([2**62], pa.timestamp("s")), "years 1 to 9999"),
        (pa.array([-(2**62)], pa.timestamp("ms")), "years 1 to 9999"),
        (pa.array([-800_000], pa.date32()), "years 1 to 9999"),
    ],
)
@pytest.mark.parametrize("answer", ["csv", "parquet", "arrow"])
def test_moments_that_no_form_can_hold_are_refused_where_they_are_kept(
    models: dict[str, Served], values: pa.Array, word: str, answer: Format
) -> None:
    table = pa.Table.from_pylist([TYPED], SCHEMA).append_column("seen", values)
    check_refused(
        lambda: ask(models["regression"], write_table("arrow", table), "arrow", answer, keep=True), 422, "seen", word
    )


def test_earliest_and_latest_moments_are_kept(models: dict[str, Served]) -> None:
    moments = pa.array([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)], pa.timestamp("us"))
    table = pa.Table.from_pylist([TYPED, TYPED], SCHEMA).append_column("seen", moments)
    for answer in ("csv", "parquet", "arrow"):
        content = ask(models["regression"], write_table("arrow", table), "arrow", answer, keep=True)
        assert content
    assert b"9999-12-31 23:59:59" in ask(models["regression"], write_table("arrow", table), "arrow", "csv", keep=True)


# Parquet and Arrow


def test_types_of_other_widths_mean_the_same(models: dict[str, Served]) -> None:
    expected = read_lines(ask(models["regression"], write("ndjson", [TYPED] * 2), "ndjson"))
    others = {
        "class": [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())],
        "floor area": [pa.float32(), pa.float16(), pa.decimal128(9, 3)],
        "rooms": [pa.int8(), pa.uint64(), pa.float32()],
        "has lift": [pa.string()],
        "_built": [pa.date32(), pa.date64(), pa.timestamp("ns"), pa.timestamp("s", "Europe/Berlin"), pa.string()],
    }
    table = pa.Table.from_pylist([TYPED] * 2, SCHEMA)
    for name, kinds in others.items():
        for kind in kinds:
            values = (
                [{"has lift": "yes", "_built": "2001-05-17"}[name]] * 2
                if kind == pa.string()
                else table[name].to_pylist()
            )
            if name == "floor area" and pa.types.is_decimal(kind):
                column = table[name].cast(kind)
            else:
                column = (
                    pa.array(values, pa.string()).dictionary_encode().cast(kind)
                    if pa.types.is_dictionary(kind)
                    else pa.array(values, kind)
                )
            changed = table.set_column(table.column_names.index(name), name, column)
            assert read_lines(ask(models["regression"], write_table("arrow", changed), "arrow")) == expected, (
                name,
                kind,
            )


def test_columns_of_a_wrong_type_are_named(models: dict[str, Served]) -> None:
    table = pa.table({"class": [1], "floor area": ["1"], "rooms": [[1]], "has lift": [1], "_built": [1]})
    said = check_refused(
        lambda: ask(models["regression"], write_table("arrow", table), "arrow"), 422, "expects a column of integers"
    )
    assert [(e.field, e.rule) for e in said.errors.items] == [(name, "column_type") for name in FEATURES]
    empty = pa.table({name: pa.nulls(2) for name in FEATURES})
    lines = read_lines(ask(models["regression"], write_table("parquet", empty), "parquet"))
    assert [[error["rule"] for error in line["errors"]] for line in lines] == [["missing", "missing"]] * 2  # type: ignore[attr-defined]


def test_moments_beyond_the_calendar_are_refused(models: dict[str, Served]) -> None:
    table = pa.Table.from_pylist([TYPED] * 2, SCHEMA)
    column = pa.array([BUILT.timestamp(), 10**15], pa.float64()).cast(pa.int64()).cast(pa.timestamp("s"))
    lines = read_lines(ask(models["regression"], write_table("arrow", table.set_column(4, "_built", column)), "arrow"))
    assert [line["errors"][0]["rule"] for line in lines if "errors" in line] == ["datetime_format"]  # type: ignore[index]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_table_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    models: dict[str, Served], form: Format
) -> None:
    rows = pa.table({name: pa.array([TYPED[name]] * 200_000, kind) for name, kind in zip(FEATURES, TYPES, strict=True)})
    options = {"compression": "zstd", "use_dictionary": False} if form == "parquet" else {}
    if form == "arrow":
        options = {"options": pa.ipc.IpcWriteOptions(compression="zstd")}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema, **options) as writer:
            writer.write_table(rows)
        body = sink.getvalue().to_pybytes()
    else:
        body = write_table("parquet", rows, **options)
    limits = Limits(10**6, 2**20)
    assert len(body) < limits.max_bytes
    check_refused(lambda: ask(models["regression"], body, form, limits=limits), 413, "1,048,576 bytes")
    check_refused(lambda: ask(models["regression"], body, form, limits=Limits(1_000, 2**30)), 422, "200,000 rows")
    assert ask(models["regression"], body, form, "csv", limits=Limits(10**6, 2**30)).count(b"\n") == 200_001


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_damaged_table_is_refused_or_answered(models: dict[str, Served], form: Format) -> None:
    table = pa.Table.from_pylist([TYPED | {"class": f"text {n}", "rooms": n % 5} for n in range(40)], SCHEMA)
    options = {} if form == "parquet" else {"options": pa.ipc.IpcWriteOptions(compression="lz4")}
    body, draw, answered = write_table(form, table, **options), random.Random(0), 0
    for number in range(300):
        content = bytearray(body)
        if number % 3:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        else:
            del content[draw.randrange(len(content)) :]
        with suppress(ApiError):
            ask(models["regression"], bytes(content), form, draw.choice(["csv", "arrow"]))
            answered += 1
    assert answered < 200
    check_refused(lambda: ask(models["regression"], b"a,b\n1,2\n", form), 422, "cannot be read as")


# NDJSON


def test_lines_are_answered_each_by_itself(models: dict[str, Served]) -> None:
    good = json.dumps(GOOD).encode()
    body = b"\xef\xbb\xbf" + b"\n".join(
        [good, b"", b"{", b"[1]", b'{"rooms": NaN, "has lift": true}', good, b"\xff", b"  "]
    )
    lines = read_lines(ask(models["regression"], body, "ndjson"))
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4, 5]
    rules = [[error["rule"] for error in line.get("errors", [])] for line in lines]  # type: ignore[attr-defined]
    assert rules == [[], ["bad_json"], ["object_type"], ["finite_number"], [], ["bad_json"]]
    assert lines[0] | {"index": 4} == lines[4]
    odd = b'{"rooms": true, "has lift": 1, "class": [], "x": 1, "floor area": 1e999}'
    found = read_lines(ask(models["regression"], odd + b"\n" + good, "ndjson"))[0]["errors"]
    assert [(e["field"], e["rule"]) for e in found] == [  # type: ignore[attr-defined]
        ("x", "unknown_field"),
        ("class", "string_type"),
        ("floor area", "finite_number"),
        ("rooms", "integer_type"),
        ("has lift", "boolean_type"),
    ]


@given(
    values=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*FEATURES, "x"]), inner, max_size=5)
            ),
            max_leaves=8,
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_read_as_row_by_row(models: dict[str, Served], values: list[object]) -> None:
    served = models["strict"]
    content = json.dumps(values).encode()
    for value, line in zip(json.loads(content), read_lines(ask(served, content, "json", "ndjson")), strict=True):
        alone = ask_alone(served, value)
        assert sort_errors(line) == sort_errors(alone)
        assert (line.get("prediction"), line.get("warnings")) == (alone.get("prediction"), alone.get("warnings"))


def sort_errors(answer: dict[str, object]) -> list[str]:
    return sorted(map(str, answer.get("errors", [])))  # type: ignore[call-overload]


# Over HTTP


@pytest.mark.parametrize("body", MEDIA_TYPES)
@pytest.mark.parametrize("answer", MEDIA_TYPES)
def test_body_is_answered_in_the_form_that_is_accepted(client: TestClient, body: Format, answer: Format) -> None:
    headers = {"Content-Type": MEDIA_TYPES[body], "Accept": f"text/html, {MEDIA_TYPES[answer]};q=0.5"}
    response = client.post("/predict/batch", content=write(body, [TYPED]), headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, MEDIA_TYPES[answer])
    own = client.post("/predict/batch", content=write(body, [TYPED]), headers={"Content-Type": MEDIA_TYPES[body]})
    assert own.headers["content-type"] == MEDIA_TYPES[body]


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Content-Type": "text/csv", "Accept": "image/png"}, "", 406),
        ({"Content-Type": "text/csv", "Accept": "text/*;q=0, application/json;q=0, */*;q=0"}, "", 406),
        ({"Content-Type": "application/zip"}, "", 415),
        ({"Content-Type": "text/csv", "Content-Encoding": "gzip"}, "", 415),
        ({"Content-Type": "text/csv"}, "?keep=1", 422),
        ({"Content-Type": "text/csv", "Accept": "application/json"}, "?keep=true", 422),
        ({"Content-Type": "application/vnd.apache.parquet"}, "", 422),
        ({"Content-Type": "application/vnd.apache.arrow.stream"}, "", 422),
    ],
)
def test_request_that_cannot_be_answered_is_refused(
    client: TestClient, headers: dict[str, str], query: str, status: int
) -> None:
    response = client.post(f"/predict/batch{query}", content=write("csv", [TYPED]), headers=headers)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert len(response.content) < 4096
    assert "41.5" not in response.text


def test_form_that_needs_a_library_is_refused_where_it_is_not(
    models: dict[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    check_refused(lambda: ask(models["regression"], b"x", "arrow"), 415, "has no PyArrow")
    check_refused(
        lambda: ask(models["regression"], write("csv", [TYPED]), "csv", "parquet"), 406, "Use JSON, NDJSON or CSV"
    )
    assert read_lines(ask(models["regression"], write("csv", [TYPED]), "csv"))
    assert choose_format(b"application/vnd.apache.parquet, text/csv;q=0.5", "json") == "csv"
