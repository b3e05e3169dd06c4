"""The real server while things change below it: models come, good and bad; a worker dies; files and memory run out."""

import asyncio
import http.client
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from running_server import REPOSITORY, ROW, Running, ask, clean_environment, run_server, wait_until, write_light_model

from app.metrics.counters import Metrics
from app.model_host import ModelHost
from models.artifact import MANIFEST, PICKLE, SCORER

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and limits of Linux")

SWAPS, BAD_EACH, REQUESTS = 50, 5, 5_000
BATCH = b"[" + b",".join([ROW] * 20) + b"]"


def make_versions(folder: Path, count: int) -> dict[str, float]:
    """Write models that are told apart by their answers, each in a folder of its version, and return the answers."""
    from models.artifact import load_scorer_model

    answers = {}
    for number in range(count):
        version = f"{number:012x}"
        write_light_model(folder / version, version, shift=1000 * number)
        model = load_scorer_model(folder / version)
        answers[version] = float(model.manifest.golden.predictions[0])
    return answers


def put_model(source: Path, target: Path, is_bad: bool) -> None:
    """Exchange the files of a model as a stage does, the manifest last; or damage what it vouches for."""
    for name in (PICKLE, SCORER, MANIFEST):
        content = (source / name).read_bytes()
        if is_bad and name == SCORER:
            content = content[:-1] + bytes([content[-1] ^ 1])
        place = target / f".{name}.tmp"
        place.write_bytes(content)
        place.replace(target / name)


class Caller(threading.Thread):
    """Asks for single rows and batches, and notes which version gave which answer."""

    def __init__(self, server: Running, is_over: threading.Event) -> None:
        super().__init__()
        self.server = server
        self.is_over = is_over
        self.seen: Counter[tuple[str, float]] = Counter()
        self.failed: list[str] = []

    def run(self) -> None:
        while not self.is_over.is_set():
            with self.server.open_http() as client:  # another connection now and then: it may reach the other worker
                for _ in range(20):
                    self.ask(client, "/predict", ROW)
                self.ask(client, "/predict/batch", BATCH)

    def ask(self, client: http.client.HTTPConnection, path: str, body: bytes) -> None:
        try:
            status, answer = ask(client, path, body)
        except (OSError, http.client.HTTPException) as err:
            self.failed.append(repr(err))
            return
        if status != 200:
            self.failed.append(str(answer))
            return
        predictions = {each["prediction"] for each in answer.get("predictions", [answer])}
        for prediction in predictions:
            self.seen[answer["model_version"], prediction] += 1


@pytest.mark.parametrize("workers", [1, 2])
def test_fifty_swaps_under_load_fail_no_request_and_mix_no_versions(tmp_path: Path, workers: int) -> None:
    answers = make_versions(tmp_path / "versions", 8)
    served = tmp_path / "served"
    served.mkdir()
    put_model(tmp_path / "versions" / f"{0:012x}", served, is_bad=False)
    with run_server(served, WEB_CONCURRENCY=workers, MODEL_POLL_S=0.02) as server:
        is_over = threading.Event()
        callers = [Caller(server, is_over) for _ in range(4)]
        for caller in callers:
            caller.start()
        for number in range(1, SWAPS + 1):
            version = f"{number % 8:012x}"
            put_model(tmp_path / "versions" / version, served, is_bad=number % BAD_EACH == 0)
            time.sleep(0.05)
        wait_until(lambda: sum(caller.seen.total() for caller in callers) >= REQUESTS, 60)
        is_over.set()
        for caller in callers:
            caller.join()
        last = f"{SWAPS % 8:012x}"
        put_model(tmp_path / "versions" / last, served, is_bad=False)
        wait_until(lambda: {server.ask("/ready")[1]["model_version"] for _ in range(8)} == {last})
    assert [caller.failed for caller in callers] == [[]] * 4
    seen = sum((caller.seen for caller in callers), Counter())
    assert dict(seen.keys()) == {version: answers[version] for version, _ in seen}
    assert len(seen) == len({version for version, _ in seen}) > 4  # one answer each, and many of the versions served
    log = server.stderr.read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert "the model was refused" in log


def test_worker_that_begins_during_an_exchange_waits_for_its_end(tmp_path: Path) -> None:
    make_versions(tmp_path / "versions", 2)
    old, new = (tmp_path / "versions" / f"{number:012x}" for number in range(2))
    (old / SCORER).write_bytes((new / SCORER).read_bytes())  # the manifest comes last
    host = ModelHost(old, 60, Metrics())

    async def end_exchange() -> None:
        while host.refused is None or SCORER not in host.refused:
            await asyncio.sleep(0.001)
        put_model(new, old, is_bad=False)

    async def begin() -> None:
        await asyncio.gather(host.start(), end_exchange())

    asyncio.run(begin())
    assert host.version == f"{1:012x}"


def test_link_that_is_set_anew_brings_its_model(tmp_path: Path) -> None:
    make_versions(tmp_path / "kept", 2)
    (tmp_path / "now").mkdir()
    link = tmp_path / "now" / "models"
    link.symlink_to(tmp_path / "kept" / f"{1:012x}")
    with run_server(tmp_path, MODEL_DIR=link) as server:
        assert server.ask("/predict", ROW)[1]["model_version"] == f"{1:012x}"
        (tmp_path / "next").symlink_to(tmp_path / "kept" / f"{0:012x}")
        (tmp_path / "next").replace(link)
        wait_until(lambda: server.ask("/predict", ROW)[1]["model_version"] == f"{0:012x}")


def test_workers_that_cannot_start_end_the_server(tmp_path: Path) -> None:
    """uvicorn alone would start them anew for ever, and its clients would wait."""
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0", "--workers", "2"]
    environment = clean_environment() | {"MAX_PENDING": "0", "MODEL_DIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "error: environment variable MAX_PENDING" in done.stderr
    assert "Traceback" not in done.stderr


def list_workers(server: Running) -> set[int]:
    """Return the processes that answer; beside them, multiprocessing has one of its own."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_death_of_a_worker_costs_only_what_it_had_under_way(tmp_path: Path) -> None:
    write_light_model(tmp_path)
    with run_server(tmp_path, WEB_CONCURRENCY=2) as server:
        wait_until(lambda: server.stderr.read_text().count("startup complete") == 2)
        victim, survivor = sorted(list_workers(server))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in list_workers(server) or is_dead(victim))
        assert [server.ask("/predict", ROW)[0] for _ in range(50)] == [200] * 50
        wait_until(lambda: server.stderr.read_text().count("startup complete") == 3)
        assert survivor in list_workers(server)
        assert len(list_workers(server)) == 2


def is_dead(pid: int) -> bool:
    """Whether a process has ended, although nobody may have asked for its exit code yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_server_that_runs_out_of_files_recovers_when_clients_go(tmp_path: Path) -> None:
    write_light_model(tmp_path)
    with run_server(tmp_path, limits={resource.RLIMIT_NOFILE: 64}) as server:
        with ExitStack() as stack, suppress(OSError):
            clients = [stack.enter_context(server.connect(timeout_s=0.1)) for _ in range(100)]
            for client in clients:
                client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                client.recv(100)
        wait_until(lambda: is_well(server))
        assert server.process.poll() is None


def is_well(server: Running) -> bool:
    """Whether a prediction is answered."""
    try:
        return server.ask("/predict", ROW)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_batch_that_needs_more_memory_than_there_is_gets_503(tmp_path: Path) -> None:
    write_light_model(tmp_path)
    limits = {"MAX_BODY_BYTES": 2**26, "MAX_BATCH_ROWS": 10**6}
    large = b"[" + b",".join([ROW] * 300_000) + b"]"
    with run_server(tmp_path, **limits) as server:
        assert server.ask("/predict/batch", BATCH)[0] == 200
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        limit = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) * 1024 + 3 * len(large) // 2
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, limit))
        status, answer = server.ask("/predict/batch", large)
        assert (status, answer["code"]) == (503, "out_of_memory")
        assert server.ask("/predict/batch", BATCH)[0] == server.ask("/predict", ROW)[0] == 200
