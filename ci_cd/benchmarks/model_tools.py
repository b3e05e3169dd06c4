"""Fit one tool on the train rows of one table and answer its test rows: one process of bench_models.py.

Reads table.json, train.parquet and test.parquet of --folder; writes predictions.parquet, with a column "prediction" or
one of probabilities for each class, and run.json, with the seconds and the tool's version. Runs in .venv-models or
.venv-autogluon, for ours in .venv; on two cores at most.

    .venv-models/bin/python ci_cd/benchmarks/model_tools.py --tool flaml --folder FOLDER --budget-s 30 --seed 42
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Predict = Callable[["pd.DataFrame"], "pd.DataFrame | np.ndarray"]

REPOSITORY = Path(__file__).resolve().parents[2]
CORES = 2
MOST_LEVELS = 255  # of a category in HistGradientBoosting
DATE_PARTS = ("year", "month", "day", "day_of_week", "hour", "minute")
# Texts as categories and dates as parts, where a tool does not take them as they are.
TAKES_TEXTS = ("ours", "autogluon")
TAKES_DATES = ("ours", "autogluon", "flaml")
METRICS = {
    "flaml": {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"},
    "autogluon": {"regression": "root_mean_squared_error", "binary": "roc_auc", "multiclass": "log_loss"},
}


@dataclass(frozen=True)
class Job:
    """What a tool gets.

    Parameters
    ----------
    folder : the table's own; for what a tool leaves behind, too
    task : regression, binary or multiclass
    X : (n_rows, n_features) the train rows
    y : (n_rows,) numbers, or the classes as texts
    budget_s : seconds to fit in, for a tool that can be told
    seed : of the tool's randomness, for a tool that can be told
    """

    folder: Path
    task: str
    X: "pd.DataFrame"
    y: "pd.Series"
    budget_s: float
    seed: int


def fit_ours(job: Job) -> "Predict":
    """Run the training stage as anybody would; its answers are those of the saved pipeline to raw rows."""
    flags = ["--root", str(job.folder / "root"), "--seed", str(job.seed), "--budget", f"{job.budget_s:g}"]
    command = [sys.executable, str(REPOSITORY / "models/train_model.py"), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def predict(X: "pd.DataFrame") -> "pd.DataFrame | np.ndarray":
        import joblib
        import pandas as pd

        sys.path.insert(0, str(REPOSITORY))
        pipeline = joblib.load(job.folder / "root/models/saved_model.pkl")
        if job.task == "regression":
            return pipeline.predict(X)
        return pd.DataFrame(pipeline.predict_proba(X), columns=[str(label) for label in pipeline.classes_])

    return predict


def fit_flaml(job: Job) -> "Predict":
    """Search with the defaults of FLAML."""
    from flaml import AutoML

    automl = AutoML()
    task = "regression" if job.task == "regression" else "classification"
    automl.fit(
        job.X,
        job.y,
        task=task,
        metric=METRICS["flaml"][job.task],
        time_budget=job.budget_s,
        n_jobs=CORES,
        seed=job.seed,
        verbose=0,
    )
    return automl.predict if job.task == "regression" else automl.predict_proba


def fit_autogluon(job: Job) -> "Predict":
    """Search with the preset medium_quality of AutoGluon, whose models have a fixed seed."""
    from autogluon.tabular import TabularPredictor

    predictor = TabularPredictor(
        label="target",
        problem_type=job.task,
        eval_metric=METRICS["autogluon"][job.task],
        path=job.folder / "autogluon",
        verbosity=0,
    )
    predictor.fit(
        job.X.assign(target=job.y),
        time_limit=job.budget_s,
        presets="medium_quality",
        num_cpus=CORES,
        num_gpus=0,
    )
    return predictor.predict if job.task == "regression" else predictor.predict_proba


def fit_hist_gradient_boosting(job: Job) -> "Predict":
    """One model with default settings; categories with too many levels for it become numbers."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    model_class = HistGradientBoostingRegressor if job.task == "regression" else HistGradientBoostingClassifier
    model = model_class(random_state=job.seed).fit(cap_levels(job.X), job.y)
    predict = model.predict if job.task == "regression" else model.predict_proba
    return lambda X: predict(cap_levels(X))


def fit_lightgbm(job: Job) -> "Predict":
    """One model with default settings."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    model_class = LGBMRegressor if job.task == "regression" else LGBMClassifier
    model = model_class(n_jobs=CORES, random_state=job.seed, verbose=-1).fit(job.X, job.y)
    return model.predict if job.task == "regression" else model.predict_proba


def fit_xgboost(job: Job) -> "Predict":
    """One model with default settings."""
    from xgboost import XGBClassifier, XGBRegressor

    model_class = XGBRegressor if job.task == "regression" else XGBClassifier
    y = job.y if job.task == "regression" else job.y.astype("category").cat.codes
    model = model_class(n_jobs=CORES, random_state=job.seed, enable_categorical=True).fit(job.X, y)
    return model.predict if job.task == "regression" else model.predict_proba


def cap_levels(X: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table with the codes of large categories, as numbers, in their place."""
    large = [
        str(name) for name, dtype in X.dtypes.items() if dtype == "category" and len(dtype.categories) > MOST_LEVELS
    ]
    return X.assign(**{name: X[name].cat.codes.astype("float64").where(X[name].notna()) for name in large})


def read_rows(folder: Path, tool: str, target: str) -> "tuple[pd.DataFrame, pd.Series, pd.DataFrame]":
    """Return X and y of the train rows and X of the test rows, as a tool takes them.

    The others get columns named f0, f1 and so on, for LightGBM refuses some characters.
    """
    import pandas as pd

    train, test = (pd.read_parquet(folder / f"{side}.parquet") for side in ("train", "test"))
    y, X_test = train.pop(target), test.drop(columns=target)
    if tool == "ours":
        return train, y, X_test
    names = {name: f"f{place}" for place, name in enumerate(train.columns)}
    X, X_test = train.rename(columns=names), X_test.rename(columns=names)
    flags = [name for name in X.columns if pd.api.types.infer_dtype(X[name], skipna=True) == "boolean"]
    for name in flags:
        X[name], X_test[name] = X[name].astype("float64"), X_test[name].astype("float64")
    texts = [str(name) for name, dtype in X.dtypes.items() if pd.api.types.is_string_dtype(dtype)]
    for name in texts if tool not in TAKES_TEXTS else []:
        levels = sorted(X[name].dropna().unique())
        X[name] = pd.Categorical(X[name], levels)
        X_test[name] = pd.Categorical(X_test[name].where(X_test[name].isin(levels)), levels)
    if tool not in TAKES_DATES:
        X, X_test = split_dates(X), split_dates(X_test)
    return X, y, X_test


def split_dates(X: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table with parts of the dates in place of the dates."""
    dates = list(X.select_dtypes(["datetime", "datetimetz"]).columns)
    parts = {f"{name}_{part}": getattr(X[name].dt, part).astype("float64") for name in dates for part in DATE_PARTS}
    return X.drop(columns=dates).assign(**parts)


# How to fit, and the module, whose import is no part of the fit.
TOOLS: dict[str, tuple[Callable[[Job], "Predict"], str]] = {
    "ours": (fit_ours, "sklearn"),
    "flaml": (fit_flaml, "flaml"),
    "autogluon": (fit_autogluon, "autogluon.tabular"),
    "hgb": (fit_hist_gradient_boosting, "sklearn"),
    "lightgbm": (fit_lightgbm, "lightgbm"),
    "xgboost": (fit_xgboost, "xgboost"),
}


def run_tool(tool: str, folder: Path, budget_s: float, seed: int) -> None:
    """Fit and answer; the fit's clock starts when the table is read and the tool imported.

    Ours is a process of its own, whose start and imports count as part of the fit.
    """
    import pandas as pd

    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    X, y, X_test = read_rows(folder, tool, table["target"])
    task = table["task"]
    if task != "regression":
        y = y.astype(str)
    fit, module = TOOLS[tool]
    made_by = import_module(module).__version__
    started = time.perf_counter()
    predict = fit(Job(folder, task, X, y, budget_s, seed))
    fitted = time.perf_counter()
    answers = predict(X_test)
    answered = time.perf_counter()
    if task == "regression":
        frame = pd.DataFrame({"prediction": pd.Series(answers).to_numpy(dtype="float64")})
    else:
        frame = answers if isinstance(answers, pd.DataFrame) else pd.DataFrame(answers, columns=sorted(y.unique()))
    frame.astype("float64").rename(columns=str).to_parquet(folder / "predictions.parquet", index=False)
    run = {"fit_s": fitted - started, "predict_s": answered - fitted, "version": made_by}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Do one job; see the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", choices=TOOLS, required=True, help="who fits")
    parser.add_argument("--folder", type=Path, required=True, help="holds the table")
    parser.add_argument("--budget-s", type=float, required=True, help="seconds to fit in")
    parser.add_argument("--seed", type=int, required=True, help="of the tool's randomness")
    args = parser.parse_args(argv)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    run_tool(args.tool, args.folder, args.budget_s, args.seed)


if __name__ == "__main__":
    main()
