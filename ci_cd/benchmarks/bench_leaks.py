"""Load the API for minutes, and look whether memory, files or threads grow.

Our stages make the model; wrk asks for rows and batches in turns, beside bodies at fault, connections that end in the
middle of a body, and models that are exchanged. After each turn the server rests, and what it holds is read. The first
third is its warming-up; after that nothing may grow by more than it varies: exit code 1 when something does. For Linux.

    python ci_cd/benchmarks/bench_leaks.py --minutes 10
"""

import argparse
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from api_load import encode_body, find_wrk, post, run_wrk, write_bodies
from api_model import REPOSITORY, Model, make_model
from api_peers import HOST, OURS_MANY, OURS_SINGLE, Place, list_servers
from api_processes import await_answer, find_children, find_ports, read_memory, run_server
from environments import BenchError

N_TRAIN, N_ROWS, BATCH_ROWS = 4_000, 4_000, 1_000
LOAD_S = 4
REST_S = 6  # longer than connections are kept open without a request
MEMORY_SLACK_BYTES = 8 * 2**20
SLACK = 2  # files and threads that may be there at one moment and not at another
FAULTS = (b"", b"{", b"[]", b"[1, 2]", b'{"count": NaN}', b'{"count": "many"}', b"[" * 50_000, b'{"nothing": 1}')


@dataclass(frozen=True)
class Held:
    """What a server and its children hold at one moment.

    Parameters
    ----------
    memory_bytes : resident
    files : open descriptors
    threads : running
    """

    memory_bytes: int
    files: int
    threads: int


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=10, help="of load (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="of the server (default: %(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "bench_api",
        help="for the model, which is taken from there while it is up to date (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    args.folder = args.folder.resolve()
    return args


def read_held(pid: int) -> Held:
    """Return what a process and its descendants hold."""
    files, threads = 0, 0
    for each in (pid, *find_children(pid)):
        with suppress(OSError):
            files += len(os.listdir(f"/proc/{each}/fd"))
            threads += len(os.listdir(f"/proc/{each}/task"))
    return Held(read_memory(pid) or 0, files, threads)


def break_off(url: str, count: int) -> None:
    """Open connections that end in the middle of a body."""
    port = int(url.rpartition(":")[2])
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    for _ in range(count):
        with socket.create_connection((HOST, port), timeout=10) as connection:
            connection.sendall(head)


def exchange_model(model: Model, served: Path, turn: int) -> None:
    """Put the model into the folder that is served once more, and every other time break it before."""
    if turn % 2:
        (served / "saved_model.npz").write_bytes(b"damaged")
        (served / "saved_model.json").touch()
        return
    for name in ("saved_model.npz", "saved_model.json"):
        shutil.copy(model.folder / name, served / f".{name}")
        (served / f".{name}").replace(served / name)


def take_turns(url: str, pid: int, model: Model, served: Path, folder: Path, minutes: float) -> Iterator[Held]:
    """Yield what the server holds after each turn of load, until the time is over.

    Raises
    ------
    BenchError : an answer is not as it should be
    """
    bodies, batches = folder / "bodies.jsonl", folder / "batches.jsonl"
    write_bodies(bodies, OURS_SINGLE, model.rows, 1)
    write_bodies(batches, OURS_MANY, model.rows, BATCH_ROWS)
    end, turn = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        for path, file, connections in ((OURS_SINGLE.path, bodies, 16), (OURS_MANY.path, batches, 2)):
            load = run_wrk(url + path, file, connections, LOAD_S)
            if load.is_void:
                raise BenchError(f"{path}: {load.refused} refused, {load.broken} broken, {load.late} late")
        for body in FAULTS:
            for path in (OURS_SINGLE.path, OURS_MANY.path):
                status, _ = post(url + path, body)
                if not 400 <= status < 500:
                    raise BenchError(f"status {status} for a body at fault")
        break_off(url, 20)
        exchange_model(model, served, turn)
        turn += 1
        time.sleep(REST_S)
        yield read_held(pid)


def find_growth(held: Sequence[Held]) -> list[str]:
    """Return what grew: where the median of the last third is above that of the second by more than the slack."""
    third = len(held) // 3
    found = []
    for place, (name, slack) in enumerate((("memory", MEMORY_SLACK_BYTES), ("files", SLACK), ("threads", SLACK))):
        values = [astuple(one)[place] for one in held]
        before, after = median(values[third : 2 * third]), median(values[-third:])
        if after - before > slack:
            found.append(f"{name} grew from {before:,.0f} to {after:,.0f}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Load the server, print what it holds after each turn, and say what grew; exit code 1 when something did."""
    args = parse_args(argv)
    sys.path.insert(0, str(REPOSITORY))  # for models
    args.folder.mkdir(parents=True, exist_ok=True)
    held = []
    try:
        find_wrk()
        model = make_model(args.folder, N_TRAIN, N_ROWS)
        served = args.folder / "exchanged"
        shutil.rmtree(served, ignore_errors=True)
        shutil.copytree(model.folder, served)
        server = next(server for server in list_servers() if server.key == "ours")
        place = Place(Path(sys.executable), args.folder, find_ports())
        environment = server.build_environment(place, served) | {"WEB_CONCURRENCY": str(args.workers)}
        with run_server(server.build_command(place), environment, args.folder) as process:
            body = encode_body(OURS_SINGLE, model.rows[:1])
            await_answer(process, place.url + OURS_SINGLE.path, body, time.monotonic())
            for one in take_turns(place.url, process.pid, model, served, args.folder, args.minutes):
                held.append(one)
                print(f"{one.memory_bytes / 2**20:.0f} MiB, {one.files} files, {one.threads} threads", flush=True)
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    if len(held) < 6:
        print(f"error: {len(held)} turns say nothing; give more --minutes", file=sys.stderr)
        return 1
    growth = find_growth(held)
    print("; ".join(growth) or f"nothing grew in {len(held)} turns")
    return 1 if growth else 0


if __name__ == "__main__":
    sys.exit(main())
