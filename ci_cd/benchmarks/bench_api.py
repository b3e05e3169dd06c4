"""Race our API against MLflow, BentoML, MLServer, LitServe and a plain FastAPI app on the same model.

Our stages make the model; each server is started on a free port, asked, and ended, one at a time, in turns. wrk makes
the load, on the same cores: every request asks for another row. What a server answers is held against our scorer first.
The other servers live in .venv-api and .venv-mlserver, made when missing (2 GB). A round of all servers takes five
minutes. For Linux and macOS.

    python ci_cd/benchmarks/bench_api.py --rounds 3
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isclose
from pathlib import Path

from api_load import ask, encode_body, find_wrk, run_wrk, write_bodies
from api_model import REPOSITORY, Model, copy_uncompiled, make_model
from api_peers import SERVERS_FOLDER, Place, Server, list_servers
from api_processes import await_answer, find_ports, read_memory, read_worked_s, run_server
from api_report import Race, Turn, describe_turn, format_page
from environments import BenchError, make_venv, read_pins
from processes import find_others, read_cpu_s

HERE = Path(__file__).resolve().parent
KEYS = [server.key for server in list_servers()]
CONNECTIONS = (1, 16)
N_TRAIN = 4_000
N_ROWS = 4_000
BATCH_ROWS = 1_000  # what ours takes at most
CHECKED_ROWS = 50
WARM_S = 1
SETTLE_S = 0.5  # before memory is read
TOLERANCE = 1e-12  # relative: JSON may round the last digit


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--servers", type=_split, default=",".join(KEYS), help="who takes part (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of each load (default: %(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "bench_api",
        help="for the model, which is taken from there while it is up to date (default: %(default)s)",
    )
    parser.add_argument("--page", type=Path, help="where to write the tables (default: FOLDER/api.md)")
    args = parser.parse_args(argv)
    if strangers := sorted(set(args.servers) - set(KEYS)):
        parser.error(f"--servers: expects some of {', '.join(KEYS)}, got {', '.join(strangers)}")
    for flag in ("rounds", "seconds"):
        if getattr(args, flag) < 1:
            parser.error(f"--{flag}: expects 1 or more, got {getattr(args, flag)}")
    args.folder = args.folder.resolve()
    args.page = args.page or args.folder / "api.md"
    return args


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def find_lock(environment: str) -> Path:
    """Return the lock file of an environment of the other servers."""
    return HERE / f"requirements-{environment}.txt"


def make_environments(servers: Sequence[Server]) -> dict[str | None, Path]:
    """Return the Python of each environment that is needed; that of ours under None."""
    names = sorted({server.environment for server in servers if server.environment})
    pythons: dict[str | None, Path] = {name: make_venv(find_lock(name), REPOSITORY / f".venv-{name}") for name in names}
    return pythons | {None: Path(sys.executable)}


def save_for_mlflow(server: Server, place: Place, model: Model) -> None:
    """Save the models that MLflow serves, unless they are there and as old as ours at most."""
    saved, source = place.folder / "mlflow", model.folder / "saved_model.json"
    if saved.exists() and saved.stat().st_mtime > source.stat().st_mtime:
        return
    shutil.rmtree(saved, ignore_errors=True)
    script = str(SERVERS_FOLDER / "save_mlflow.py")
    environment = server.build_environment(place, model.folder)
    command = [str(place.python), script, "--folder", str(saved)]
    done = subprocess.run(command, env=environment, cwd=place.folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise BenchError(f"MLflow could not save the model: {lines[-1]}")


def check_answers(server: Server, url: str, model: Model) -> None:
    """Raise unless a server answers some rows, one by one and together, as our scorer does.

    Raises
    ------
    BenchError : it does not
    """
    rows = model.rows[:CHECKED_ROWS]
    singles = [answer for row in rows for answer in ask(url, server.single, [row])]
    for what, answers in (("one by one", singles), ("together", ask(url, server.many, rows))):
        differ = [i for i, (a, b) in enumerate(zip(answers, model.answers)) if not isclose(a, b, rel_tol=TOLERANCE)]
        if differ or len(answers) != len(rows):
            raise BenchError(f"{len(answers)} answers to {len(rows)} rows {what}, {len(differ)} of them not ours")


def take_turn(server: Server, place: Place, model: Model, seconds: int, is_first: bool) -> Turn:
    """Start a server, measure it and end it.

    Raises
    ------
    BenchError : it does not start, or does not answer as it should
    """
    command = server.build_command(place)
    environment = server.build_environment(place, model.folder)
    bodies, batches = place.folder / "bodies.jsonl", place.folder / "batches.jsonl"
    write_bodies(bodies, server.single, model.rows, 1)
    write_bodies(batches, server.many, model.rows, BATCH_ROWS)
    started = time.monotonic()
    with run_server(command, environment, place.folder) as process:
        single, many = place.url + server.single.path, place.url + server.many.path
        cold_s = await_answer(process, single, encode_body(server.single, model.rows[:1]), started)
        time.sleep(SETTLE_S)
        memory_bytes = read_memory(process.pid)
        if is_first and server.kind != "bound":
            check_answers(server, place.url, model)
        run_wrk(single, bodies, CONNECTIONS[-1], WARM_S)
        before, worked, since = read_cpu_s(), read_worked_s(process.pid), time.monotonic()
        loads = {connections: run_wrk(single, bodies, connections, seconds) for connections in CONNECTIONS}
        batch = None if server.kind == "bound" else run_wrk(many, batches, 1, seconds)
        after, worked = read_cpu_s(), read_worked_s(process.pid) - worked
        others = find_others(before, after and (after[0] - worked, after[1]), time.monotonic() - since)
    return Turn(cold_s, memory_bytes, loads, batch, others)


def run_rounds(args: argparse.Namespace) -> Iterator[Race]:
    """Yield the race after each round, in which every server has a turn; one that fails is out."""
    find_wrk()
    servers = [server for server in list_servers() if server.key in args.servers]
    pythons = make_environments(servers)
    args.folder.mkdir(parents=True, exist_ok=True)
    print("making the model", file=sys.stderr)
    model = make_model(args.folder, N_TRAIN, N_ROWS)
    pickled = replace(model, folder=copy_uncompiled(model.folder, args.folder / "uncompiled"))
    race = Race(servers, model.size, len(model.rows), BATCH_ROWS)
    for turn in range(args.rounds):
        for server in servers:
            if server.key in race.notes:
                continue
            place = Place(pythons[server.environment], args.folder, find_ports())
            served = pickled if server.key == "ours-pickle" else model
            try:
                if server.key.startswith("mlflow"):
                    save_for_mlflow(server, place, model)
                done = take_turn(server, place, served, args.seconds, turn == 0)
            except BenchError as err:
                race.notes[server.key] = str(err)
                print(f"{server.name}: failed, {err}", file=sys.stderr, flush=True)
                continue
            race.turns.setdefault(server.key, []).append(done)
            print(f"{server.name}: {describe_turn(done)}", file=sys.stderr, flush=True)
        yield race


def describe_flags(args: argparse.Namespace) -> str:
    """Return the flags that repeat a run."""
    words = [f"--servers {','.join(args.servers)}"] if set(args.servers) != set(KEYS) else []
    return " ".join([*words, f"--rounds {args.rounds}", f"--seconds {args.seconds}"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the race and write the page, anew after each round; exit code 1 when ours failed."""
    args = parse_args(argv)
    sys.path.insert(0, str(REPOSITORY))  # for models
    versions = {name: version for lock in ("api", "mlserver") for name, version in read_pins(find_lock(lock)).items()}
    args.page.parent.mkdir(parents=True, exist_ok=True)
    try:
        for race in run_rounds(args):
            page = format_page(race, versions, describe_flags(args))
            args.page.write_text(page, encoding="utf-8")
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    print(page)
    print(f"wrote {args.page}")
    if "ours" in args.servers and None in [race.find_rate("ours", connections) for connections in (*CONNECTIONS, None)]:
        print(f"error: ours failed, {race.notes.get('ours', 'a load of it is void')}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
