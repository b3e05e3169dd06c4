"""Race our training against FLAML, AutoGluon and three boosting libraries: the same rows, time and two cores for all.

Each CSV of --data, and the diamonds and the flights that two packages hold, is split as our stages split it, once for
each seed; every tool fits the train rows in a process of its own and answers the test rows. The other tools live in
.venv-models and .venv-autogluon, made when missing (9 GB). Results are added to FOLDER/results.jsonl at once: what is
there is not run again, unless code, CSV or budget changed, so that an interrupted benchmark goes on. For Linux and
macOS.

    python ci_cd/benchmarks/bench_models.py --data houses.csv:price --data customers.csv:churn
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from environments import BenchError, make_venv
from model_report import NAMES, format_page
from model_standings import Result, score_answers
from model_tables import PACKAGED, Table, digest_file, parse_table, split_table, unpack_table
from processes import find_others, read_cpu_s, run_bounded

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
ENVIRONMENTS = {"flaml": "models", "autogluon": "autogluon", "hgb": "models", "lightgbm": "models", "xgboost": "models"}
SLOWEST = 5  # a tool is stopped after so many budgets, and
GRACE_S = 300  # this, for start, imports and answers
BUSY = 0.2  # when others keep more than so many cores busy, a tool fits less in its time than it could


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _split_numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expects numbers with commas between, got {text!r}") from None


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags; `tables` are those of --data that --datasets leaves, `packaged` the names of the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=parse_table, action="append", default=[], help="FILE:TARGET, may be repeated")
    parser.add_argument("--datasets", type=_split, help=f"some of the CSVs by name, {' and '.join(PACKAGED)} too")
    parser.add_argument("--seeds", type=_split_numbers, default="42,43,44", help="(default: %(default)s)")
    parser.add_argument("--tools", type=_split, default=",".join(NAMES), help="who takes part (default: %(default)s)")
    parser.add_argument("--budget-s", type=float, default=30, help="seconds for a fit (default: %(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "bench_models",
        help="for results.jsonl and whatever else is written (default: %(default)s)",
    )
    parser.add_argument("--page", type=Path, help="where to write the tables (default: FOLDER/models.md)")
    args = parser.parse_args(argv)
    stems = [table.path.stem for table in args.data] + list(PACKAGED)
    for flag, words, known in (("datasets", args.datasets or [], stems), ("tools", args.tools, list(NAMES))):
        if strangers := sorted(set(words) - set(known)):
            parser.error(f"--{flag}: expects some of {', '.join(dict.fromkeys(known))}, got {', '.join(strangers)}")
    if args.budget_s <= 0:
        parser.error(f"--budget-s: expects more than 0, got {args.budget_s:g}")
    chosen = args.datasets or stems
    args.tables = [table for table in args.data if table.path.stem in chosen]
    args.packaged = [name for name in PACKAGED if name in chosen]
    args.page = args.page or args.folder / "models.md"
    return args


def find_lock(environment: str) -> Path:
    """Return the lock file of an environment of the other tools."""
    return HERE / f"requirements-{environment}.txt"


def make_environments(tools: Sequence[str], packaged: Sequence[str]) -> dict[str, Path]:
    """Return the Python of each environment that is needed."""
    names = {ENVIRONMENTS[tool] for tool in tools if tool in ENVIRONMENTS} | ({"models"} if packaged else set())
    return {name: make_venv(find_lock(name), REPOSITORY / f".venv-{name}") for name in sorted(names)}


def digest_tool(tool: str) -> str:
    """Return what changes when a tool does: the lock file of its environment, or the code of our stages."""
    if tool in ENVIRONMENTS:
        return digest_file(find_lock(ENVIRONMENTS[tool]))
    from data_ingestion.handoff import sha256_code

    return sha256_code(["data_ingestion", "models"], ["scikit-learn", "pandas", "pyarrow"])[:12]


def run_tool(result: Result, folder: Path, python: Path) -> Result:
    """Return the result with what a tool achieved on the split in the folder, or why it failed."""
    import pandas as pd

    target = json.loads((folder / "table.json").read_text(encoding="utf-8"))["target"]
    flags = ["--tool", result.tool, "--folder", str(folder), "--budget-s", str(result.budget_s)]
    command = [str(python), str(HERE / "model_tools.py"), *flags, "--seed", str(result.seed)]
    for name in ("predictions.parquet", "run.json"):
        (folder / name).unlink(missing_ok=True)
    try:
        run_bounded(command, folder, SLOWEST * result.budget_s + GRACE_S)
        y = pd.read_parquet(folder / "test.parquet", columns=[target])[target]
        y = y if result.task == "regression" else y.astype(str)
        error, accuracy = score_answers(result.task, y, pd.read_parquet(folder / "predictions.parquet"))
    except (BenchError, ValueError) as err:
        return replace(result, note=str(err))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return replace(result, error=error, accuracy=accuracy, **run)


def read_results(path: Path) -> dict[tuple[object, ...], Result]:
    """Return the results of former runs by key, those that failed left out, for they are tried again."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    results = [Result(**json.loads(line)) for line in lines]
    return {result.key: result for result in results if result.error is not None}


def run_split(table: Table, seed: int, args: argparse.Namespace, pythons: dict[str, Path]) -> list[Result]:
    """Return the results of all tools on one split, those of former runs among them; write each as soon as it is in."""
    path = args.folder / "results.jsonl"
    known = read_results(path)
    blank = Result(table.name, digest_file(table.path), seed, "", "", args.budget_s, "", 0, 0)
    asked = [replace(blank, tool=tool, code=digest_tool(tool)) for tool in args.tools]
    results = [known[result.key] for result in asked if result.key in known]
    missing = [result for result in asked if result.key not in known]
    if not missing:
        return results
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="scratch_") as scratch:
        folder = Path(scratch)
        about = split_table(table, seed, folder)
        for result in missing:
            python = pythons[ENVIRONMENTS[result.tool]] if result.tool in ENVIRONMENTS else Path(sys.executable)
            before, started = read_cpu_s(), time.monotonic()
            done = run_tool(replace(result, **about), folder, python)  # type: ignore[arg-type]
            done = replace(done, others=find_others(before, read_cpu_s(), time.monotonic() - started))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(done)) + "\n")
            print(describe_result(done), file=sys.stderr, flush=True)
            results.append(done)
    return results


def describe_result(result: Result) -> str:
    """Return a result as a line for the terminal."""
    if result.error is None:
        return f"{result.table} seed {result.seed}: {result.tool} failed, {result.note}"
    busy = f", while others kept {result.others:.1f} cores busy" if (result.others or 0) > BUSY else ""
    return f"{result.table} seed {result.seed}: {result.tool} {result.error:.6g}, fit {result.fit_s:.1f} s{busy}"


def run_benchmark(args: argparse.Namespace) -> list[Result]:
    """Return the results of all tools on all tables."""
    pythons = make_environments(args.tools, args.packaged)
    args.folder.mkdir(parents=True, exist_ok=True)
    packaged = [unpack_table(name, pythons["models"], args.folder) for name in args.packaged]
    started = time.monotonic()
    results = []
    for table in [*args.tables, *packaged]:
        for seed in args.seeds:
            results += run_split(table, seed, args, pythons)
    print(f"{len(results)} results after {(time.monotonic() - started) / 60:.0f} min", file=sys.stderr)
    return results


def describe_flags(args: argparse.Namespace) -> str:
    """Return the flags that repeat a run, files without their folders."""
    words = [f"--data {table.path.name}:{table.target}" for table in args.tables]
    words += [f"--datasets {','.join(args.datasets)}"] if args.datasets else []
    words += [f"--tools {','.join(args.tools)}"] if set(args.tools) != set(NAMES) else []
    return " ".join([*words, f"--seeds {','.join(map(str, args.seeds))}", f"--budget-s {args.budget_s:g}"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the race and write the page; exit code 1 when ours failed."""
    args = parse_args(argv)
    sys.path.insert(0, str(REPOSITORY))  # for data_ingestion
    try:
        results = run_benchmark(args)
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    args.page.parent.mkdir(parents=True, exist_ok=True)
    page = format_page(results, describe_flags(args))
    args.page.write_text(page, encoding="utf-8")
    print(page)
    print(f"wrote {args.page}")
    failed = [f"{result.table} seed {result.seed}" for result in results if result.tool == "ours" and result.note]
    if failed:
        print(f"error: ours failed on {', '.join(failed[:5])}; the reason is above.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
