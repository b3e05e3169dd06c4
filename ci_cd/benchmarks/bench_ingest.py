"""Race our loader and preprocessor against DuckDB, Polars, PyArrow, pandas and scikit-learn on made-up sales.

Every run is a process of its own; the tools take turns. Wall time includes start and imports; peak memory is the
process's largest resident set, as the kernel counts it. The other tools live in .venv-bench, made when missing. A run
that leaves nothing out writes ci_cd/benchmarks/results/ingest.md. For Linux and macOS.

    python ci_cd/benchmarks/bench_ingest.py --sizes 30MB,1GB
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from environments import BenchError, make_venv, read_pins
from ingest_report import Race, Run, format_page, format_race

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PEERS_LOCK = HERE / "requirements-peers.txt"
PEERS_VENV = REPOSITORY / ".venv-bench"
RESULTS = HERE / "results" / "ingest.md"
TARGET = "amount"
CONTESTS = {
    "ingest": ("ours", "duckdb", "polars", "pyarrow", "pandas"),
    "preprocess": ("ours", "duckdb", "polars", "sklearn"),
}
ALL_TOOLS = tuple(dict.fromkeys(tool for tools in CONTESTS.values() for tool in tools))
OURS = {"ingest": "data_ingestion/data_loader.py", "preprocess": "data_ingestion/data_preprocessor.py"}
# Tools that hold everything in memory run only where the CSV is at most this share of it.
LARGEST_SHARE = {"pandas": 1 / 3, "sklearn": 1 / 10}
LARGE = 10**9  # from here on two rounds are enough, and one for scikit-learn
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 30MB; decimal units.

    Raises
    ------
    ValueError : it is no such size
    """
    match = re.fullmatch(r"(\d+)(KB|MB|GB)", text)
    if match is None:
        raise ValueError(f"expects sizes such as 30MB or 1GB, got {text!r}")
    return int(match[1]) * UNITS[match[2]]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", choices=CONTESTS, help="one contest (default: both)")
    parser.add_argument("--sizes", type=_split, default="30MB,1GB", help="of the CSVs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, help="runs of each tool (default: 3, from 1GB on 2)")
    parser.add_argument(
        "--tools", type=_split, default=",".join(ALL_TOOLS), help="who takes part (default: %(default)s)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "bench_ingest",
        help="for the CSVs, which are taken from there where they are, and outputs (default: %(default)s)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the CSVs made here in the folder")
    args = parser.parse_args(argv)
    for size in args.sizes:
        try:
            parse_size(size)
        except ValueError as err:
            parser.error(f"--sizes: {err}")
    if strangers := sorted(set(args.tools) - set(ALL_TOOLS)):
        parser.error(f"--tools: expects some of {', '.join(ALL_TOOLS)}, got {', '.join(strangers)}")
    if args.rounds is not None and args.rounds < 1:
        parser.error(f"--rounds: expects 1 or more, got {args.rounds}")
    return args


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def make_table(path: Path, size_bytes: int) -> None:
    """Write the CSV. A process of its own, for a child's peak memory begins at what its parent has."""
    print(f"generating {path.name}", file=sys.stderr)
    script = str(HERE / "sales_table.py")
    command = [sys.executable, script, "--size-bytes", str(size_bytes), "--path", str(path)]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise BenchError(f"{path} could not be written, see above. Name another place: --folder FOLDER")


def measure(command: Sequence[str]) -> Run:
    """Run one command and return its wall time and its peak memory.

    Raises
    ------
    BenchError : it failed; with the last line it said
    """
    os.sync()  # what the run before left to write is not this one's burden
    steering = ("PIPELINE_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise BenchError(f"exit code {process.returncode}: {lines[-1] if lines else 'it said nothing'}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_maxrss * unit)


def warm(path: Path) -> None:
    """Read the file once, so that the first tool finds it in memory as the others do."""
    with path.open("rb") as file:
        while file.read(2**24):
            pass


def build_command(contest: str, tool: str, source: Path, folder: Path, python: Path) -> list[str]:
    """Return the command with which a tool runs a contest.

    Parameters
    ----------
    contest : ingest or preprocess
    tool : its name
    source : the file to read; our preprocessor reads what our loader left instead
    folder : the tool's own, for its outputs
    python : the other tools' Python
    """
    if tool == "ours":
        flags = ["--source", str(source), "--target", TARGET, "--infer"] if contest == "ingest" else []
        return [sys.executable, str(REPOSITORY / OURS[contest]), "--root", str(folder), *flags]
    paths = ["--source", str(source), "--target", str(folder / f"{contest}.parquet")]
    return [str(python), str(HERE / "peers.py"), "--job", f"{contest}_{tool}", *paths]


def find_typed(tools: Sequence[str], scratch: Path) -> Path:
    """Return the Parquet that the first of the tools made of the CSV."""
    outputs = [scratch / tool / ("data/raw.parquet" if tool == "ours" else "ingest.parquet") for tool in tools]
    found = next((path for path in outputs if path.exists()), None)
    if found is None:
        raise BenchError("nobody made a Parquet of the CSV to preprocess. Mend what failed, or choose other --tools.")
    return found


def is_too_large(tool: str, size_bytes: int) -> bool:
    """Return whether a tool that holds everything in memory is better spared a CSV of this size."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return size_bytes > LARGEST_SHARE.get(tool, float("inf")) * memory_bytes


def run_race(race: Race, tools: Sequence[str], rounds: int, source: Path, scratch: Path, python: Path) -> None:
    """Let the tools take turns and put what was measured into the race; a tool that fails is out.

    Parameters
    ----------
    race : filled here
    tools : their names, in the order of their turns
    rounds : runs of each
    source : the file to read
    scratch : holds a folder of each tool
    python : the other tools' Python
    """
    for tool in tools:
        if is_too_large(tool, race.size_bytes):
            race.notes[tool] = f"skipped, for the CSV is larger than 1/{1 / LARGEST_SHARE[tool]:.0f} of memory"
    for turn in range(rounds):
        for tool in tools:
            is_enough = turn > 0 and tool == "sklearn" and race.size_bytes >= LARGE
            if tool not in race.notes and not is_enough:
                take_turn(race, tool, source, scratch / tool, python)


def take_turn(race: Race, tool: str, source: Path, folder: Path, python: Path) -> None:
    """Run one tool once, in a fresh folder where it reads the CSV; see `run_race`."""
    if race.contest == "ingest":
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    try:
        run = measure(build_command(race.contest, tool, source, folder, python))
    except BenchError as err:
        race.notes[tool] = f"failed, {err}"
        print(f"{race.title}: {tool} {race.notes[tool]}", file=sys.stderr)
        return
    race.runs.setdefault(tool, []).append(run)
    print(f"{race.title}: {tool} {run.seconds:.2f} s, {run.peak_bytes / 1e6:,.0f} MB", file=sys.stderr)


def run_size(size: str, table: Path, args: argparse.Namespace, python: Path) -> list[Race]:
    """Return the races on one CSV."""
    size_bytes = parse_size(size)
    rounds = args.rounds or (2 if size_bytes >= LARGE else 3)
    ingest, preprocess = (Race(contest, size, size_bytes) for contest in CONTESTS)
    ingesting, preprocessing = ([tool for tool in tools if tool in args.tools] for tools in CONTESTS.values())
    warm(table)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="scratch_") as folder:
        scratch = Path(folder)
        if args.only == "preprocess":  # somebody has to make its input, but nobody looks at the clock
            run_race(ingest, ingesting[:1], 1, table, scratch, python)
        else:
            run_race(ingest, ingesting, rounds, table, scratch, python)
        if args.only != "ingest":
            run_race(preprocess, preprocessing, rounds, find_typed(ingesting, scratch), scratch, python)
    return [race for race in (ingest, preprocess) if args.only in (None, race.contest)]


def run_benchmark(args: argparse.Namespace) -> list[Race]:
    """Return the races on all sizes, and print each as soon as it is over."""
    python = make_venv(PEERS_LOCK, PEERS_VENV)
    args.folder.mkdir(parents=True, exist_ok=True)
    races = []
    for size in args.sizes:
        table = args.folder / f"sales_{size}.csv"
        is_ours = not table.exists()
        try:
            if is_ours:
                make_table(table, parse_size(size))
            for race in run_size(size, table, args, python):
                print(format_race(race), flush=True)
                races.append(race)
        finally:
            if is_ours and not args.keep:
                table.unlink(missing_ok=True)
    return races


def main(argv: Sequence[str] | None = None) -> int:
    """Run the contests; exit code 1 when ours failed."""
    args = parse_args(argv)
    try:
        races = run_benchmark(args)
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    failed = [race.title for race in races if "ours" in race.notes]
    if failed:
        print(f"error: ours failed in {', '.join(failed)}; the reason is above.", file=sys.stderr)
        return 1
    if args.only is None and set(args.tools) == set(ALL_TOOLS):
        RESULTS.parent.mkdir(exist_ok=True)
        flags = f"--sizes {','.join(args.sizes)}" + (f" --rounds {args.rounds}" if args.rounds else "")
        RESULTS.write_text(format_page(races, read_pins(PEERS_LOCK), flags), encoding="utf-8")
        print(f"wrote {RESULTS.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
