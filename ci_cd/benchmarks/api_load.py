"""Asks a server over HTTP: one request with its answer, or as many as wrk gets through in some seconds."""

import http.client
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from api_model import Row
from api_peers import Call
from environments import BenchError

SCRIPT = Path(__file__).with_name("post_rows.lua")
ANSWER_LIMIT_S = 60.0
WRK_LIMIT_S = 20  # a request that takes longer is counted as late


@dataclass(frozen=True)
class Load:
    """What wrk measured.

    Parameters
    ----------
    rate : answers a second
    p50_ms, p99_ms : of the time to an answer
    refused, broken, late : answers with status 400 and more, connections that broke, requests that took too long
    """

    rate: float
    p50_ms: float
    p99_ms: float
    refused: int = 0
    broken: int = 0
    late: int = 0

    @property
    def is_void(self) -> bool:
        """Whether anything but answers came."""
        return bool(self.refused or self.broken or self.late or not self.rate)


def find_wrk() -> str:
    """Return where wrk is.

    Raises
    ------
    BenchError : there is none
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchError("found no wrk, which makes the load. Install it: apt-get install wrk, or brew install wrk")
    return wrk


def post(url: str, body: bytes, timeout_s: float = ANSWER_LIMIT_S) -> tuple[int, bytes]:
    """Return status and answer of one request on a connection of its own.

    Raises
    ------
    OSError, http.client.HTTPException : there was no answer
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ask(url: str, call: Call, rows: Sequence[Row]) -> list[float]:
    """Return the answers for some rows.

    Raises
    ------
    BenchError : the status is not 200, or the answer cannot be read
    """
    status, content = post(url + call.path, encode_body(call, rows))
    if status != 200:
        raise BenchError(f"status {status} for {len(rows):,} rows: {content[:200].decode(errors='replace')}")
    try:
        return [float(value) for value in call.read_answers(json.loads(content))]
    except (KeyError, TypeError, ValueError, IndexError) as err:
        raise BenchError(f"an answer that cannot be read ({err!r}): {content[:200].decode(errors='replace')}") from err


def encode_body(call: Call, rows: Sequence[Row]) -> bytes:
    """Return the body that asks for some rows, in one line."""
    return json.dumps(call.build_body(rows)).encode()


def write_bodies(path: Path, call: Call, rows: Sequence[Row], rows_each: int) -> None:
    """Write the bodies that wrk posts: one in a line, so many rows in each."""
    starts = range(0, len(rows) - rows_each + 1, rows_each)
    path.write_bytes(b"".join(encode_body(call, rows[start : start + rows_each]) + b"\n" for start in starts))


def run_wrk(url: str, bodies: Path, connections: int, seconds: float) -> Load:
    """Return what wrk gets through in so many seconds.

    Raises
    ------
    BenchError : wrk failed
    """
    flags = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", f"--timeout={WRK_LIMIT_S}s", "-s", str(SCRIPT)]
    command = [find_wrk(), *flags, url, "--", str(bodies)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * WRK_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError("wrk did not end") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise BenchError(f"wrk failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return read_load(json.loads(lines[-1]))


def read_load(said: Mapping[str, float]) -> Load:
    """Return what post_rows.lua printed."""
    counts = {name: int(said[name]) for name in ("refused", "broken", "late")}
    return Load(said["answers"] / said["seconds"], said["p50_ms"], said["p99_ms"], **counts)
