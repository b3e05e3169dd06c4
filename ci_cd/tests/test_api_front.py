"""What every request gets, whatever it asks for: an id, headers that protect browsers, a line in the log."""

import asyncio
import gc
import json
import logging
import os
import re
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from running_server import wait_until
from small_models import GOOD, write_small_model

from app.front import access_log
from app.front.access_log import AccessLog
from app.main import create_app
from app.settings import Settings, read_settings
from data_ingestion.handoff import PipelineError

ORIGIN = "https://shop.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, x-api-key"}


@contextmanager
def serve(folder: Path, **settings: object) -> Iterator[TestClient]:
    app = create_app(Settings(model_dir=folder, **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_small_model(folder)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with serve(folder) as client:
        yield client


@contextmanager
def as_stdout(path: Path) -> Iterator[Path]:
    """Have stdout in a file. In a fixture, pytest would put its own stdout back before the test."""
    with path.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        yield path


def read_lines(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predict", 200),
        ("POST", "/predict/batch", 422),
        ("GET", "/health", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nothing", 404),
        ("PUT", "/predict", 405),
    ],
)
def test_every_answer_has_an_id_and_is_neither_guessed_at_nor_kept(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answers = [client.request(method, path, json=GOOD) for _ in range(2)]
    for answer in answers:
        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert re.fullmatch("[0-9a-f]{16}-[0-9a-f]+", answer.headers["x-request-id"])
    assert answers[0].headers["x-request-id"] != answers[1].headers["x-request-id"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("body", [b"{", b"[1]", b"[" * 50_000, b'{"rooms": "many"}'])
def test_refusal_holds_nothing_until_the_garbage_collector_comes(folder: Path, path: str, body: bytes) -> None:
    """Refused bodies and the model they were for would pile up: it comes seldom, and knows nothing of their size."""
    with serve(folder) as client:
        gc.disable()
        try:
            assert client.post(path, content=body, headers={"Content-Type": "application/json"}).is_client_error
            host = client.app.state.host  # type: ignore[attr-defined]
            replaced = weakref.ref(host.served)
            host.served = None
            wait_until(lambda: replaced() is None)  # the worker thread lets go a moment later
        finally:
            gc.enable()


def test_pages_may_not_be_framed_and_run_no_script_but_their_own(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    script = client.get("/docs-assets/swagger-ui-bundle.js")
    assert script.headers["x-content-type-options"] == "nosniff"
    assert "cache-control" not in script.headers  # it has an ETag


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 64])
def test_sane_id_of_the_client_is_kept(client: TestClient, given: str) -> None:
    for path in ("/predict", "/health", "/nothing"):
        assert client.post(path, json=GOOD, headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"b', "a\tb", "ä".encode(), b"a\x00"])
def test_other_id_of_the_client_is_replaced(client: TestClient, given: str | bytes) -> None:
    answer = client.post("/predict", json=GOOD, headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{16}-[0-9a-f]+", answer.headers["x-request-id"])


# Other origins


def test_no_other_origin_may_read_answers_unless_it_is_named(folder: Path, client: TestClient) -> None:
    preflight = client.options("/predict", headers={"Origin": ORIGIN} | PREFLIGHT)
    answer = client.post("/predict", json=GOOD, headers={"Origin": ORIGIN})
    assert (preflight.status_code, answer.status_code) == (405, 200)
    assert not [name for name in (*preflight.headers, *answer.headers) if name.startswith("access-control")]
    with serve(folder, cors_origins=f"{ORIGIN}, http://localhost:3000", api_keys="a") as named:
        preflight = named.options("/predict", headers={"Origin": ORIGIN} | PREFLIGHT)
        refused = named.post("/predict", json=GOOD, headers={"Origin": ORIGIN})
        answer = named.post("/predict", json=GOOD, headers={"Origin": ORIGIN, "X-API-Key": "a"})
        stranger = named.post("/predict", json=GOOD, headers={"Origin": "https://other.example", "X-API-Key": "a"})
        strange = named.options("/predict", headers={"Origin": "https://other.example"} | PREFLIGHT)
    assert (preflight.status_code, refused.status_code, answer.status_code) == (200, 401, 200)
    assert {each.headers["access-control-allow-origin"] for each in (preflight, refused, answer)} == {ORIGIN}
    assert answer.headers["x-request-id"]
    assert "access-control-allow-origin" not in stranger.headers
    assert (strange.status_code, "access-control-allow-origin" in strange.headers) == (400, False)


@pytest.mark.parametrize("value", ["shop.example", "https://shop.example/", "https://shop.example/a", "ftp://a"])
def test_origin_that_is_none_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", f"{ORIGIN},{value}")
    with pytest.raises(PipelineError, match=r"variable CORS_ORIGINS: .*expects origins such as"):
        read_settings()


# Documentation


def test_documentation_can_be_switched_off(folder: Path) -> None:
    with serve(folder, docs=False) as client:
        for path in ("/docs", "/openapi.json", "/docs-assets/swagger-ui-bundle.js", "/redoc"):
            assert (client.get(path).status_code, client.get(path).json()["code"]) == (404, "not_found")
        assert client.post("/predict", json=GOOD).status_code == 200


# The access log


def test_log_has_a_line_of_json_for_each_request_and_no_secret(folder: Path, tmp_path: Path) -> None:
    with as_stdout(tmp_path / "log") as log, serve(folder, api_keys="sesame") as client:
        client.post("/predict?token=hidden", json=GOOD | {"class": "hidden"}, headers={"X-API-Key": "sesame"})
        client.get("/model", headers={"X-API-Key": "hidden", "X-Request-ID": "mine"})
        client.get("/health")
    lines = read_lines(log)
    assert [(line["method"], line["path"], line["status"], line["key"]) for line in lines] == [
        ("POST", "/predict", 200, "API_KEYS 1"),
        ("GET", "/model", 401, None),
        ("GET", "/health", 200, None),
    ]
    first = lines[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert (first["client"], first["model_version"], lines[1]["request_id"]) == ("testclient", "0123456789ab", "mine")
    assert first["duration_ms"] > 0
    assert first["bytes"] > 100
    assert set(first) == {
        *("time", "request_id", "method", "path", "status", "duration_ms", "bytes", "client", "key", "model_version"),
    }
    assert "hidden" not in log.read_text()
    assert "sesame" not in log.read_text()


def test_log_lines_cannot_be_forged(folder: Path, tmp_path: Path) -> None:
    evil = '/a\n{"status": 200}\x1b[31m"\\\x7f\u2028' + "x" * 5000
    with as_stdout(tmp_path / "log") as log, serve(folder) as client:
        client.get("/" + "".join(f"%{byte:02x}" for byte in evil.encode()))
    text = log.read_bytes()
    assert text.count(b"\n") == 1
    assert len(text) < 4096
    assert not [byte for byte in text[:-1] if byte < 32 or byte > 126]
    assert read_lines(log)[0]["path"] == "/" + evil[:199]


def test_log_can_be_switched_off(folder: Path, tmp_path: Path) -> None:
    with as_stdout(tmp_path / "log") as log, serve(folder, access_log=False) as client:
        assert client.get("/health").status_code == 200
    assert log.read_bytes() == b""
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def add_lines(log: AccessLog, count: int) -> None:
    for number in range(count):
        log.add({"method": "GET", "path": "/" + "x" * 190, "client": None}, b"%d" % number, 200, 0.001, 10)


def test_log_waits_for_no_reader_and_counts_what_it_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "KEPT_CHARS", 100_000)
    reader, writer = os.pipe()

    async def stall_and_read_on() -> bytes:
        log = AccessLog()
        log.open()
        add_lines(log, 1000)  # a pipe takes 64 kB, and 100 kB are kept
        await asyncio.sleep(0)
        log.flush()
        add_lines(log, 1000)
        read = os.read(reader, 2**20)
        while b"dropped" not in read:
            log.flush()
            read += os.read(reader, 2**20)
        log.close()
        return read

    with open(writer, "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        lines = [json.loads(line) for line in asyncio.run(stall_and_read_on()).splitlines()]
    os.close(reader)
    dropped = [line["dropped_lines"] for line in lines if "dropped_lines" in line]
    assert sum(dropped) + len(lines) - len(dropped) == 2000


def test_log_ends_when_stdout_is_closed_and_the_api_answers_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with serve(folder) as client:
            for _ in range(2):
                assert client.get("/health").status_code == 200
                client.portal.call(client.app.log.flush)
    assert [record.message for record in caplog.records if "stdout" in record.message] == [
        "the access log ends, for stdout cannot be written: [Errno 32] Broken pipe"
    ]
