"""What bench_api.py measured, as a page in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import mean, median

from api_load import Load
from api_peers import Server
from machine import describe_commit, describe_machine
from model_report import format_lines

METHOD = """\
All serve one model that our stages trained: {size}, 12 features, 3 of them categories. Each is a process
of its own on a free port, started as its documentation says, with one worker and `OMP_NUM_THREADS=1` (two threads
make no difference here); they take turns, one at a time. wrk makes the load from one thread, and **shares the cores
with the server**, so that a fast server's figure is what is left of them. Every request asks for another of
{n_rows:,} rows; connections are kept open; the next request is sent when the answer to the one before is there. The
median of the turns counts. What a server answers is compared with our scorer before it is measured; whoever answers
otherwise is out. A load with any status of 400 and more, broken connection or request without an answer is *void*.

- **bare uvicorn** answers a constant and reads nothing: the bound for whatever runs on it. It and ours run without
  uvicorn's access log.
- **ours** is `uvicorn app.main:app`; *from the pickle*: the same where the model could not be compiled;
  *two workers*: with `WEB_CONCURRENCY=2`, on the two cores where wrk runs too.
- **MLflow** is `mlflow models serve` of a model without a signature, whose check takes time; **MLServer** is its
  runtime for scikit-learn; **BentoML**, **LitServe** and **FastAPI** call `pipeline.predict` on a table made of the
  rows (`api_servers/`). *Its batching*: requests that come close together are answered together. *Our scorer*:
  `models/scorer.py` in the place of the pipeline.
- **of bare**: requests/s over those of bare uvicorn. **ours ÷ it**: above 1, ours is faster."""


@dataclass(frozen=True)
class Turn:
    """What one start of a server showed.

    Parameters
    ----------
    cold_s : from its start to its first answer
    memory_bytes : of all its processes after that, pages they share counted for each; None where it is not known
    loads : of single rows, by the number of connections
    batch : of many rows at a time on one connection; None where there is none
    others : cores that were busy for somebody else meanwhile
    """

    cold_s: float
    memory_bytes: int | None
    loads: Mapping[int, Load]
    batch: Load | None
    others: float | None


@dataclass
class Race:
    """All turns, and why a server is out, by its key."""

    servers: Sequence[Server]
    size: str
    n_rows: int
    batch_rows: int
    turns: dict[str, list[Turn]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def list_measured(self) -> list[Server]:
        """Return the servers that were not out."""
        return [server for server in self.servers if server.key in self.turns and server.key not in self.notes]

    def find_loads(self, key: str, connections: int | None) -> list[Load]:
        """Return the loads of a server; `connections` None means those of many rows."""
        turns = self.turns.get(key, []) if key not in self.notes else []
        found = [turn.batch if connections is None else turn.loads.get(connections) for turn in turns]
        return [load for load in found if load is not None]

    def find_rate(self, key: str, connections: int | None) -> float | None:
        """Return the median requests a second; None where there are none, or where a load is void."""
        loads = self.find_loads(key, connections)
        if not loads or any(load.is_void for load in loads):
            return None
        return median(load.rate for load in loads)

    def find_fastest(self, kind: str, connections: int | None) -> Server | None:
        """Return the server of a kind with the highest rate."""
        rates = {server.key: self.find_rate(server.key, connections) for server in self.servers if server.kind == kind}
        known = {key: rate for key, rate in rates.items() if rate is not None}
        best = max(known, key=lambda key: known[key], default=None)
        return next((server for server in self.servers if server.key == best), None)


def describe_turn(turn: Turn) -> str:
    """Return a turn as a line for the terminal."""
    words = [f"first answer after {turn.cold_s:.2f} s"]
    for connections, load in turn.loads.items():
        words.append(f"{connections} connections {load.rate:,.0f}/s" + (f" VOID {load}" if load.is_void else ""))
    if turn.batch is not None:
        words.append(f"batches {turn.batch.rate:.1f}/s" + (f" VOID {turn.batch}" if turn.batch.is_void else ""))
    if turn.others is not None and turn.others > 0.2:
        words.append(f"while others kept {turn.others:.1f} cores busy")
    return ", ".join(words)


def format_singles(race: Race, connections: int) -> str:
    """Return how fast single rows were answered."""
    lines = [["", "requests/s", "p50", "p99", "of bare", "ours ÷ it"]]
    bare, ours = race.find_rate("bare", connections), race.find_rate("ours", connections)
    for server in race.list_measured():
        rate = race.find_rate(server.key, connections)
        if rate is None:
            lines.append([server.name, describe_faults(race.find_loads(server.key, connections)), "", "", "", ""])
            continue
        loads = race.find_loads(server.key, connections)
        times = [format_ms(median(getattr(load, name) for load in loads)) for name in ("p50_ms", "p99_ms")]
        share = f"{rate / bare:.1%}" if bare and server.kind != "bound" else ""
        ratio = format_ratio(ours / rate) if ours and server.key != "ours" else ""
        lines.append([server.name, f"{rate:,.0f}", *times, share, ratio])
    return format_lines(lines)


def format_batches(race: Race) -> str:
    """Return how fast many rows at a time were answered."""
    lines = [["", "rows/s", "p50", "ours ÷ it"]]
    ours = race.find_rate("ours", None)
    for server in race.list_measured():
        loads, rate = race.find_loads(server.key, None), race.find_rate(server.key, None)
        if rate is None:
            lines += [[server.name, describe_faults(loads), "", ""]] if loads else []
            continue
        ratio = format_ratio(ours / rate) if ours and server.key != "ours" else ""
        p50 = format_ms(median(load.p50_ms for load in loads))
        lines.append([server.name, f"{rate * race.batch_rows:,.0f}", p50, ratio])
    return format_lines(lines)


def format_starts(race: Race) -> str:
    """Return how long servers take to their first answer, and their memory then."""
    lines = [["", "first answer", "idle memory"]]
    for server in race.list_measured():
        turns = race.turns[server.key]
        memory = [turn.memory_bytes for turn in turns if turn.memory_bytes is not None]
        size = f"{median(memory) / 1e6:,.0f} MB" if memory else ""
        lines.append([server.name, f"{median(turn.cold_s for turn in turns):.2f} s", size])
    return format_lines(lines)


def format_ratio(ratio: float) -> str:
    """Return a ratio with two digits that tell something."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


def format_ms(ms: float) -> str:
    """Return milliseconds with digits that tell something."""
    return f"{ms:,.0f} ms" if ms >= 10 else f"{ms:.1f} ms" if ms >= 1 else f"{ms:.2f} ms"


def describe_faults(loads: Sequence[Load]) -> str:
    """Return why loads are void."""
    counts = {name: sum(getattr(load, name) for load in loads) for name in ("refused", "broken", "late")}
    return "void: " + (", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "no answer")


def format_summary(race: Race) -> str:
    """Return how ours stands beside the bound, and beside the fastest of each kind."""
    kinds = {
        "peer": "the fastest peer",
        "batching": "the fastest with its batching",
        "inside": "the fastest with our scorer inside",
    }
    loads: dict[str, int | None] = {
        "1 connection": 1,
        "16 connections": 16,
        f"{race.batch_rows:,} rows at a time": None,
    }
    lines = [["ours ÷", *loads]]
    lines.append(["bare uvicorn", *(format_share(race, connections) for connections in loads.values())])
    for kind, words in kinds.items():
        cells = [format_fastest(race, kind, connections) for connections in loads.values()]
        lines += [[words, *cells]] if any(cells) else []
    return format_lines(lines)


def format_share(race: Race, connections: int | None) -> str:
    """Return ours over the bound."""
    ours, bare = race.find_rate("ours", connections), race.find_rate("bare", connections)
    return f"{ours / bare:.1%}" if ours and bare else ""


def format_fastest(race: Race, kind: str, connections: int | None) -> str:
    """Return ours over the fastest of a kind, and its name."""
    server, ours = race.find_fastest(kind, connections), race.find_rate("ours", connections)
    rate = race.find_rate(server.key, connections) if server else None
    return f"{format_ratio(ours / rate)} ({server.name.partition(',')[0]})" if ours and rate and server else ""


def describe_others(race: Race) -> str:
    """Return how busy others kept the cores, as far as that is known, in a line."""
    others = [turn.others for turns in race.turns.values() for turn in turns if turn.others is not None]
    if not others:
        return ""
    return f"Others kept {mean(others):.2f} cores busy meanwhile on average, {max(others):.2f} at most.\n"


def format_page(race: Race, versions: Mapping[str, str], flags: str) -> str:
    """Return the page, in Markdown.

    Parameters
    ----------
    race : what was measured
    versions : of the other servers, by package
    flags : with which the benchmark was run
    """
    shown = {
        name: versions[name] for name in ("mlflow", "bentoml", "mlserver", "litserve", "fastapi") if name in versions
    }
    notes = [f"{server.name}: out, {race.notes[server.key]}." for server in race.servers if server.key in race.notes]
    turns = max((len(turns) for turns in race.turns.values()), default=0)
    sections: list[tuple[str, Callable[[Race], str]]] = [
        ("Single rows, 1 connection", lambda race: format_singles(race, 1)),
        ("Single rows, 16 connections", lambda race: format_singles(race, 16)),
        (f"{race.batch_rows:,} rows at a time, 1 connection", format_batches),
        ("Start", format_starts),
    ]
    head = [
        "# How fast the API answers",
        f"Written by `bench_api.py`. To repeat: `.venv/bin/python ci_cd/benchmarks/bench_api.py {flags}`",
        METHOD.format(size=race.size, n_rows=race.n_rows),
        f"Turns of each: {turns}. {describe_machine()}.\n{describe_others(race)}"
        f"{', '.join(f'{name} {version}' for name, version in shown.items())}.\n"
        f"Ours at {describe_commit()}, {datetime.now(UTC):%Y-%m-%d}.",
        format_summary(race),
        *notes,
    ]
    return "\n\n".join([*head, *(f"## {title}\n\n{write(race)}" for title, write in sections)]) + "\n"
