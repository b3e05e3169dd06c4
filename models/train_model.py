"""Choose an estimator by cross-validation on the train rows, fit it on all of them, and save the model.

Reads data/processed.parquet, data/encoder.pkl and data/raw.parquet; writes models/saved_model.pkl, its manifest
models/saved_model.json, and starts models/metrics.json anew.

    python models/train_model.py --folds 5
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import Field

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, PipelineError, Workspace
from data_ingestion.params import StageParams, parse_params
from data_ingestion.schema import Contract, Strategy
from models import artifact

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from models.candidates import CrossValidation

PREPROCESSOR = "data_ingestion/data_preprocessor.py"
LIBRARIES = ("numpy", "pandas", "scikit-learn", "joblib")
GOLDEN_ROWS = 16


class TrainParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "train"

    folds: int = Field(5, ge=2, le=50, description="folds of the cross-validation")


@dataclass(frozen=True)
class TrainingData:
    """What training reads, checked to belong together.

    Parameters
    ----------
    raw : all typed rows of the source
    X, y : encoded features and target of the train rows, indexed by row_id
    encoder : the fitted encoder that made X
    contract : the columns of the source
    loaded, preprocessed : lineage of raw.parquet and of processed.parquet
    """

    raw: "pa.Table"
    X: "pd.DataFrame"
    y: "pd.Series"
    encoder: "Pipeline"
    contract: Contract
    loaded: Lineage
    preprocessed: Lineage


def read_training_data(workspace: Workspace) -> TrainingData:
    """Read the hand-offs of the two stages before this one.

    Raises
    ------
    PipelineError : one of them is missing, damaged, or does not belong to the others
    """
    import io

    import joblib

    contract, _ = contracts.read_contract(workspace.schema)
    processed, preprocessed = files.read_parquet(workspace.processed, PREPROCESSOR)
    raw, loaded = files.read_parquet(workspace.raw, contracts.LOADER)
    contracts.check_raw(workspace.raw, raw.column_names, loaded, contract)
    content = files.read_verified(workspace.encoder, preprocessed.outputs.get("encoder.pkl", ""), PREPROCESSOR)
    if preprocessed.inputs.get("raw.parquet") != files.sha256_file(workspace.raw):
        raise files.stale_error(workspace.processed, "data/raw.parquet has changed since", PREPROCESSOR)
    table = processed.to_pandas().set_index("row_id")
    train = table[table["split"] == "train"]
    X = train.drop(columns=["split", "target"])
    return TrainingData(raw, X, train["target"], joblib.load(io.BytesIO(content)), contract, loaded, preprocessed)


def find_order(data: TrainingData) -> "NDArray[np.object_] | None":
    """Return the group or the time of each train row where the split went by one, else None."""
    from data_ingestion.splitter import find_column

    strategy, column = data.preprocessed.params["split"], data.preprocessed.params["split_column"]
    if strategy not in ("group", "time"):
        return None
    name = find_column(data.contract, strategy, column)  # type: ignore[arg-type]
    order: NDArray[np.object_] = data.raw[name].to_pandas().loc[data.X.index].to_numpy()
    return order


def compare_candidates(data: TrainingData, params: TrainParams) -> "list[CrossValidation]":
    """Return the cross-validated candidates, best first."""
    from data_ingestion.progress import show_progress
    from models import candidates

    contract = data.contract
    metric = candidates.METRICS[contract.task]
    strategy: Strategy = data.preprocessed.params["split"]  # type: ignore[assignment]
    folds = candidates.build_folds(contract.task, strategy, data.y, params.folds, params.seed, find_order(data))
    choices = candidates.build_candidates(contract.task, list(data.X.columns), data.y, params.seed)
    with show_progress("cross-validating", total=len(choices) * len(folds)) as report:
        results = candidates.cross_validate(choices, data.X, data.y, folds, metric, report)
    return candidates.rank_candidates(results, metric)


def fit_pipeline(data: TrainingData, name: str, params: TrainParams) -> "Pipeline":
    """Return the model: the fitted encoder followed by the named candidate, fitted on all train rows."""
    from sklearn.pipeline import Pipeline

    from models import candidates

    choices = candidates.build_candidates(data.contract.task, list(data.X.columns), data.y, params.seed)
    estimator = candidates.fit_estimator(choices[name], data.X, data.y)
    return Pipeline([("encoder", data.encoder), ("estimator", estimator)])


def describe_model(pipeline: "Pipeline", data: TrainingData, lineage: Lineage, version: str) -> dict[str, object]:
    """Return the fields of the manifest, golden rows with their answers included."""
    step = max(1, len(data.X) // GOLDEN_ROWS)
    rows = artifact.to_rows(data.raw.take(data.X.index[::step][:GOLDEN_ROWS].to_numpy()), data.contract)
    answers = artifact.predict_rows(pipeline, data.contract, rows)
    golden: dict[str, object] = {"rows": rows, "predictions": answers.values}
    if answers.probabilities is not None:
        golden["probabilities"] = answers.probabilities.tolist()
    estimator = pipeline.named_steps["estimator"]
    return {
        "model_version": version,
        "task": data.contract.task,
        "target": data.contract.target,
        "classes": [artifact.to_label(c) for c in estimator.classes_] if data.contract.is_classification else None,
        "estimator": type(getattr(estimator, "_final_estimator", estimator)).__name__,
        "feature_names": list(data.X.columns),
        "libraries": artifact.list_libraries(),
        "contract": data.contract.to_dict(),
        "lineage": lineage.to_dict(),
        "golden": golden,
    }


def describe_training(
    ranked: "Sequence[CrossValidation]", data: TrainingData, params: TrainParams, version: str
) -> dict[str, object]:
    """Return metrics.json as this stage starts it."""
    from models.candidates import METRICS, iterate_leaderboard

    return {
        "model_version": version,
        "task": data.contract.task,
        "target": data.contract.target,
        "params": {
            "load": data.loaded.params,
            "preprocess": data.preprocessed.params,
            "train": params.effective(),
        },
        "data": {
            "source": data.contract.source,
            "source_sha256": data.loaded.inputs["source"],
            "raw_sha256": data.preprocessed.inputs["raw.parquet"],
            "schema": data.contract.fingerprint(),
        },
        "rows": data.preprocessed.rows,
        "train": {
            "rows": len(data.X),
            "metric": METRICS[data.contract.task],
            "chosen": ranked[0].name,
            "leaderboard": list(iterate_leaderboard(ranked)),
        },
    }


def is_up_to_date(workspace: Workspace, lineage: Lineage) -> bool:
    """Return whether the saved model and its metrics are those that this run would write again."""
    try:
        manifest = artifact.read_manifest(workspace.models)
        metrics = files.read_json(workspace.metrics, artifact.TRAINER)
    except PipelineError:
        return False
    same = files.parse_lineage(manifest.lineage).matches(lineage)
    written = Lineage("", {}, {}, "", outputs=manifest.files)
    return (
        same and metrics.get("model_version") == manifest.model_version and files.has_outputs(written, workspace.models)
    )


def train(workspace: Workspace, params: TrainParams) -> None:
    """Read, compare, fit, and write model and metrics together."""
    inputs = {
        "processed.parquet": files.sha256_input(workspace.processed, PREPROCESSOR),
        "encoder.pkl": files.sha256_input(workspace.encoder, PREPROCESSOR),
    }
    code = files.sha256_code(["data_ingestion", "models"], LIBRARIES)
    lineage = Lineage("train_model", inputs, params.effective(), code)
    if params.if_changed and is_up_to_date(workspace, lineage):
        print("models/saved_model.pkl is up to date with data/processed.parquet")
        return
    data = read_training_data(workspace)
    version = files.sha256_json(lineage.to_dict())[:12]
    ranked = compare_candidates(data, params)
    pipeline = fit_pipeline(data, ranked[0].name, params)
    metrics = describe_training(ranked, data, params, version)
    with files.commit() as commit:
        described = describe_model(pipeline, data, lineage, version)
        artifact.write_model(commit, workspace.models, pipeline, described)
        commit.write_json(workspace.metrics, metrics)
    print(f"{len(data.X):,} train rows, {params.folds} folds, compared by {metrics['train']['metric']}")  # type: ignore[index]
    for result in ranked:
        chosen = "  <- chosen" if result is ranked[0] else ""
        print(f"  {result.name:<10} {result.mean:>12,.4f} ± {result.standard_error:,.4f}{chosen}")
    print(f"wrote models/saved_model.pkl, saved_model.json, metrics.json: model {version}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(TrainParams, argv, __doc__ or "")
    with files.open_workspace(params.root) as workspace:
        train(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
