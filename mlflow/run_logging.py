"""What a run records: parameters, metrics, lineage of the data, files, the candidates, and the model, registered.

A run is complete when its tag says so; the same model version never makes a second complete run.
"""

import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from candidate_runs import MAX_PARAM_LENGTH, clean_key, log_candidates

from data_ingestion import handoff as files
from data_ingestion.handoff import REPOSITORY, Workspace
from data_ingestion.schema import Column, Contract, read_contract
from models import artifact
from models.artifact import SavedModel

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

ALIAS = "challenger"
VERSION_TAG, COMPLETE_TAG, ROOT_TAG, METRICS_TAG = "model_version", "complete", "pipeline_root", "metrics_sha256"
SHIPPED = (
    *("data_ingestion/__init__.py", "data_ingestion/encoder.py"),
    *(f"models/{name}.py" for name in ("__init__", "boosting", "ensemble", "linear", "pairs")),
)


@dataclass(frozen=True)
class RunFiles:
    """The outputs of the earlier stages: a run is recorded from nothing else.

    Parameters
    ----------
    workspace : the root they stand in, or a copy made for later
    model : the verified model
    metrics : metrics.json
    """

    workspace: Workspace
    model: SavedModel
    metrics: Mapping[str, object]

    @property
    def paths(self) -> list[Path]:
        """The files that go with a run, those that exist."""
        w = self.workspace
        fixed = [w.metrics, w.models / artifact.MANIFEST, *(w.models / name for name in self.model.manifest.files)]
        if w.schema.is_file() and read_contract(w.schema)[0].fingerprint() == self.model.contract.fingerprint():
            fixed.append(w.schema)  # edited since, it is another model's
        made: Mapping[str, object] = self.metrics["test"]["lineage"]["outputs"]  # type: ignore[index]
        return [path for path in [*fixed, *(w.report.parent / name for name in sorted(made))] if path.is_file()]


def read_run_files(workspace: Workspace) -> RunFiles:
    """Read and verify what is to be recorded.

    Raises
    ------
    PipelineError : there is no evaluated model, or its files do not belong together
    """
    evaluator = "evaluation/evaluate_model.py"
    model = artifact.load_model(workspace.models)
    metrics = files.read_json(workspace.metrics, evaluator)
    if metrics.get("model_version") != model.manifest.model_version or "test" not in metrics:
        reason = f"it does not hold the evaluation of model {model.manifest.model_version}"
        raise files.stale_error(workspace.metrics, reason, evaluator)
    return RunFiles(workspace, model, metrics)


def copy_run_files(run_files: RunFiles, pending: Path) -> None:
    """Copy what a run needs into a folder of `pending`, laid out as a root. It appears whole or not at all."""
    digest = files.sha256_json(run_files.metrics)
    folder = pending / f"{run_files.model.manifest.model_version}-{digest[:8]}"
    if folder.exists():  # the same content, for it is named after it
        return
    with files.new_folder(folder) as place:
        for path in run_files.paths:
            target = place / path.relative_to(run_files.workspace.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def find_run(client: "MlflowClient", experiment_id: str, version: str) -> "Run | None":
    """Return the complete run of a model version, or None."""
    wanted = f"tags.{VERSION_TAG} = '{version}' and tags.{COMPLETE_TAG} = 'true'"
    found = client.search_runs([experiment_id], wanted, max_results=1)
    return found[0] if found else None


def end_dead_runs(client: "MlflowClient", experiment_id: str, root: Path) -> int:
    """Mark as KILLED the unfinished runs of earlier processes on this root, and return how many there were.

    Whoever calls this holds the root's lock, so none of them can still be alive.
    """
    mine = f"tags.{ROOT_TAG} = '{name_root(root)}' and attributes.status = 'RUNNING'"
    dead = client.search_runs([experiment_id], mine)
    for run in dead:
        client.set_terminated(run.info.run_id, status="KILLED")
    return len(dead)


def name_root(root: Path) -> str:
    """Return a name for a root on this machine, without characters that a search would take for syntax."""
    return files.sha256_bytes(f"{socket.gethostname()}:{root}".encode())[:16]


def log_run(client: "MlflowClient", experiment_id: str, run_files: RunFiles, registered_name: str, root: Path) -> str:
    """Record a run with its model and return its id; a run that is complete only gets what has changed since.

    Parameters
    ----------
    client : of a store that answers
    experiment_id : where the run belongs
    run_files : what to record
    registered_name : the registered model
    root : the root that the run is from, which need not be where its files stand
    """
    import mlflow

    manifest = run_files.model.manifest
    digest = files.sha256_json(run_files.metrics)
    done = find_run(client, experiment_id, manifest.model_version)
    if done is not None:
        if done.data.tags.get(METRICS_TAG) != digest:
            _log_evaluation(client, done.info.run_id, run_files)
            client.set_tag(done.info.run_id, METRICS_TAG, digest)
        for output in done.outputs.model_outputs if done.outputs else []:
            info = mlflow.models.get_model_info(f"models:/{output.model_id}")
            _register_model(client, registered_name, info, manifest.model_version)
        return str(done.info.run_id)
    tags = {VERSION_TAG: manifest.model_version, ROOT_TAG: name_root(root), COMPLETE_TAG: "false", METRICS_TAG: digest}
    with _start_run(experiment_id, f"{run_files.metrics['target']} {manifest.model_version}", tags) as run_id:
        for name, value in _flatten_params(run_files.metrics["params"]):  # type: ignore[arg-type]
            client.log_param(run_id, name, value)
        _log_data(run_files)
        info = _log_model(run_files)
        _log_evaluation(client, run_id, run_files)
        train: Mapping[str, object] = run_files.metrics["train"]  # type: ignore[assignment]
        shared = {VERSION_TAG: manifest.model_version, ROOT_TAG: name_root(root)}
        log_candidates(client, experiment_id, run_id, train, shared)
        _register_model(client, registered_name, info, manifest.model_version)
        client.set_tag(run_id, COMPLETE_TAG, "true")
    return run_id


@contextmanager
def _start_run(experiment_id: str, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    import mlflow

    with mlflow.start_run(experiment_id=experiment_id, run_name=name, tags=dict(tags)) as run:
        yield run.info.run_id


def _flatten_params(params: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, str]]:
    """Return (stage.name, value) pairs, as short as MLflow wants them."""
    for stage, values in params.items():
        for name, value in values.items():
            yield f"{stage}.{name}", str(value)[:MAX_PARAM_LENGTH]


def list_metrics(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return the figures of metrics.json under flat names.

    test_rmse, test_rmse_low, test_rmse_high; dummy_rmse, champion_rmse, train_rmse (of the rows learnt from);
    cv_linear_rmse, rows_test; row_ms_p50, covered, expected_calibration_error and their like.
    """
    test: Mapping[str, object] = metrics["test"]  # type: ignore[assignment]
    train: Mapping[str, object] = metrics["train"]  # type: ignore[assignment]
    intervals: Mapping[str, list[float] | None] = test["intervals"]  # type: ignore[assignment]
    found: dict[str, float | None] = {}
    for name, bounds in intervals.items():
        low, high = bounds or (None, None)
        found |= {f"test_{name}": test[name], f"test_{name}_low": low, f"test_{name}_high": high}  # type: ignore[dict-item]
        for beside in ("dummy", "champion", "train"):
            found[f"{beside}_{name}"] = _get(test, beside, name)
    for row in train["leaderboard"]:  # type: ignore[attr-defined]
        found[clean_key(f"cv_{row['name']}_{train['metric']}")] = row["mean"]
    found |= {f"row_ms_{name}": _get(test, "timing", "row_ms", name) for name in ("p50", "p95")}
    found["batch_us_per_row"] = _get(test, "timing", "batch_us_per_row")
    found |= {name: _get(test, "coverage", name) for name in ("covered", "mean_width", "mean_size")}
    found |= {name: _get(test, "calibration", name) for name in ("expected_calibration_error", "brier_score")}
    found |= {f"rows_{name}": count for name, count in metrics["rows"].items()}  # type: ignore[attr-defined]
    return {name: float(value) for name, value in found.items() if value is not None}


def _get(section: object, *names: str) -> float | None:
    """Return a number deep in a section, None where the run has no such section."""
    for name in names:
        section = section.get(name) if isinstance(section, Mapping) else None
    return float(section) if isinstance(section, float | int) else None


def _log_evaluation(client: "MlflowClient", run_id: str, run_files: RunFiles) -> None:
    """Log the figures, the verdict, and every file but the pickle, which goes with the model."""
    for name, value in list_metrics(run_files.metrics).items():
        client.log_metric(run_id, name, value)
    lineage: Mapping[str, Mapping[str, object]] = run_files.metrics["test"]["lineage"]  # type: ignore[index]
    for name, param in lineage["params"].items():  # tags, for another evaluation of the same model may change them
        client.set_tag(run_id, f"evaluate.{name}", str(param))
    verdict = run_files.metrics.get("verdict")
    if isinstance(verdict, Mapping):
        client.set_tag(run_id, "verdict", str(verdict["status"]))
    for path in run_files.paths:
        if path.name != artifact.PICKLE:
            folder = "figures" if path.parent == run_files.workspace.figures else None
            client.log_artifact(run_id, str(path), folder)


def _log_data(run_files: RunFiles) -> None:
    """Log which data the run learnt from and was judged on: name, sha256 and columns of the source."""
    import mlflow
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    data: Mapping[str, str] = run_files.metrics["data"]  # type: ignore[assignment]
    source = resolve_dataset_source(str(data["source"]))
    signature = build_signature(run_files.model.contract)
    for context, split in (("training", "train"), ("testing", "test")):
        name, digest = f"{Path(data['source']).name}, {split} rows", data["source_sha256"][:32]
        dataset = MetaDataset(source, name, digest, signature.inputs)  # type: ignore[abstract]  # no profile to give
        mlflow.log_input(dataset, context)
    mlflow.set_tags({f"data.{name}": value for name, value in data.items()})


def build_signature(contract: Contract) -> "ModelSignature":
    """Return the model's signature: its features as pandas reads them from a CSV, and what it answers."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(name_type(column), name, required=not column.nullable) for name, column in contract.features.items()
    ]
    answer = "double" if not contract.is_classification else name_type(contract.columns[contract.target], True)
    return ModelSignature(Schema(inputs), Schema([ColSpec(answer)]))


def name_type(column: Column, present: bool = False) -> str:
    """Return MLflow's name for the type that pandas gives a column of a CSV.

    Parameters
    ----------
    column : its part of the contract
    present : no value is missing, whatever the contract allows; pandas reads integers among missing values as floats
    """
    whole = present or not column.nullable
    if column.decimal == ",":
        return "string"
    if column.kind == "number" or (column.kind == "integer" and not whole):
        return "double"
    if column.kind == "integer":
        return "long"
    words = [*(column.true_values or ["true"]), *(column.false_values or ["false"])]
    if column.kind == "boolean" and whole and {word.lower() for word in words} == {"true", "false"}:
        return "boolean"
    return "string"


def build_example(model: SavedModel) -> "pd.DataFrame":
    """Return up to five golden rows in the types of the signature."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in model.manifest.golden.rows[:5]], columns=list(model.contract.features))
    dtypes = {"double": np.dtype("float64"), "long": np.dtype("int64"), "boolean": np.dtype("bool")}
    for name, column in model.contract.features.items():
        dtype = dtypes.get(name_type(column))
        if dtype is not None:
            frame[name] = frame[name].astype(dtype)
        elif column.kind == "boolean":
            yes, no = (column.true_values or ["true"])[0], (column.false_values or ["false"])[0]
            frame[name] = frame[name].map({True: yes, False: no})
    return frame


def _log_model(run_files: RunFiles) -> "ModelInfo":
    """Log the model with the modules of this project that its pickle needs."""
    import mlflow.sklearn

    manifest = run_files.model.manifest
    with tempfile.TemporaryDirectory() as folder:
        for name in SHIPPED:
            place = Path(folder) / name
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(REPOSITORY / name, place)
        info: ModelInfo = mlflow.sklearn.log_model(
            run_files.model.pipeline,
            name="model",
            serialization_format="pickle",
            code_paths=sorted(map(str, Path(folder).iterdir())),
            pip_requirements=[f"{name}=={version}" for name, version in manifest.libraries.items()],
            signature=build_signature(run_files.model.contract),
            input_example=build_example(run_files.model),
            metadata={VERSION_TAG: manifest.model_version},
        )
    return info


def _register_model(client: "MlflowClient", name: str, info: "ModelInfo", version: str) -> None:
    """Register the logged model under this name unless it is, and point the challenger alias at it."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name='{name}'")
    known = [found.version for found in versions if found.tags.get(VERSION_TAG) == version]
    if known:
        client.set_registered_model_alias(name, ALIAS, known[0])
        return
    registered = client.create_model_version(
        name, info.model_uri, run_id=info.run_id, model_id=info.model_id, tags={VERSION_TAG: version}
    )
    client.set_registered_model_alias(name, ALIAS, registered.version)
