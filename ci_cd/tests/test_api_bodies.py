"""Bodies that are not as they should be: a refusal in the one form, at most 4 kB, never an echo, never a 5xx."""

import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import GOOD, write_small_model

from app.main import create_app
from app.settings import Settings

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", params=["direct", "framework"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An API that answers predictions in front of the framework, and one that answers them by its routes."""
    folder = tmp_path_factory.mktemp("models")
    write_small_model(folder)
    app = create_app(Settings(model_dir=folder))
    with pytest.MonkeyPatch.context() as patch, TestClient(app, raise_server_exceptions=False) as client:
        if request.param == "framework":
            patch.setattr("app.front.direct.DirectPredictions.PATHS", ())
        yield client


def replace(field: str, text: str) -> bytes:
    """Return a good row in which one field has the JSON text given."""
    return json.dumps(GOOD | {field: "@"}).replace('"@"', text).encode()


def check_refusal(answer, status: int) -> dict:
    """Check the form of a refusal and return it."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.content) <= 4096
    content = answer.json()
    assert set(content) == {"code", "message", "errors", "errors_total", "model_version"}
    assert content["model_version"] == "0123456789ab"
    assert len(content["errors"]) <= min(20, content["errors_total"])
    return content


@pytest.mark.parametrize(
    ("field", "text", "rule"),
    [
        ("floor area", "NaN", "finite_number"),
        ("floor area", "Infinity", "finite_number"),
        ("floor area", "-Infinity", "finite_number"),
        ("floor area", "1e400", "finite_number"),
        ("rooms", "NaN", "finite_number"),
        ("rooms", "1e400", "finite_number"),
        ("class", '"\\ud800"', "string_unicode"),
        ("_built", '"2001-05-17\\udfff00:00"', "string_unicode"),
        ("floor area", '"41.5"', "number_type"),
        ("floor area", "true", "number_type"),
        ("floor area", "[41.5]", "number_type"),
        ("floor area", '"NA"', "number_type"),
        ("rooms", '"2"', "integer_type"),
        ("rooms", "false", "integer_type"),
        ("rooms", "2.5", "integer_type"),
        ("rooms", "null", "missing"),
        ("has lift", '"NA"', "missing"),
        ("has lift", "1", "boolean_type"),
        ("has lift", '"maybe"', "boolean_type"),
        ("class", "7", "string_type"),
        ("class", "true", "string_type"),
        ("class", "{}", "string_type"),
        ("floor area", "9" * 60, "integer_size"),
        ("floor area", "9" * 5000, "finite_number"),
        ("floor area", "-9007199254740993", "integer_size"),
        ("floor area", "1e31", "number_size"),
        ("rooms", "9" * 60, "integer_size"),
        ("rooms", "1e18", "integer_size"),
        ("class", '"a\\u0000b"', "string_nul"),
        ("_built", '"30.02.2001"', "datetime_format"),
        ("_built", '"0001-01-01T00:00:00+14:00"', "datetime_format"),
        ("_built", "990057600", "datetime_format"),
    ],
)
def test_value_of_the_wrong_kind_is_named_by_field_and_rule(
    client: TestClient, field: str, text: str, rule: str
) -> None:
    refusal = check_refusal(client.post("/predict", content=replace(field, text), headers=JSON), 422)
    assert [(error["field"], error["rule"]) for error in refusal["errors"]] == [(field, rule)]
    batch = client.post("/predict/batch", content=b"[" + replace(field, text) + b"]", headers=JSON)
    assert check_refusal(batch, 422)["errors"][0]["index"] == 0


@pytest.mark.parametrize("number", ["9007199254740992", "1e30", "-0.0", "1e-400", "5"])
def test_number_that_a_model_can_take_is_taken(client: TestClient, number: str) -> None:
    assert client.post("/predict", content=replace("floor area", number), headers=JSON).status_code == 200


def test_unknown_name_is_refused_beside_the_other_faults(client: TestClient) -> None:
    body = b'{"rooms": "x", "Floor area": 1, "\\ud800\\u0007": 2}'
    errors = check_refusal(client.post("/predict", content=body, headers=JSON), 422)["errors"]
    assert [(error["field"], error["rule"]) for error in errors] == [
        ("Floor area", "unknown_field"),
        ("??", "unknown_field"),
        ("rooms", "integer_type"),
        ("has lift", "missing"),
    ]


def test_last_of_equal_names_counts(client: TestClient) -> None:
    body = json.dumps(GOOD)[:-1] + ', "rooms": 9}'
    assert client.post("/predict", content=body, headers=JSON).json()["warnings"] == ["rooms: outside the range 1 to 5"]


@pytest.mark.parametrize(
    ("path", "body", "rule"),
    [
        ("/predict", b"", "empty_body"),
        ("/predict", b"null", "object_type"),
        ("/predict", b"[]", "object_type"),
        ("/predict", b'"secret"', "object_type"),
        ("/predict/batch", b"", "empty_body"),
        ("/predict/batch", b"null", "array_type"),
        ("/predict/batch", b"{}", "array_type"),
        ("/predict/batch", b"[]", "array_length"),
        ("/predict/batch", b"[" + b"1," * 100_000 + b"1]", "array_length"),
    ],
)
def test_body_of_the_wrong_shape_is_refused(client: TestClient, path: str, body: bytes, rule: str) -> None:
    refusal = check_refusal(client.post(path, content=body, headers=JSON), 422)
    assert [error["rule"] for error in refusal["errors"]] == [rule]
    assert rule != "array_length" or "1 to 100,000 rows" in refusal["message"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    "body",
    [b'{"rooms": 2', b"{'rooms': 2}", b"[1,]", b'{"rooms": "\xff\xfe"}', b"\xff", b"[" * 100_000, b'{"a":' * 100_000],
)
def test_body_that_is_no_json_is_400(client: TestClient, path: str, body: bytes) -> None:
    assert check_refusal(client.post(path, content=body, headers=JSON), 400)["code"] == "bad_json"


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", ";"])
def test_content_that_is_not_said_to_be_json_is_415(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/predict", content=json.dumps(GOOD).encode(), headers=headers)
    check_refusal(answer, 415)
    assert "floor" not in answer.text


def test_compressed_body_is_415(client: TestClient) -> None:
    check_refusal(client.post("/predict", content=b"\x1f\x8b", headers=JSON | {"Content-Encoding": "gzip"}), 415)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_in_any_unicode_encoding_is_taken(client: TestClient, encoding: str) -> None:
    answer = client.post("/predict", content=json.dumps(GOOD).encode(encoding), headers=JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
def test_every_json_content_type_is_taken(client: TestClient, kind: str) -> None:
    assert client.post("/predict", content=json.dumps(GOOD).encode(), headers={"Content-Type": kind}).is_success


@pytest.mark.parametrize("chunked", [False, True])
def test_body_that_is_too_large_is_413(client: TestClient, chunked: bool) -> None:
    content = (b" " * 2**20 for _ in range(5)) if chunked else b" " * (4 * 2**20 + 1)
    refusal = check_refusal(client.post("/predict", content=content, headers=JSON), 413)
    assert "1,048,576 bytes" in refusal["message"]


def test_a_thousand_bad_rows_are_counted_and_the_first_named(client: TestClient) -> None:
    rows = [{"rooms": "x", "has lift": "x", "class": "y" * 500}] * 1000
    refusal = check_refusal(client.post("/predict/batch", json=rows), 422)
    assert refusal["errors_total"] == 2000
    assert len(refusal["errors"]) == 20


def test_long_unknown_names_do_not_make_a_long_refusal(client: TestClient) -> None:
    row = {"\U0001f600" * 500 + str(number): 1 for number in range(100)}
    refusal = check_refusal(client.post("/predict", json=row), 422)
    assert refusal["errors_total"] == 102
    assert refusal["errors"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("OPTIONS", "/predict", 405),
        ("POST", "/health", 405),
        ("POST", "//predict", 404),
        ("POST", "/predict/", 404),
        ("GET", "/saved_model.pkl", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
    ],
)
def test_wrong_path_or_method_is_refused_in_the_one_form(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, f"http://testserver{path}")
    check_refusal(answer, status)
    assert status != 405 or answer.headers["allow"]


def test_head_is_refused_like_any_other_method(client: TestClient) -> None:
    assert client.head("/predict").status_code == 405


def test_a_bug_is_500_without_its_traceback(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("app.front.direct.predict_one", fail)
    answer = client.post("/predict", json=GOOD)
    assert check_refusal(answer, 500)["code"] == "internal_error"
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "row",
    [
        {"class": 31337.31337},
        {"floor area": "secret-31337"},
        {"rooms": "secret-31337"},
        {"has lift": "secret-31337"},
        {"_built": "secret-31337"},
    ],
)
def test_refusal_never_repeats_the_value(client: TestClient, row: dict) -> None:
    answer = client.post("/predict", json=GOOD | row)
    check_refusal(answer, 422)
    assert "31337" not in answer.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
rows = st.dictionaries(st.sampled_from([*GOOD, "price", "other"]) | st.text(max_size=5), json_values, max_size=8)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(body=rows | json_values | st.lists(rows | rows.map(lambda row: GOOD | row), max_size=4))
def test_any_json_is_answered_or_refused(client: TestClient, body: object) -> None:
    content = json.dumps(body).encode()
    for path in ("/predict", "/predict/batch"):
        answer = client.post(path, content=content, headers=JSON)
        if answer.status_code != 200:
            check_refusal(answer, 422)
