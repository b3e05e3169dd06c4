"""API keys in a file: only their hashes are there, and a running server follows what is done to it."""

import hashlib
import json
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import run_script
from fastapi.testclient import TestClient
from small_models import GOOD, write_small_model

from app import api_keys
from app.api_keys import ApiKeys, add_key
from app.main import create_app
from app.settings import Settings
from data_ingestion.handoff import PipelineError


def run_keys(path: Path, *flags: str) -> str:
    """Run the command, and return the last line that it printed."""
    done = run_script("app/api_keys.py", ["--file", path, *flags])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


@contextmanager
def serve(folder: Path, **settings: object) -> Iterator[TestClient]:
    app = create_app(Settings(model_dir=folder, **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, key: str) -> int:
    return client.post("/predict", json=GOOD, headers={"X-API-Key": key}).status_code


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def test_key_is_printed_once_and_its_hash_kept_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    key = run_keys(path, "--name", "alice")
    line = path.read_text().splitlines()[-1]
    assert line == f"alice {hashlib.sha256(key.encode()).hexdigest()}"
    assert len(key) == 43  # 256 bits
    run_keys(path, "--name", "bob")
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = run_script("app/api_keys.py", ["--file", path, "--name", "alice"])
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith(f"error: {path} has a key of that name.")
    assert run_script("app/api_keys.py", ["--file", path, "--list"]).stdout.split() == ["alice", "bob"]
    run_keys(path, "--revoke", "alice")
    assert run_script("app/api_keys.py", ["--file", path, "--list"]).stdout.split() == ["bob"]


def test_running_server_follows_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api_keys, "CHECK_S", 0.02)
    write_small_model(tmp_path)
    path = tmp_path / "keys.txt"
    alice = add_key(path, "alice")
    with serve(tmp_path, api_keys="plain", api_keys_file=path) as client:
        assert [ask(client, key) for key in (alice, "plain", "", "alice", alice[:-1])] == [200, 200, 401, 401, 401]
        assert [client.get(url).status_code for url in ("/model", "/schema", "/health")] == [401, 401, 200]
        assert client.get("/model", headers={"X-API-Key": alice}).status_code == 200
        assert "floor area" not in json.dumps(client.get("/openapi.json").json())
        bob = add_key(path, "bob")
        wait_until(lambda: ask(client, bob) == 200)
        assert ask(client, alice) == 200
        path.write_text("carol nonsense\n")
        wait_until(lambda: "keys.txt line 1 expects `name sha256`" in caplog.text)
        time.sleep(0.1)
        assert (ask(client, alice), ask(client, bob)) == (200, 200)
        path.unlink()
        wait_until(lambda: "No such file" in caplog.text)
        assert ask(client, alice) == 200
        path.write_text("# nobody\n")
        wait_until(lambda: ask(client, alice) == 401)
        assert [ask(client, key) for key in (bob, "", "plain")] == [401, 401, 200]
    assert caplog.text.count("keys.txt line 1") == 1
    assert "nonsense" not in caplog.text


def test_file_without_a_key_opens_nothing(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    (tmp_path / "keys.txt").write_text("\n# later\n")
    with serve(tmp_path, api_keys_file=tmp_path / "keys.txt") as client:
        assert [ask(client, ""), ask(client, "0" * 64)] == [401, 401]
        assert client.post("/predict", json=GOOD).status_code == 401
        assert client.get("/ready").status_code == 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"alice " + b"0" * 63, "line 1 expects `name sha256`"),
        (b"# fine\na " + b"0" * 64 + b"\na " + b"1" * 64, "line 3 has a name that another line has"),
        (b"\xff", "it is not UTF-8"),
        (b"#" * (2**20 + 1), "longer than 1,048,576 bytes"),
    ],
)
def test_bad_file_is_named_at_the_start(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PipelineError) as refusal:
        create_app(Settings(model_dir=tmp_path, api_keys_file=path))
    assert reason in str(refusal.value)
    assert "000" not in str(refusal.value)


def test_name_of_a_key_is_found_among_many(tmp_path: Path) -> None:
    digests = {f"name-{number}": hashlib.sha256(b"%d" % number).hexdigest() for number in range(1000)}
    path = tmp_path / "keys.txt"
    path.write_text("".join(f"{name}\t{digest}  # who\n" for name, digest in digests.items()))
    keys = ApiKeys((), path)
    assert [keys.find_name(b"%d" % number) for number in (0, 7, 999)] == ["name-0", "name-7", "name-999"]
    assert keys.find_name(b"1000") is keys.find_name(None) is None
