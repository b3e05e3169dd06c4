"""The API: answers, warnings, models that come, go and are bad, keys, and the real server."""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from random import Random

import httpx
import joblib
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from small_models import GOOD, build_table, write_small_model

from app.main import create_app
from app.model_host import load_served
from app.settings import Settings, read_settings
from data_ingestion.handoff import PipelineError
from models.artifact import MANIFEST, PICKLE

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.05


@contextmanager
def serve(folder: Path, **settings: object) -> Iterator[TestClient]:
    app = create_app(Settings(model_dir=folder, model_poll_s=POLL_S, **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module", params=["regression", "multiclass"])
def any_task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp(request.param)
    write_small_model(folder, task=request.param)
    with serve(folder) as client:
        client.folder = folder
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    write_small_model(folder)
    with serve(folder) as client:
        yield client


def read_rows() -> list[dict[str, object]]:
    rows = json.loads(build_table().to_json(orient="records"))
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def wait_until(condition, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


# Answers


def test_predictions_equal_the_pickle(any_task: TestClient) -> None:
    pipeline = joblib.load(any_task.folder / PICKLE)
    expected = pipeline.predict(build_table()).tolist()
    batch = any_task.post("/predict/batch", json=read_rows()).json()
    single = [any_task.post("/predict", json=row).json() for row in read_rows()[:8]]
    assert [answer["prediction"] for answer in batch["predictions"]] == expected
    alone = [pipeline.predict(build_table().iloc[[row]])[0] for row in range(8)]  # a sum may end in another last bit
    assert [answer["prediction"] for answer in single] == alone
    if "probabilities" in single[0]:
        shares = pipeline.predict_proba(build_table())
        assert [list(a["probabilities"].values()) for a in batch["predictions"]] == shares.tolist()
        assert list(single[0]["probabilities"]) == pipeline.classes_.tolist() == ["cheap", "dear", "fair"]


def test_predict_answers_with_version_id_and_warnings(client: TestClient) -> None:
    answer = client.post("/predict", json=GOOD).json()
    assert set(answer) == {"prediction", "model_version", "prediction_id", "warnings"}
    assert (answer["model_version"], answer["warnings"]) == ("0123456789ab", [])
    assert re.fullmatch("[0-9a-f]{32}", answer["prediction_id"])
    assert client.post("/predict", json=GOOD).json()["prediction_id"] != answer["prediction_id"]


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"class": "z"}, "class: unseen category"),
        ({"class": None}, "class: missing, imputed"),
        ({"class": " NA "}, "class: missing, imputed"),
        ({"floor area": None}, "floor area: missing, imputed"),
        ({"floor area": 900}, "floor area: outside the range 20.5 to 78.5"),
        ({"rooms": 6.0}, "rooms: outside the range 1 to 5"),
        ({"_built": "2010-01-01"}, "_built: outside the range 2000-01-01T00:00:00 to 2002-06-06T00:00:00"),
    ],
)
def test_predict_warns_of_the_unexpected(client: TestClient, change: dict, warning: str) -> None:
    answer = client.post("/predict", json=GOOD | change)
    assert answer.status_code == 200
    assert answer.json()["warnings"] == [warning]


def test_predict_warns_of_what_is_not_sent(client: TestClient) -> None:
    answer = client.post("/predict", json={"rooms": 2, "has lift": "no"}).json()
    assert answer["warnings"] == [f"{name}: missing, imputed" for name in ("class", "floor area", "_built")]


@pytest.mark.parametrize(
    "same",
    [
        {"rooms": 2.0},
        {"has lift": "YES"},
        {"class": " b"},
        {"_built": "17.05.2001"},
        {"_built": "2001-05-17T02:00:00+02:00"},
        {"row id": "anything", "note": [1], "price": None},
    ],
)
def test_predict_takes_equal_spellings_and_ignores_columns_that_are_no_features(client: TestClient, same: dict) -> None:
    answer = client.post("/predict", json=GOOD | same).json()
    assert answer["prediction"] == client.post("/predict", json=GOOD).json()["prediction"]
    assert answer["warnings"] == []


def test_batch_answers_good_rows_and_lists_bad_ones_by_index(client: TestClient) -> None:
    rows = [GOOD, GOOD | {"rooms": "2"}, 7, GOOD | {"class": "z"}]
    answer = client.post("/predict/batch", json=rows)
    assert answer.status_code == 200
    assert [(row["index"], row["warnings"]) for row in answer.json()["predictions"]] == [
        (0, []),
        (3, ["class: unseen category"]),
    ]
    assert answer.json()["errors_total"] == 2
    assert [(error["index"], error.get("field"), error["rule"]) for error in answer.json()["errors"]] == [
        (1, "rooms", "integer_type"),
        (2, None, "object_type"),
    ]


def test_policy_refuse_makes_the_unexpected_an_error(tmp_path: Path) -> None:
    refuse = {"class": {"unseen": "refuse"}, "rooms": {"out_of_range": "refuse"}, "built": {"out_of_range": "refuse"}}
    write_small_model(tmp_path, columns=refuse)
    bad = GOOD | {"class": "z", "rooms": 6, "_built": "2010-01-01"}
    with serve(tmp_path) as client:
        errors = client.post("/predict", json=bad).json()["errors"]
        row = client.get("/openapi.json").json()["components"]["schemas"]["Row"]["properties"]
    assert {error["field"]: (error["rule"], error["message"]) for error in errors} == {
        "class": ("unseen_category", "expects one of a, b, c"),
        "rooms": ("out_of_range", "expects 1 to 5"),
        "_built": ("out_of_range", "expects 2000-01-01T00:00:00 to 2002-06-06T00:00:00"),
    }
    assert row["class"]["enum"] == ["a", "b", "c", None]
    assert (row["rooms"]["minimum"], row["rooms"]["maximum"]) == (1, 5)


def test_answers_that_are_not_finite_are_refused_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_model(tmp_path)
    with serve(tmp_path) as client:
        pipeline = client.app.state.host.served.model.pipeline
        monkeypatch.setattr(type(pipeline), "predict", lambda self, X: [float("inf"), 1.0][-len(X) :])
        answer = client.post("/predict/batch", json=[GOOD, GOOD]).json()
    assert [row["index"] for row in answer["predictions"]] == [1]
    assert [(error["index"], error["rule"]) for error in answer["errors"]] == [(0, "no_finite_answer")]


def test_health_answers_while_every_worker_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_model(tmp_path)
    release = threading.Event()
    monkeypatch.setattr("app.front.direct.predict_one", lambda *args: {"waited": release.wait(20)})
    with serve(tmp_path) as client, ThreadPoolExecutor(60) as pool:
        busy = [pool.submit(client.post, "/predict", json=GOOD) for _ in range(60)]
        wait_until(lambda: client.get("/health").status_code == 200)
        started = time.monotonic()
        assert client.get("/ready").status_code == 200
        assert time.monotonic() - started < 5
        assert not any(answer.done() for answer in busy)
        release.set()


# What the API says of itself


def test_metrics_count_requests_rows_warnings_and_models(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    with serve(tmp_path) as client:
        client.post("/predict", json=GOOD | {"class": "z", "floor area": None})
        client.post("/predict", json={})
        client.post("/predict/batch", json=[GOOD, {}, GOOD | {"class": "z"}])
        client.get("/secret/31337")
        client.get("/health")
        cut_manifest(tmp_path)
        wait_until(lambda: 'loads_total{outcome="refused"} 1.0' in client.get("/metrics").text)
        shown = client.get("/metrics").text
    for line in (
        'model_api_requests_total{path="/predict",status="200"} 1.0',
        'model_api_requests_total{path="/predict",status="422"} 1.0',
        'model_api_requests_total{path="/predict/batch",status="200"} 1.0',
        'model_api_requests_total{path="other",status="404"} 1.0',
        'model_api_requests_total{path="/health",status="200"} 1.0',
        'model_api_request_seconds_count{path="/predict"} 2.0',
        'model_api_rows_total{outcome="answered"} 3.0',
        'model_api_rows_total{outcome="refused"} 2.0',
        'model_api_warnings_total{feature="class",warning="unseen"} 2.0',
        'model_api_warnings_total{feature="floor area",warning="missing"} 1.0',
        'model_api_model_loads_total{outcome="served"} 1.0',
        'model_api_model_info{model_version="0123456789ab"} 1.0',
    ):
        assert line in shown.splitlines()
    assert "31337" not in shown


def test_openapi_example_can_be_sent_as_it_is(any_task: TestClient) -> None:
    description = any_task.get("/openapi.json").json()
    for path in ("/predict", "/predict/batch"):
        body = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        answer = any_task.post(path, json=body["example"])
        assert answer.status_code == 200
        assert "missing" not in answer.text


def test_example_of_a_required_column_is_never_left_out(tmp_path: Path) -> None:
    changes = {
        name: {"nullable": False, "example": None} for name in ("class", "floor_area", "rooms", "has_lift", "built")
    }
    write_small_model(tmp_path, columns=changes)
    with serve(tmp_path) as client:
        example = client.get("/openapi.json").json()["components"]["schemas"]["Row"]["examples"][0]
        assert client.post("/predict", json=example).json()["warnings"] == []


def test_openapi_describes_the_row_of_the_contract(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    row = description["components"]["schemas"]["Row"]
    assert row["required"] == ["rooms", "has lift"]
    assert row["additionalProperties"] is False
    assert row["properties"]["class"] == {
        "title": "class",
        "type": ["string", "null"],
        "description": "one of a, b, c; another is answered with a warning",
        "examples": ["b"],
        "default": None,
    }
    batch = description["paths"]["/predict/batch"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert batch == {"type": "array", "items": {"$ref": "#/components/schemas/Row"}, "minItems": 1, "maxItems": 100_000}


def test_openapi_gives_every_refusal_the_one_form(client: TestClient) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if not status.startswith("2"):
                    ref = response["content"]["application/json"]["schema"]["$ref"]
                    assert ref.endswith("/ErrorAnswer"), f"{path} {status}"


def test_model_and_schema_describe_what_is_served(any_task: TestClient) -> None:
    model = any_task.get("/model").json()
    assert model["features"] == list(GOOD)
    assert model["trained_from"] == {"processed": "ab" * 32}
    assert model.get("classes") == (["cheap", "dear", "fair"] if model["task"] == "multiclass" else None)
    schema = any_task.get("/schema").json()
    assert list(schema["features"]) == list(GOOD)
    assert schema["features"]["rooms"]["max"] == 5
    assert "out_of_range" not in schema["features"]["class"]
    assert schema["ignored"] == ["row id", "note", "price"]


def test_docs_page_and_its_files_come_from_the_server_itself(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "openapi.json" in page.text
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(files) == 3
    assert not [name for name in files if "//" in name]
    assert {client.get(f"/{name}").status_code for name in files} == {200}


# Without a model, and with a bad one


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/ready"), ("GET", "/model"), ("GET", "/schema"), ("POST", "/predict"), ("POST", "/predict/batch")],
)
def test_without_a_model_503_names_the_command(tmp_path: Path, method: str, path: str) -> None:
    with serve(tmp_path) as client:
        answer = client.request(method, path, json=GOOD if method == "POST" else None)
        assert client.get("/health").json() == {"status": "alive", "model_version": None}
        assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 200
    assert answer.status_code == 503
    assert answer.json()["code"] == "no_model"
    assert "Run: make run" in answer.json()["message"]
    assert str(tmp_path) not in answer.text


def cut_pickle(folder: Path) -> None:
    (folder / PICKLE).write_bytes((folder / PICKLE).read_bytes()[:500])


def flip_bit(folder: Path) -> None:
    content = bytearray((folder / PICKLE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / PICKLE).write_bytes(content)


def swap_pickle(folder: Path) -> None:
    other = folder / "other"
    write_small_model(other, shift=1000)
    (other / PICKLE).replace(folder / PICKLE)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("opened",)


def plant_malicious_pickle(folder: Path) -> None:
    os.chdir(folder)
    (folder / PICKLE).write_bytes(pickle.dumps(Malicious()))


def cut_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:500])


def name_other_library(folder: Path) -> None:
    write_small_model(folder, version="f" * 12, libraries={"scikit-learn": "0.1"})


def name_other_features(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["contract"]["columns"]["storey"] = manifest["contract"]["columns"].pop("rooms")
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def name_other_answers(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["golden"]["predictions"] = [1.0]
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def vouch_for_rubbish(folder: Path) -> None:
    from data_ingestion.handoff import sha256_file

    cut_pickle(folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"] = {PICKLE: sha256_file(folder / PICKLE)}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


SPOILERS = [
    (cut_pickle, "not the file that"),
    (flip_bit, "not the file that"),
    (swap_pickle, "not the file that"),
    (plant_malicious_pickle, "not the file that"),
    (cut_manifest, "damaged"),
    (name_other_library, "made with scikit-learn 0.1"),
    (name_other_features, 'disagree on the features "rooms", "storey"'),
    (name_other_answers, "golden rows"),
    (vouch_for_rubbish, "cannot be opened"),
]
each_spoiler = pytest.mark.parametrize(("spoil", "reason"), SPOILERS, ids=lambda value: getattr(value, "__name__", ""))


@each_spoiler
def test_bad_model_at_cold_start_is_refused_and_a_good_one_taken_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_small_model(tmp_path)
    spoil(tmp_path)
    with serve(tmp_path) as client:
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert reason in answer.json()["message"]
        assert str(tmp_path) not in answer.text
        assert sys.prefix not in answer.text
        assert client.get("/health").status_code == 200
        write_small_model(tmp_path, version="2" * 12)
        wait_until(lambda: client.get("/ready").json().get("model_version") == "2" * 12)
        assert client.post("/predict", json=GOOD).json()["model_version"] == "2" * 12
    assert not (tmp_path / "opened").exists()


@each_spoiler
def test_bad_model_while_serving_is_said_once_and_never_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spoil, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_small_model(tmp_path)
    with serve(tmp_path) as client:
        before = client.post("/predict", json=GOOD).json()
        spoil(tmp_path)
        os.utime(tmp_path / MANIFEST, ns=(1, 1))
        wait_until(lambda: client.get("/model").json().get("refused"))
        assert reason in client.get("/model").json()["refused"]
        time.sleep(5 * POLL_S)
        after = client.post("/predict", json=GOOD).json()
    assert (after["prediction"], after["model_version"]) == (before["prediction"], before["model_version"])
    assert len([record for record in caplog.records if "still serving 0123456789ab" in record.message]) == 1
    assert not (tmp_path / "opened").exists()


def test_every_flipped_bit_and_every_cut_is_refused(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    good = (tmp_path / PICKLE).read_bytes()
    random = Random(0)
    for place in random.sample(range(len(good)), 25):
        flipped = bytes([*good[:place], good[place] ^ 1 << random.randrange(8), *good[place + 1 :]])
        for bad in (flipped, good[:place]):
            (tmp_path / PICKLE).write_bytes(bad)
            with pytest.raises(PipelineError, match="not the file that"):
                load_served(tmp_path)


def test_new_model_is_taken_with_its_contract(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    with serve(tmp_path) as client:
        old = client.post("/predict", json=GOOD).json()["prediction"]
        assert client.get("/openapi.json").json()["components"]["schemas"]["Row"]["required"][0] == "rooms"
        write_small_model(tmp_path, version="2" * 12, shift=1000, columns={"class": {"nullable": False}})
        seen = {}
        while len(seen) < 2:  # every answer comes from one version
            answer = client.post("/predict", json=GOOD).json()
            assert seen.setdefault(answer["model_version"], answer["prediction"]) == answer["prediction"]
        assert seen == {"0123456789ab": old, "2" * 12: pytest.approx(old + 1000)}
        assert client.get("/openapi.json").json()["components"]["schemas"]["Row"]["required"][0] == "class"
        assert client.post("/predict", json=GOOD | {"class": None}).status_code == 422


def test_pickle_that_is_mended_is_taken(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    good = (tmp_path / PICKLE).read_bytes()
    cut_pickle(tmp_path)
    with serve(tmp_path) as client:
        assert client.get("/ready").status_code == 503
        (tmp_path / PICKLE).write_bytes(good)
        wait_until(lambda: client.get("/ready").status_code == 200)


def test_pickle_without_scikit_learn_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_model(tmp_path)

    def find_nothing() -> dict[str, str]:
        raise PackageNotFoundError("scikit-learn")

    monkeypatch.setattr("models.artifact.list_libraries", find_nothing)
    with serve(tmp_path) as client:
        message = client.get("/ready").json()["message"]
    assert "needs scikit-learn" in message
    assert "Serve it from an environment with requirements.txt" in message


# Keys and settings


def test_api_keys_guard_all_but_health(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    with serve(tmp_path, api_keys="first, zwölf") as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        for path in ("/predict", "/predict/batch"):
            assert client.post(path, json=GOOD).status_code == 401
        refusal = client.get("/model", headers={"X-API-Key": "wrong"})
        assert (refusal.status_code, refusal.json()["code"]) == (401, "unauthorized")
        assert refusal.headers["WWW-Authenticate"] == "APIKey"
        for key in ("first", "zwölf".encode()):
            assert client.post("/predict", json=GOOD, headers={"X-API-Key": key}).status_code == 200
        description = client.get("/openapi.json").json()
    assert description["components"]["securitySchemes"]["APIKeyHeader"]["name"] == "X-API-Key"
    assert description["paths"]["/predict"]["post"]["security"] == [{"APIKeyHeader": []}]
    assert "security" not in description["paths"]["/health"]["get"]
    assert "floor area" not in json.dumps(description)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BATCH_ROWS", "0"),
        ("LOG_LEVEL", "loud"),
        ("MAX_BODY_BYTES", "4MB"),
        ("MODEL_POLL_S", "0"),
        ("API_KEYS", " , "),
    ],
)
def test_wrong_setting_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PipelineError, match=f"^environment variable {name}: .+ unset it for the default.$"):
        read_settings()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIPELINE_ROOT", str(tmp_path))
    monkeypatch.setenv("API_KEYS", " a, ,b ")
    settings = read_settings()
    assert settings.model_folder == tmp_path.resolve() / "models"
    assert [key.get_secret_value() for key in settings.api_keys] == ["a", "b"]
    assert "'a'" not in repr(settings)


def test_starting_the_app_loads_no_heavy_library() -> None:
    code = "import sys, app.main; print([m for m in ('mlflow', 'sklearn', 'pandas', 'pyarrow') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# The real server


@contextmanager
def run_server(folder: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    command += ["--timeout-graceful-shutdown", "5"]
    environment = {**os.environ, "MODEL_DIR": str(folder), "MODEL_POLL_S": "0.1", **environment}
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or is_open(port), 60)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_server_answers_swaps_and_stops_cleanly(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    with run_server(tmp_path) as (url, process):
        expected = float(joblib.load(tmp_path / PICKLE).predict(pd.DataFrame([GOOD | {"_built": "17.05.2001"}]))[0])
        assert httpx.post(f"{url}/predict", json=GOOD).json()["prediction"] == expected
        write_small_model(tmp_path, version="2" * 12, shift=1000)
        wait_until(lambda: httpx.get(f"{url}/ready").json()["model_version"] == "2" * 12)
        assert httpx.post(f"{url}/predict", json=GOOD).json()["prediction"] == pytest.approx(expected + 1000)
        if sys.platform != "win32":  # Windows has no SIGTERM that a process can answer
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) in (0, -signal.SIGTERM)
    log = (tmp_path / "server.log").read_text(encoding="utf-8")
    assert "serving model 0123456789ab" in log
    assert "Traceback" not in log


def test_server_refuses_an_endless_chunked_body_early(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    with run_server(tmp_path, MAX_BODY_BYTES="100000") as (url, _):
        started = time.monotonic()
        answer = httpx.post(
            f"{url}/predict", content=(b"[" * 65536 for _ in range(80)), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert time.monotonic() - started < 2
        assert httpx.post(f"{url}/predict", json=GOOD).status_code == 200


def test_server_starts_with_a_clear_line_when_a_setting_is_wrong(tmp_path: Path) -> None:
    with run_server(tmp_path, LOG_LEVEL="loud") as (_, process):
        assert process.wait(timeout=20) == 1
    assert (tmp_path / "server.log").read_text(encoding="utf-8").startswith("error: environment variable LOG_LEVEL: ")


def test_routes_of_the_framework_answer_what_the_direct_way_answers(
    any_task: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = any_task.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
    row = example["application/json"]["example"]
    direct = [any_task.post("/predict", json=row), any_task.post("/predict/batch", json=[row, {}, row])]
    monkeypatch.setattr("app.front.direct.DirectPredictions.PATHS", ())
    framework = [any_task.post("/predict", json=row), any_task.post("/predict/batch", json=[row, {}, row])]
    for one, other in zip(direct, framework, strict=True):
        one_text, other_text = (re.sub(r'"prediction_id":"\w{32}"', "", answer.text) for answer in (one, other))
        assert one_text == other_text
        assert one.status_code == other.status_code == 200
        assert one.headers["content-type"] == other.headers["content-type"]
