"""Ask the API for far more than it can do, and see what it still does.

16 connections make it busy, which is the measure; then come 500, on single rows and on batches of 1,000 rows: clients
that wait when they are told to, and clients that do not. Meanwhile /health and /ready are asked ten times a second.
Server and clients share the machine's cores. For Linux and macOS.

    python ci_cd/benchmarks/bench_overload.py --seconds 10
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from api_model import REPOSITORY, Row, make_model
from api_processes import await_answer, find_ports, read_memory, run_server
from environments import BenchError
from overload_clients import Counted, Job

CLIENTS = Path(__file__).with_name("overload_clients.py")
BUSY, TOO_MANY = 16, 500
N_TRAIN, N_ROWS, BATCH_ROWS = 4_000, 4_000, 1_000
PROBE_S = 0.1
SPARE_S = 60  # for clients to end


@dataclass(frozen=True)
class Seen:
    """What one load was like: answers a second, times in ms, memory in bytes."""

    answered: float
    answered_p50: float
    answered_p99: float
    refused: float
    refused_p99: float
    probe_max: float
    memory: int
    failed: int


class Prober(threading.Thread):
    """Asks /health and /ready in turn until it is stopped."""

    def __init__(self, port: int, pid: int) -> None:
        super().__init__(daemon=True)
        self.port, self.pid = port, pid
        self.is_over = threading.Event()
        self.slowest_ms = 0.0
        self.memory = 0
        self.failed = 0

    def run(self) -> None:
        """Ask."""
        from http.client import HTTPConnection, HTTPException

        number = 0
        while not self.is_over.wait(PROBE_S):
            number += 1
            started = time.perf_counter()
            connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("GET", ("/health", "/ready")[number % 2])
                self.failed += connection.getresponse().status != 200
            except (OSError, HTTPException):
                self.failed += 1
            finally:
                connection.close()
            self.slowest_ms = max(self.slowest_ms, (time.perf_counter() - started) * 1000)
            self.memory = max(self.memory, read_memory(self.pid) or 0)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seconds", type=float, default=10, help="of each load (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the API")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench_api", help="for the model")
    return parser.parse_args(argv)


def encode_bodies(rows: Sequence[Row], rows_each: int) -> list[str]:
    """Return the bodies that are posted: one row, or arrays of so many."""
    if rows_each == 1:
        return [json.dumps(row) for row in rows]
    return [json.dumps(rows[start : start + rows_each]) for start in range(0, len(rows), rows_each)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share does not exceed; 0 of none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def run_load(job: Job, pid: int) -> Seen:
    """Return what a load was like.

    Raises
    ------
    BenchError : the clients failed
    """
    prober = Prober(job.port, pid)
    prober.start()
    done = subprocess.run(
        [sys.executable, str(CLIENTS)],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        timeout=job.seconds + SPARE_S,
        check=False,
    )
    prober.is_over.set()
    prober.join()
    if done.returncode:
        raise BenchError(f"the clients failed: {done.stderr.strip()[-300:]}")
    counted = Counted(**json.loads(done.stdout))
    return Seen(
        answered=len(counted.answered_ms) / job.seconds,
        answered_p50=percentile(counted.answered_ms, 0.5),
        answered_p99=percentile(counted.answered_ms, 0.99),
        refused=len(counted.refused_ms) / job.seconds,
        refused_p99=percentile(counted.refused_ms, 0.99),
        probe_max=prober.slowest_ms,
        memory=prober.memory,
        failed=counted.others + counted.broken + prober.failed,
    )


def describe(what: str, seen: Seen, busy: Seen) -> str:
    """Return a line of the table."""
    cells = [
        what,
        f"{seen.answered:,.0f}",
        f"{seen.answered / busy.answered:.0%}",
        f"{seen.answered_p50:,.1f}",
        f"{seen.answered_p99:,.1f}",
        f"{seen.answered_p99 / busy.answered_p99:.1f}",
        f"{seen.refused:,.0f}",
        f"{seen.refused_p99:,.1f}",
        f"{seen.probe_max:,.0f}",
        f"{seen.memory / 2**20:,.0f}",
        str(seen.failed),
    ]
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the loads, and print the table."""
    args = parse_args(argv)
    model = make_model(args.folder, N_TRAIN, N_ROWS)
    port = find_ports()[0]
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--log-level", "warning"]
    environment = os.environ | {"MODEL_DIR": str(model.folder)} | dict(each.split("=", 1) for each in args.set)
    print(
        "| load | answered/s | of busy | p50 ms | p99 ms | of busy | refused/s | p99 ms | probe max ms | MB | failed |"
    )
    print("| --- |" + " ---: |" * 10)
    with run_server(command, environment, REPOSITORY) as process:
        body = json.dumps(model.rows[0]).encode()
        await_answer(process, f"http://127.0.0.1:{port}/predict", body, time.monotonic())
        for path, rows_each in (("/predict", 1), ("/predict/batch", BATCH_ROWS)):
            bodies = args.folder / f"overload-{rows_each}.jsonl"
            bodies.write_text("\n".join(encode_bodies(model.rows, rows_each)), encoding="utf-8")
            busy = None
            for connections, heeds in ((BUSY, True), (TOO_MANY, True), (TOO_MANY, False)):
                seen = run_load(Job(port, path, str(bodies), connections, args.seconds, heeds), process.pid)
                busy = busy or seen
                manner = "" if connections == BUSY else ", heeding" if heeds else ", not heeding"
                print(describe(f"{path}, {connections} connections{manner}", seen, busy), flush=True)


if __name__ == "__main__":
    main()
