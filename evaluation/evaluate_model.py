"""Judge the saved model on the test rows, which it has never seen.

Reads the model folder, data/processed.parquet and data/raw.parquet; adds the section "test" to models/metrics.json and
writes evaluation/report.html with its figures.

    python evaluation/evaluate_model.py --resamples 1000
"""

import os
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
from data_ingestion.schema import Task
from models import artifact
from models.artifact import Predictions, SavedModel

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PREPROCESSOR = "data_ingestion/data_preprocessor.py"
LIBRARIES = ("numpy", "pandas", "scikit-learn", "matplotlib")


class EvaluateParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "evaluate"

    resamples: int = Field(1000, ge=100, description="bootstrap resamples of the test rows behind each interval")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="share of resamples inside an interval")


@dataclass(frozen=True)
class TestData:
    """What evaluation reads, checked to belong together.

    Parameters
    ----------
    raw : the test rows as they are in the source, typed
    X, y : the same rows, encoded, and their target
    y_train : the target of the train rows
    """

    __test__ = False  # no test class, whatever pytest makes of the name

    raw: "pa.Table"
    X: "pd.DataFrame"
    y: "pd.Series"
    y_train: "pd.Series"


def read_test_data(workspace: Workspace, model: SavedModel) -> TestData:
    """Read the test rows that belong to the model.

    Raises
    ------
    PipelineError : the model was trained on another split or on other data
    """
    processed, preprocessed = files.read_parquet(workspace.processed, PREPROCESSOR)
    raw, _ = files.read_parquet(workspace.raw, contracts.LOADER)
    trained_on = files.parse_lineage(model.manifest.lineage).inputs.get("processed.parquet")
    if trained_on != files.sha256_file(workspace.processed):
        reason = "it was trained on another split than data/processed.parquet holds now"
        raise files.stale_error(workspace.models / artifact.PICKLE, reason, artifact.TRAINER)
    if preprocessed.inputs.get("raw.parquet") != files.sha256_file(workspace.raw):
        raise files.stale_error(workspace.processed, "data/raw.parquet has changed since", PREPROCESSOR)
    table = processed.to_pandas()
    test = table[table["split"] == "test"]
    y_train = table.loc[table["split"] == "train", "target"]
    return TestData(raw.take(test["row_id"].to_numpy()), test[model.manifest.feature_names], test["target"], y_train)


def predict_each_way(model: SavedModel, data: TestData) -> dict[str, Predictions]:
    """Return the answers for the test rows by every way there is to ask for them.

    The estimator takes the encoded rows of processed.parquet, as in training; the pipeline takes the typed raw rows;
    and the rows as a request sends them go the way of the API.
    """
    estimator = model.pipeline.named_steps["estimator"]
    features = data.raw.select(list(model.contract.features)).to_pandas()
    return {
        "estimator on encoded rows": artifact.predict_table(estimator, data.X, model.contract),
        "pipeline on raw rows": artifact.predict_table(model.pipeline, features, model.contract),
        "model on request rows": model.predict(artifact.to_rows(data.raw, model.contract)),
    }


def check_parity(answers: dict[str, Predictions]) -> None:
    """Raise unless every way gives exactly the same answers: a difference is training/serving skew."""
    import numpy as np

    (first, expected), *others = answers.items()
    for name, found in others:
        a, b = (p.values if p.probabilities is None else p.probabilities for p in (expected, found))
        different = np.flatnonzero((np.asarray(a) != np.asarray(b)).reshape(len(expected.values), -1).any(axis=1))
        if len(different):
            row = int(different[0])
            raise PipelineError(
                f"training/serving skew in {len(different):,} of {len(expected.values):,} test rows: for the first "
                f"(test row {row}) the {first} gives {expected.values[row]!r}, the {name} gives {found.values[row]!r}. "
                f"Run again: python {PREPROCESSOR}, then python {artifact.TRAINER}"
            )


def score_model(model: SavedModel, data: TestData, answers: Predictions, params: EvaluateParams) -> dict[str, object]:
    """Return the section "test" of metrics.json, without its lineage."""
    from data_ingestion.progress import show_progress
    from evaluation import metrics

    task, classes = model.manifest.task, model.manifest.classes
    y_true, y_pred = metrics.to_arrays(data.y, answers, classes)
    _, y_dummy = metrics.to_arrays(data.y, metrics.predict_dummy(task, data.y_train, len(data.y)), classes)
    with show_progress("bootstrapping", total=params.resamples) as report:
        intervals = metrics.bootstrap_intervals(
            task, y_true, y_pred, params.resamples, params.confidence, params.seed, report
        )
    return {
        "rows": len(data.y),
        "confidence": params.confidence,
        **metrics.compute_scores(task, y_true, y_pred),
        "intervals": intervals,
        "dummy": metrics.compute_scores(task, y_true, y_dummy),
        "parity": {"rows": len(data.y), "different": 0},
    }


def evaluate(workspace: Workspace, params: EvaluateParams) -> None:
    """Read, check parity, score, and write metrics and report together."""
    metrics = files.read_json(workspace.metrics, artifact.TRAINER)
    manifest = artifact.read_manifest(workspace.models)
    if metrics.get("model_version") != manifest.model_version:
        reason = f"it is of model {metrics.get('model_version')}, and the saved model is {manifest.model_version}"
        raise files.stale_error(workspace.metrics, reason, artifact.TRAINER)
    lineage = Lineage(
        stage="evaluate_model",
        inputs={
            "saved_model.json": files.sha256_file(workspace.models / artifact.MANIFEST),
            "processed.parquet": files.sha256_input(workspace.processed, PREPROCESSOR),
        },
        params=params.effective(),
        code=files.sha256_code(["data_ingestion", "models", "evaluation"], LIBRARIES),
    )
    if params.if_changed and is_up_to_date(workspace, metrics, lineage):
        print("models/metrics.json is up to date with models/saved_model.pkl")
        return
    model = artifact.load_model(workspace.models)
    data = read_test_data(workspace, model)
    answers = predict_each_way(model, data)
    check_parity(answers)
    test = score_model(model, data, next(iter(answers.values())), params)
    write_evaluation(workspace, model, data, metrics | {"test": test}, lineage)
    print(f"{len(data.y):,} test rows: {len(answers)} ways to ask give the same answer for every row")
    print(f"  {describe_headline(manifest.task, test)}")
    print(f"wrote models/metrics.json, evaluation/report.html: model {model.manifest.model_version}")


def describe_headline(task: Task, test: dict[str, object]) -> str:
    """Return the figure that candidates were compared by, in a line; all of them are in the report."""
    from evaluation.metrics import TITLES, tabulate_scores
    from models.candidates import METRICS

    title = TITLES[METRICS[task]]
    value, interval, dummy = next(row[1:] for row in tabulate_scores(test) if row[0] == title)
    return f"{title} {value}, {test['confidence']:.0%} interval {interval}, dummy {dummy}"


def is_up_to_date(workspace: Workspace, metrics: dict[str, object], lineage: Lineage) -> bool:
    """Return whether metrics.json and the report are those that this run would write again."""
    test = metrics.get("test")
    if not isinstance(test, dict):
        return False
    done = files.parse_lineage(test["lineage"])
    return done.matches(lineage) and files.has_outputs(done, workspace.report.parent)


def write_evaluation(
    workspace: Workspace, model: SavedModel, data: TestData, metrics: dict[str, object], lineage: Lineage
) -> None:
    """Write figures and report, and last metrics.json, which vouches for them."""
    from dataclasses import replace

    from evaluation import report

    features = data.raw.select(list(model.contract.features)).to_pandas()
    figures = report.draw_figures(model, features, data.y, int(str(lineage.params["seed"])))
    page = report.build_report(model.manifest, model.contract, metrics, figures)
    with files.commit() as commit:
        outputs = {}
        for name, content in figures.items():
            path = workspace.figures / f"{name}.png"
            outputs[path.relative_to(workspace.report.parent).as_posix()] = commit.write_bytes(path, content)
        outputs[workspace.report.name] = commit.write_bytes(workspace.report, page.encode())
        test: dict[str, object] = metrics["test"]  # type: ignore[assignment]
        test = {**test, "lineage": replace(lineage, outputs=outputs).to_dict()}
        commit.write_json(workspace.metrics, metrics | {"test": test})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(EvaluateParams, argv, __doc__ or "")
    # One thread: boosted trees answer small batches slower with two whenever the machine has other work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with files.open_workspace(params.root) as workspace:
        evaluate(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
