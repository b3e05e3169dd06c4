"""The short ways of the API beside the long ones: prepared limits, msgspec, answers one by one and in slices."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_models import GOOD, build_contract, write_small_model

from app.batches import json_rows
from app.batches.answering import Limits, answer_batch
from app.batches.formats import BOTH_JSON
from app.errors import ApiError, ErrorList
from app.front import direct
from app.metrics.counters import Metrics
from app.model_host import Served, load_served
from app.predictions import predict_one
from app.rows.bodies import _parse_thoroughly, parse_json
from app.rows.reader import RowReader
from app.rows.values import RefusedValueError
from models.uncertainty import Intervals, PredictionSets

READER = RowReader(build_contract())
STRICT = RowReader(build_contract(**{"class": {"unseen": "refuse"}, "floor_area": {"out_of_range": "refuse"}}))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 90),
    st.integers(),
    st.floats(-10, 90),
    st.floats(),
    st.sampled_from(["a", "b", " b", "c", "z", "NA", "yes", "No", "17.05.2001", "2001-05-17", "1999-12-31", "1.5", ""]),
    st.text(max_size=4),
    st.sampled_from([20.5, 78.5, math.nextafter(78.5, 100), 1, 5, 6, 2**53, 2**53 + 1, -0.0, math.nan, math.inf]),
)


@pytest.mark.parametrize("reader", [READER, STRICT], ids=["warns", "refuses"])
@given(row=st.dictionaries(st.sampled_from([*READER.features, "row id", "unknown"]), VALUES))
def test_row_is_read_as_each_of_its_values_is(reader: RowReader, row: dict[str, object]) -> None:
    expected, warnings, faults = {}, [], ["unknown_field"] * ("unknown" in row)
    for name, feature in reader.features.items():
        try:
            expected[name], warning = feature.read(row.get(name))
            warnings += [warning] if warning else []
        except RefusedValueError as err:
            faults.append(err.rule)
    errors = ErrorList()
    found = reader.read(row, errors)
    assert [item.rule for item in errors.items] == faults
    assert repr(found) == repr(None if faults else (expected, warnings))  # 1 is not 1.0 here, nor -0.0 the same as 0.0


def ask(parse: Callable[[bytes], object], content: bytes) -> tuple[str, object]:
    try:
        return "read", parse(content)
    except ApiError as err:
        return "refused", err.message


JSON_TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@given(content=JSON_TEXTS | st.binary(max_size=12) | st.from_regex(rb"-?\d*\.?\d*([eE][+-]?\d*)?", fullmatch=True))
@example(b'{"a": 1, "a": 2}')
@example(b"1e400")
@example(b"[NaN, -Infinity]")
@example(b'"\\ud800"')
@example(b"9" * 399)
@example(b"9" * 5000)
@example(b"[" * 100_000)
def test_json_is_read_as_the_standard_library_reads_it(content: bytes) -> None:
    assert repr(ask(parse_json, content)) == repr(ask(_parse_thoroughly, content))


@given(
    edges=st.lists(st.floats(-1e6, 1e6), unique=True, max_size=4).map(sorted),
    y_pred=arrays(float, st.integers(1, 5), elements=st.floats(-1e7, 1e7)),
    data=st.data(),
)
def test_one_interval_is_that_of_many(edges: list[float], y_pred: np.ndarray, data: st.DataObject) -> None:
    widths = st.lists(st.floats(-1e3, 1e3), min_size=len(edges) + 1, max_size=len(edges) + 1)
    intervals = Intervals(confidence=0.9, edges=edges, low=data.draw(widths), high=data.draw(widths))
    values = [*y_pred.tolist(), *edges]
    assert [list(intervals.bound(value)) for value in values] == intervals.bounds(values).tolist()


@given(
    shares=arrays(float, st.tuples(st.integers(1, 4), st.integers(2, 4)), elements=st.floats(0, 1)),
    least=st.floats(0, 1),
)
def test_one_prediction_set_is_that_of_many(shares: np.ndarray, least: float) -> None:
    sets = PredictionSets(confidence=0.9, min_probability=least)
    expected = [np.flatnonzero(row).tolist() for row in sets.contains(shares)]
    assert [sets.find_members(row) for row in shares.tolist()] == expected


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_rows, "SLICE_ROWS", 8)
    monkeypatch.setattr(json_rows, "CHUNK_ROWS", 4)
    return 8


def ask_batch(served: Served, rows: list[object]) -> Iterator[bytes]:
    return answer_batch(served, json.dumps(rows).encode(), BOTH_JSON, Limits(10_000, 2**20), Metrics())


def test_batch_of_several_slices_answers_every_row_as_alone(tmp_path: Path, small_slices: int) -> None:
    sets = PredictionSets(confidence=0.8, min_probability=0.3).model_dump()
    write_small_model(tmp_path, task="multiclass", uncertainty=sets)
    served = load_served(tmp_path)
    rows: list[object] = [GOOD | {"floor area": 20.5 + 3 * place} for place in range(2 * small_slices + 3)]
    rows[small_slices] = {"floor area": "wide"}
    parts = list(ask_batch(served, rows))
    answer = json.loads(b"".join(parts))
    assert len(parts) == 4
    assert [row["index"] for row in answer["predictions"]] == [i for i in range(len(rows)) if i != small_slices]
    assert {error["index"] for error in answer["errors"]} == {small_slices}
    for row in answer["predictions"]:
        alone = predict_one(served, rows[row["index"]], Metrics())
        assert row["probabilities"] == pytest.approx(alone["probabilities"], rel=1e-9)
        assert row["prediction_set"] == alone["prediction_set"]
        assert row["prediction_set"] == [name for name, share in row["probabilities"].items() if share >= 0.3]


def test_interval_is_around_the_answer(tmp_path: Path) -> None:
    write_small_model(tmp_path, uncertainty=Intervals(confidence=0.8, edges=[], low=[-7.5], high=[2.0]).model_dump())
    answer = predict_one(load_served(tmp_path), GOOD, Metrics())
    assert answer["interval"] == (answer["prediction"] - 7.5, answer["prediction"] + 2.0)


@pytest.mark.parametrize("n_bad", [0, 9])
@pytest.mark.usefixtures("small_slices")
def test_answer_in_chunks_is_the_answer_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bad: int) -> None:
    write_small_model(tmp_path)
    served = load_served(tmp_path)
    rows: list[object] = [{}] * n_bad + [GOOD] * 9
    whole, is_last = direct.take_chunk(ask_batch(served, rows))
    assert is_last
    monkeypatch.setattr(direct, "CHUNK_BYTES", 1)
    parts = ask_batch(served, rows)
    chunks = []
    while not (chunk := direct.take_chunk(parts))[1]:
        chunks.append(chunk[0])
    assert len(chunks) >= 2
    assert strip_ids(json.loads(b"".join(chunks))) == strip_ids(json.loads(whole))


def strip_ids(answer: dict[str, object]) -> dict[str, object]:
    return answer | {"predictions": [row | {"prediction_id": ""} for row in answer["predictions"]]}


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "größe", "plain"])
def test_batch_is_read_whatever_the_names_of_columns(name: str) -> None:
    quick = json_rows.build_quick((name,), (name, 'x"y'))
    rows = [{name: 1.5}, {name: 2, 'x"y': 3}, {}]
    items = json_rows.cut_array(json.dumps(rows).encode())
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    for chunk in (json_rows.read_items(quick, items), json_rows.read_lines(quick, lines)):
        values = list(chunk[0]) if isinstance(chunk, tuple) else [row.get(name) for row in chunk]
        assert values == [1.5, 2, None]
