"""The model that bench_api.py has all servers serve: made-up sales of 12 features, through our own stages."""

import csv
import io
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from environments import BenchError
from processes import run_bounded

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = "amount"
CATEGORIES = {
    "region": ("Center", "East", "North", "South", "West"),
    "group": tuple(f"group {number:02}" for number in range(30)),
    "note": ("gift", "fragile", "express", "call first", "back door", "by noon", "signed", "no bag"),
}
NUMBERS = tuple(f"measure_{number}" for number in range(1, 9))
STAGE_LIMIT_S = 300
TRAIN_FLAGS = ("--trials", "2", "--folds", "2", "--final", "single", "--max-trees", "200")

Row = dict[str, float | int | str]


@dataclass(frozen=True)
class Model:
    """What is served.

    Parameters
    ----------
    folder : the model folder that our stages wrote
    rows : raw rows to ask for, none of them like another
    answers : of our scorer to these, in their order
    size : of the model, in words
    """

    folder: Path
    rows: list[Row]
    answers: list[float]
    size: str


def make_rows(n_rows: int, seed: int) -> list[Row]:
    """Return raw rows with their target."""
    import numpy as np

    random = np.random.default_rng(seed)
    columns = {name: np.round(random.normal(size=n_rows), 4) for name in NUMBERS}
    count = random.integers(1, 100, n_rows)
    codes = {name: random.integers(0, len(levels), n_rows) for name, levels in CATEGORIES.items()}
    first, second, third, *_ = (columns[name] for name in NUMBERS)
    smooth = 2 * first + second**2 + np.sin(3 * third) * count / 30
    noise = random.normal(size=n_rows)
    columns[TARGET] = np.round(smooth + codes["group"] % 7 + codes["region"] * (first > 0) + noise, 4)
    texts = {name: [levels[code] for code in codes[name]] for name, levels in CATEGORIES.items()}
    plain = {name: values.tolist() for name, values in columns.items()} | {"count": count.tolist()} | texts
    return [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]


def format_csv(rows: list[Row]) -> str:
    """Return rows as the text of a CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def make_model(folder: Path, n_train: int, n_rows: int) -> Model:
    """Write a CSV, run our stages on it unless they have, and return the model with other rows to ask for.

    Raises
    ------
    BenchError : a stage failed
    """
    root, table = folder / "root", folder / "sales.csv"
    content = format_csv(make_rows(n_train, seed=0))
    if not table.exists() or table.read_text(encoding="utf-8") != content:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        table.write_text(content, encoding="utf-8")
    flags = ["--source", str(table), "--target", TARGET, "--infer"]
    for script, words in (
        ("data_ingestion/data_loader.py", flags),
        ("data_ingestion/data_preprocessor.py", []),
        ("models/train_model.py", TRAIN_FLAGS),
    ):
        stage = [sys.executable, str(REPOSITORY / script), "--root", str(root), "--if-changed", *words]
        run_bounded(stage, folder, STAGE_LIMIT_S)
    asked = [{name: value for name, value in row.items() if name != TARGET} for row in make_rows(n_rows, seed=1)]
    size = describe_size(root / "models")
    from models.artifact import load_scorer_model

    answers = load_scorer_model(root / "models").predict(asked).values
    return Model(root / "models", asked, [float(answer) for answer in answers], size)


def describe_size(folder: Path) -> str:
    """Return how many trees the model of a folder has, and how many leaves they may have.

    Raises
    ------
    BenchError : it is no boosting, or our scorer cannot serve it
    """
    import joblib

    manifest = json.loads((folder / "saved_model.json").read_text(encoding="utf-8"))
    if manifest["estimator"] != "HistGradientBoostingRegressor" or not manifest["scorer"]["compiled"]:
        raise BenchError(f"the stages made a {manifest['estimator']}, and a compiled HistGradientBoosting is expected.")
    estimator = joblib.load(folder / "saved_model.pkl")[-1]
    return f"{estimator.n_iter_} trees of at most {estimator.max_leaf_nodes} leaves"


def copy_uncompiled(source: Path, target: Path) -> Path:
    """Return a copy of a model folder that says its model is there as a pickle alone."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    manifest = json.loads((target / "saved_model.json").read_text(encoding="utf-8"))
    manifest["scorer"] = {"compiled": False, "reason": "the benchmark wants the pickle"}
    (target / "saved_model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return target
