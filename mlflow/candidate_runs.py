"""The candidates that training compared, as runs nested in the run of the model, one for a row of the leaderboard."""

import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_PARAM_LENGTH = 500
PARENT_TAG = "mlflow.parentRunId"
CHOSEN_TAG = "chosen"
MEASURED = ("standard_error", "fit_s", "predict_us", "n_trees", "size_bytes", "weight")


def log_candidates(
    client: "MlflowClient", experiment_id: str, parent_id: str, train: Mapping[str, object], tags: Mapping[str, str]
) -> None:
    """Record one finished run per candidate: its settings as parameters, its score, times and size as metrics.

    A process that dies in between leaves them to a parent that is never complete, and the next one begins afresh.

    Parameters
    ----------
    client : of a store that answers
    experiment_id, parent_id : where the runs belong
    train : metrics.json's section "train"
    tags : of the parent that its candidates share
    """
    from mlflow.entities import Metric, Param

    metric = str(train["metric"])
    for row in cast("list[Mapping[str, object]]", train["leaderboard"]):
        name = str(row["name"])
        chosen = name == train["chosen"] or bool(row.get("weight"))
        shared = {**tags, PARENT_TAG: parent_id, CHOSEN_TAG: str(chosen).lower()}
        run = client.create_run(experiment_id, run_name=name, tags=shared)
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value, step in list_candidate_metrics(row, metric)]
        params = [Param(key, value) for key, value in list_settings(row)]
        client.log_batch(run.info.run_id, metrics=metrics, params=params)
        client.set_terminated(run.info.run_id)


def list_candidate_metrics(row: Mapping[str, object], metric: str) -> Iterator[tuple[str, float, int]]:
    """Yield (name, value, step) of everything measured of a candidate; the folds are the steps of one metric."""
    yield f"cv_{metric}", float(str(row["mean"])), 0
    for name in MEASURED:
        if row.get(name) is not None:
            yield name, float(str(row[name])), 0
    for place, score in enumerate(cast("list[float | None]", row.get("folds") or [])):
        if score is not None:  # given up before that fold
            yield f"fold_{metric}", float(score), place


def list_settings(row: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of a candidate's settings, as MLflow takes them."""
    for name, value in cast("Mapping[str, object]", row.get("settings") or {}).items():
        yield clean_key(name), str(value)[:MAX_PARAM_LENGTH]


def clean_key(name: str) -> str:
    """Return a name of a metric or parameter without the characters that MLflow does not allow in one."""
    return re.sub(r"[^\w\-. /:]", "_", name, flags=re.ASCII)
