"""What the tests of the stages share: small CSVs, runs of several stages, and looking at what they left."""

import contextlib
import csv
import importlib
import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from conftest import STAGES

from data_ingestion import handoff

PIPELINE = ("load", "preprocess", "train", "evaluate")
QUICK = {"train": ["--folds", "3", "--trials", "2"], "evaluate": ["--resamples", "100"]}


def write_csv(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def build_columns(task: str, n_rows: int = 120) -> dict[str, list[object]]:
    """A number, a category and a target that follows from both, with noise that is the same every time."""
    width = [(i * 37 % 101) / 10 for i in range(n_rows)]
    color = [("red", "blue", "green")[i * i % 3] for i in range(n_rows)]
    noise = [(i * 53 % 17 - 8) / 8 for i in range(n_rows)]
    score = [w + 3 * (c == "red") + e for w, c, e in zip(width, color, noise, strict=True)]
    targets = {
        "regression": [round(s, 3) for s in score],
        "binary": ["high" if s > 6 else "low" for s in score],
        "multiclass": ["c" if s > 8 else "b" if s > 4 else "a" for s in score],
    }
    return {"width": list(width), "color": list(color), "target": list(targets[task])}


def run_stages(
    root: Path, source: Path, target: str, stages: Sequence[str] = PIPELINE, **flags: Sequence[object]
) -> None:
    """Run stages inside this process, each with its own flags; none may fail."""
    for stage in stages:
        module = importlib.import_module(STAGES[stage].removesuffix(".py").replace("/", "."))
        argv = ["--root", root, *(["--source", source, "--target", target] if stage == "load" else [])]
        argv += flags.get(stage, QUICK.get(stage, []))
        errors = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            code = handoff.run_stage(lambda m=module, a=argv: m.main([str(word) for word in a]))
        assert code == 0, errors.getvalue()


def snapshot(root: Path) -> dict[str, bytes]:
    """The content of every file below a root, by its relative path."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def without_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a run but for how long fits and answers took: in metrics.json, and in the reports that show it."""
    metrics = json.loads(files["models/metrics.json"])
    del metrics["train"]["seconds"]
    for row in (*metrics["train"]["leaderboard"], *metrics["train"]["choices"]):
        row.pop("fit_s", None)
        del row["predict_us"]
    reports = ("report.html", "report.md")
    if "test" in metrics:
        del metrics["test"]["timing"]
        for name in reports:
            del metrics["test"]["lineage"]["outputs"][name]
    kept = {name: content for name, content in files.items() if not name.endswith(reports)}
    return kept | {"models/metrics.json": json.dumps(metrics).encode()}


def assert_refused(done: "subprocess.CompletedProcess[str]", *fragments: str, code: int = 2) -> None:
    """The run ended with one line that holds the fragments, and with the code that is documented for it."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, "one line, no traceback"
    for fragment in fragments:
        assert fragment in done.stderr


def edit_schema(root: Path, old: str, new: str) -> None:
    """Edit data/schema.yaml as a person would."""
    path = root / "data" / "schema.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
