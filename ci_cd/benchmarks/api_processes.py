"""Starts a server, waits for its first answer, and ends all that it started. Memory is known on Linux alone."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from api_load import post
from environments import BenchError

START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0
POLL_S = 0.005
TICKS = os.sysconf("SC_CLK_TCK")


def find_ports() -> tuple[int, int, int]:
    """Return three ports that nobody listens on."""
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        for one in (first, second, third):
            one.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1], third.getsockname()[1]


@contextmanager
def run_server(
    command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server; end it, and whatever it started, when the block is left.

    Raises
    ------
    BenchError : it cannot be started, or the block says that it does not answer; with the last line it said
    """
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, cwd=folder, env=dict(environment), stdout=said, stderr=said, start_new_session=True
            )
        except OSError as err:
            raise BenchError(f"cannot be started: {err}") from err
        try:
            yield process
        except BenchError as err:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise BenchError(f"{err}; it said: {lines[-1][-300:] if lines else 'nothing'}") from None
        finally:
            stop_server(process)


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """End a server with a signal, then by force, it and all its children."""
    children = find_children(process.pid)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid, started in children.items():
        if read_start(pid) == started:  # not another process that got its number
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def await_answer(process: subprocess.Popen[bytes], url: str, body: bytes, started: float) -> float:
    """Return the seconds from `started` to the first answer with status 200.

    Raises
    ------
    BenchError : the server ended, or there was none in time
    """
    last = "nobody listened"
    while time.monotonic() - started < START_LIMIT_S:
        try:
            status, content = post(url, body)
            if status == 200:
                return time.monotonic() - started
            last = f"status {status}: {content[:200].decode(errors='replace')}"
        except (OSError, http.client.HTTPException):
            pass
        if process.poll() is not None:
            raise BenchError(f"it ended with exit code {process.returncode} before it answered")
        time.sleep(POLL_S)
    raise BenchError(f"no answer within {START_LIMIT_S:.0f} s, {last}")


def find_children(pid: int) -> dict[int, str]:
    """Return the processes that descend from one, with when each started; off Linux, none."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(_read_fields(path)[1]), []).append(int(path.parent.name))
    found, todo = {}, [pid]
    while todo:
        for child in parents.get(todo.pop(), []):
            found[child] = read_start(child)
            todo.append(child)
    return found


def read_start(pid: int) -> str:
    """Return when a process started, as the kernel counts; "" when there is none."""
    try:
        return _read_fields(Path(f"/proc/{pid}/stat"))[19]
    except OSError:
        return ""


def read_memory(pid: int) -> int | None:
    """Return the resident bytes of a process and its descendants together; None off Linux."""
    if not Path("/proc/self/stat").exists():
        return None
    total = 0
    for each in (pid, *find_children(pid)):
        with suppress(OSError):
            total += int(_read_fields(Path(f"/proc/{each}/stat"))[21])
    return total * os.sysconf("SC_PAGE_SIZE")


def read_worked_s(pid: int) -> float:
    """Return the processor's seconds of a process, its descendants, and those of its children that ended."""
    total = 0
    for each in (pid, *find_children(pid)):
        with suppress(OSError):
            total += sum(map(int, _read_fields(Path(f"/proc/{each}/stat"))[11:15]))
    return total / TICKS


def _read_fields(path: Path) -> list[str]:
    """Return the fields behind the name of a process, the third of proc(5) first."""
    return path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
