"""The real server for the tests: started as its users start it, and spoken to over sockets."""

import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from conftest import REPOSITORY, clean_environment
from sklearn.ensemble import HistGradientBoostingRegressor
from small_models import GOOD, write_small_model

JSON = {"Content-Type": "application/json"}
ROW = json.dumps(GOOD).encode()


def write_light_model(folder: Path, version: str = "0123456789ab", shift: float = 0.0) -> None:
    """Write a model that is compiled, so that a single row is answered inside the event loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "small_models.LinearRegression", partial(HistGradientBoostingRegressor, max_iter=3, min_samples_leaf=3)
        )
        assert write_small_model(folder, version, shift).scorer.compiled


@dataclass(frozen=True)
class Running:
    """A server that listens; its output is in two files."""

    process: subprocess.Popen[bytes]
    port: int
    stdout: Path
    stderr: Path

    def connect(self, timeout_s: float = 30, **options: int) -> socket.socket:
        """Open a connection; options are those of sockets, such as SO_RCVBUF."""
        connection = socket.socket()
        for name, value in options.items():
            connection.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        connection.settimeout(timeout_s)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def open_http(self) -> "closing[http.client.HTTPConnection]":
        """Return a client that keeps its connection, to use with `with`."""
        return closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30))

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, dict]:
        """Return status and answer of a request on a connection of its own: POST with a body, else GET."""
        with self.open_http() as client:
            return ask(client, path, body)


def ask(client: http.client.HTTPConnection, path: str, body: bytes | None = None) -> tuple[int, dict]:
    """Return status and answer of a request: POST with a body, else GET."""
    client.request("GET" if body is None else "POST", path, body, JSON if body is not None else {})
    answer = client.getresponse()
    return answer.status, json.loads(answer.read())


@contextmanager
def run_server(
    folder: Path, *flags: str, limits: Mapping[int, int] | None = None, **environment: object
) -> Iterator[Running]:
    """Run the server on the model of a folder until the block ends.

    Parameters
    ----------
    folder : the model; output goes there too
    flags : of uvicorn
    limits : of resources, by the numbers of the module `resource`
    environment : settings
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    command += ["--timeout-graceful-shutdown", "3", *flags]
    settings = {"MODEL_DIR": folder, "MODEL_POLL_S": "0.1"} | environment
    out, err = folder / "stdout.log", folder / "stderr.log"

    def limit() -> None:
        for number, value in (limits or {}).items():
            resource.setrlimit(number, (value, value))

    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=clean_environment() | {name: str(value) for name, value in settings.items()},
            stdout=stdout,
            stderr=stderr,
            preexec_fn=limit if limits else None,  # noqa: PLW1509
            start_new_session=True,
        )
    server = Running(process, port, out, err)
    try:
        wait_until(lambda: process.poll() is not None or is_ready(server), 60)
        assert process.poll() is None, err.read_text(encoding="utf-8")
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait()


def is_ready(server: Running) -> bool:
    """Whether a request to /ready is answered with 200."""
    try:
        return server.ask("/ready")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def read_all(connection: socket.socket) -> bytes:
    """Return what a server sends until it closes the connection."""
    read = b""
    while True:
        try:
            piece = connection.recv(65_536)
        except ConnectionResetError:
            return read
        if not piece:
            return read
        read += piece
