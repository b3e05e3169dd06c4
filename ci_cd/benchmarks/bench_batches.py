"""Race our API against MLflow, BentoML, MLServer, LitServe and FastAPI on one large batch, in all forms that they take.

Our stages make the model; each server is started anew for each form, on a free port, asked for all rows at once as
often as --turns says, and ended. Time counts from the first byte of the request to the last of the answer, memory at
its highest. The other servers live in .venv-api and .venv-mlserver, made when missing (2 GB). For Linux.

    python ci_cd/benchmarks/bench_batches.py --rounds 3 --turns 3
"""

import argparse
import csv
import http.client
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isclose
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from api_load import encode_body
from api_model import REPOSITORY, Model, Row, format_csv, make_model
from api_peers import MLFLOW, OURS_SINGLE, Call, Place, Server, list_servers
from api_processes import await_answer, find_children, find_ports, read_worked_s, run_server
from bench_api import KEYS, TOLERANCE, find_lock, make_environments, save_for_mlflow
from environments import BenchError, read_pins
from machine import describe_commit, describe_machine
from model_report import format_lines
from processes import find_others, read_cpu_s

N_TRAIN = 20_000
ANSWER_LIMIT_S = 120.0
METHOD = """\
All serve one model that our stages trained: {size}, 12 features, 3 of them categories, and answer **{n_rows:,} rows in
one request**. In each of {rounds} rounds each server is started anew for each form, as its documentation says, with one
worker and `OMP_NUM_THREADS=1`; it answers a small request of that form, then the large one {turns} times. The client
runs on the same cores, but waits meanwhile. Rows/s: the median; time from the first byte of the request to the last of
the answer. Memory: the highest of all its processes together, from its start to its end, as Linux counts it (`VmHWM`).
What a server answers is compared with our scorer; whoever answers otherwise is out."""


@dataclass(frozen=True)
class Contest:
    """A server and a form.

    Parameters
    ----------
    server : who
    form : of body and answer
    media_type : of both, where the server takes it
    encode : rows to a body
    decode : an answer to one number for each row
    path : where it is posted
    """

    server: Server
    form: str
    media_type: str
    encode: Callable[[Sequence[Row]], bytes]
    decode: Callable[[bytes], list[float]]
    path: str

    @property
    def name(self) -> str:
        """Server and form."""
        return f"{self.server.name}, {self.form}"


@dataclass
class Result:
    """What was measured: seconds of each turn, bytes of memory, body and answer, and cores busy for others."""

    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    sent: int = 0
    received: int = 0
    others: float | None = None

    def add(self, other: "Result") -> None:
        """Take in what another start showed."""
        self.seconds += other.seconds
        self.memory = max(self.memory, other.memory)
        self.others = max((busy for busy in (self.others, other.others) if busy is not None), default=None)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    takes_part = [key for key in KEYS if key in ("ours", "mlflow", "bentoml", "mlserver", "litserve", "fastapi")]
    parser.add_argument("--servers", default=",".join(takes_part), help="who takes part (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each server and form (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="requests after each start (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=100_000, help="of a request (default: %(default)s)")
    folder = Path(tempfile.gettempdir()) / "bench_batches"
    parser.add_argument("--folder", type=Path, default=folder, help="for the model (default: %(default)s)")
    parser.add_argument("--page", type=Path, help="where to write the table (default: FOLDER/batches.md)")
    args = parser.parse_args(argv)
    args.keys = [word.strip() for word in args.servers.split(",")]
    if strangers := sorted(set(args.keys) - set(takes_part)):
        parser.error(f"--servers: expects some of {', '.join(takes_part)}, got {', '.join(strangers)}")
    args.folder = args.folder.resolve()
    args.page = args.page or args.folder / "batches.md"
    return args


# Forms


def list_contests(keys: Sequence[str]) -> list[Contest]:
    """Return who takes part, in the order of their turns."""
    contests = []
    for server in list_servers():
        if server.key not in keys:
            continue
        if server.key == "ours":
            contests += list_ours(server)
        else:
            contests.append(call_json(server, server.many))
        if server.key == "mlflow":
            contests.append(Contest(server, "CSV", "text/csv", encode_csv, decode_mlflow, MLFLOW.path))
    return contests


def call_json(server: Server, call: Call) -> Contest:
    """Return the contest of a server in its JSON."""
    return Contest(
        server,
        "JSON",
        "application/json",
        lambda rows: encode_body(call, rows),
        lambda content: [float(value) for value in call.read_answers(json.loads(content))],
        call.path,
    )


def list_ours(server: Server) -> list[Contest]:
    """Return the contests of our server: all of its forms."""
    path = server.many.path
    table = "application/vnd.apache"
    return [
        call_json(server, server.many),
        Contest(server, "NDJSON", "application/x-ndjson", encode_ndjson, decode_ndjson, path),
        Contest(server, "CSV", "text/csv", encode_csv, decode_csv, path),
        Contest(server, "Parquet", f"{table}.parquet", encode_parquet, decode_parquet, path),
        Contest(server, "Arrow", f"{table}.arrow.stream", encode_arrow, decode_arrow, path),
    ]


def encode_csv(rows: Sequence[Row]) -> bytes:
    """Return rows as CSV."""
    return format_csv(list(rows)).encode()


def decode_mlflow(content: bytes) -> list[float]:
    """Return the predictions in MLflow's JSON."""
    return MLFLOW.read_answers(json.loads(content))


def decode_csv(content: bytes) -> list[float]:
    """Return the predictions in a CSV."""
    return [float(row["prediction"]) for row in csv.DictReader(io.StringIO(content.decode()))]


def encode_ndjson(rows: Sequence[Row]) -> bytes:
    """Return rows as lines of JSON."""
    return "\n".join(map(json.dumps, rows)).encode()


def decode_ndjson(content: bytes) -> list[float]:
    """Return the predictions in lines of JSON."""
    return [json.loads(line)["prediction"] for line in content.splitlines()]


def encode_parquet(rows: Sequence[Row]) -> bytes:
    """Return rows as a Parquet file, written as PyArrow writes it by itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def decode_parquet(content: bytes) -> list[float]:
    """Return the predictions in a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    answers: list[float] = pq.read_table(pa.BufferReader(content))["prediction"].to_pylist()
    return answers


def encode_arrow(rows: Sequence[Row]) -> bytes:
    """Return rows as an Arrow stream."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def decode_arrow(content: bytes) -> list[float]:
    """Return the predictions in an Arrow stream."""
    import pyarrow as pa

    answers: list[float] = pa.ipc.open_stream(content).read_all()["prediction"].to_pylist()
    return answers


# Measuring


def post(url: str, body: bytes, media_type: str) -> bytes:
    """Return the answer to one request on a connection of its own.

    Raises
    ------
    BenchError : its status is not 200, or there is none
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_LIMIT_S)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": media_type})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as err:
        raise BenchError(f"no answer ({err!r})") from err
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"status {answer.status}: {content[:200].decode(errors='replace')}")
    return content


def read_peak(pid: int) -> int:
    """Return the highest resident bytes of a process and its descendants."""
    total = 0
    for each in (pid, *find_children(pid)):
        with suppress(OSError, IndexError):
            said = Path(f"/proc/{each}/status").read_text(encoding="utf-8")
            total += int(said.partition("VmHWM:")[2].split()[0]) * 1024
    return total


def measure(contest: Contest, place: Place, model: Model, turns: int) -> Result:
    """Start a server, ask it, and end it.

    Raises
    ------
    BenchError : it does not start, or does not answer as it should
    """
    server, result = contest.server, Result()
    body = contest.encode(model.rows)
    small = encode_body(OURS_SINGLE if server.kind == "ours" else server.single, model.rows[:1])
    environment = server.build_environment(place, model.folder)
    started = time.monotonic()
    with run_server(server.build_command(place), environment, place.folder) as process:
        await_answer(process, place.url + server.single.path, small, started)
        post(place.url + contest.path, contest.encode(model.rows[:1]), contest.media_type)
        before, worked, since = read_cpu_s(), read_worked_s(process.pid), time.monotonic()
        for _ in range(turns):
            asked = time.perf_counter()
            content = post(place.url + contest.path, body, contest.media_type)
            result.seconds.append(time.perf_counter() - asked)
        after, worked = read_cpu_s(), read_worked_s(process.pid) - worked
        result.others = find_others(before, after and (after[0] - worked, after[1]), time.monotonic() - since)
        result.memory, result.sent, result.received = read_peak(process.pid), len(body), len(content)
    answers = contest.decode(content)
    if len(answers) != len(model.answers):
        raise BenchError(f"{len(answers):,} answers to {len(model.answers):,} rows")
    differ = sum(not isclose(a, b, rel_tol=TOLERANCE) for a, b in zip(answers, model.answers, strict=True))
    if differ:
        raise BenchError(f"{differ:,} answers are not ours")
    return result


# The page


def format_page(
    results: Sequence[tuple[Contest, Result]], notes: Sequence[str], args: argparse.Namespace, size: str
) -> str:
    """Return the page, in Markdown."""
    rates = {contest.name: args.rows / median(result.seconds) for contest, result in results}
    peers = {c.name: rates[c.name] for c, _ in results if c.server.kind == "peer"}
    peer_jsons = {c.name: rates[c.name] for c, _ in results if c.server.kind == "peer" and c.form == "JSON"}
    lines = [["", "rows/s", "÷ fastest peer", "÷ fastest peer's JSON", "memory", "sent", "received"]]
    for contest, result in results:
        rate = rates[contest.name]
        ratios = [f"{rate / max(some.values()):.2f}" if some else "" for some in (peers, peer_jsons)]
        sizes = [f"{size / 1e6:,.1f} MB" for size in (result.sent, result.received)]
        lines.append([contest.name, f"{rate:,.0f}", *ratios, f"{result.memory / 1e6:,.0f} MB", *sizes])
    pins = {name: version for lock in ("api", "mlserver") for name, version in read_pins(find_lock(lock)).items()}
    names = [name for name in ("mlflow", "bentoml", "mlserver", "litserve", "fastapi") if name in pins]
    busy = [result.others for _, result in results if result.others is not None]
    others = f"Others kept up to {max(busy):.2f} cores busy meanwhile. " if busy else ""
    sections = [
        "# How fast the API answers large batches",
        "Written by `bench_batches.py`. To repeat: "
        f"`.venv/bin/python ci_cd/benchmarks/bench_batches.py --rounds {args.rounds} "
        f"--turns {args.turns} --rows {args.rows}`",
        METHOD.format(size=size, n_rows=args.rows, rounds=args.rounds, turns=args.turns),
        f"{describe_machine()}. {others}\n{', '.join(f'{name} {pins[name]}' for name in names)}.\n"
        f"Ours at {describe_commit()}, {datetime.now(UTC):%Y-%m-%d}.",
        format_lines(lines),
        *notes,
    ]
    return "\n\n".join(sections) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the race and write the page."""
    args = parse_args(argv)
    sys.path.insert(0, str(REPOSITORY))  # for models
    args.folder.mkdir(parents=True, exist_ok=True)
    contests = list_contests(args.keys)
    try:
        pythons = make_environments([contest.server for contest in contests])
        model = make_model(args.folder, N_TRAIN, args.rows)
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    found: dict[str, Result] = {}
    notes: dict[str, str] = {}
    for contest in contests * args.rounds:
        if contest.name in notes:
            continue
        place = Place(pythons[contest.server.environment], args.folder, find_ports())
        try:
            if contest.server.key == "mlflow":
                save_for_mlflow(contest.server, place, model)
            result = measure(contest, place, model, args.turns)
        except BenchError as err:
            notes[contest.name] = f"{contest.name}: out, {err}."
            print(f"{contest.name}: failed, {err}", file=sys.stderr, flush=True)
            continue
        said = f"{args.rows / median(result.seconds):,.0f} rows/s, {result.memory / 1e6:,.0f} MB"
        print(f"{contest.name}: {said}", file=sys.stderr, flush=True)
        if contest.name in found:
            found[contest.name].add(result)
        else:
            found[contest.name] = result
    results = [(c, found[c.name]) for c in contests if c.name in found and c.name not in notes]
    page = format_page(results, list(notes.values()), args, model.size)
    args.page.write_text(page, encoding="utf-8")
    print(page)
    print(f"wrote {args.page}")
    return int(any(name.startswith("ours") for name in notes))


if __name__ == "__main__":
    sys.exit(main())
