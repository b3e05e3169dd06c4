"""Search for the best model by cross-validation on the train rows, fit it on all of them, and save it.

Reads data/processed.parquet, data/encoder.pkl and data/raw.parquet; writes models/saved_model.pkl, the same model as
arrays in models/saved_model.npz, their manifest models/saved_model.json, and starts models/metrics.json anew. Ctrl-C
ends the search and keeps the best so far.

    python models/train_model.py --budget 30
"""

import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, ClassVar, Literal, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic import Field, model_validator

from data_ingestion import handoff as files
from data_ingestion.handoff import Lineage, PipelineError, Workspace
from data_ingestion.params import StageParams, parse_params
from data_ingestion.schema import Task
from models import artifact

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from models.fold_work import FoldTable
    from models.outcome import Outcome
    from models.training_data import TrainingData

PREPROCESSOR = "data_ingestion/data_preprocessor.py"
LIBRARIES = ("numpy", "pandas", "scikit-learn", "joblib", "optuna")
GOLDEN_ROWS = 16
LATE = 1.3  # times the budget: then it is said so


class TrainParams(StageParams):
    """Parameters of this stage."""

    block: ClassVar[str] = "train"

    budget: float = Field(30, gt=0, description="seconds for search and final fit")
    trials: int | None = Field(None, ge=1, description="candidates to try, whatever time it takes; repeatable exactly")
    folds: int | None = Field(
        None, ge=2, le=50, description="folds of the cross-validation; none: 5, or 1 of many rows"
    )
    final: Literal["ensemble", "single"] = Field("ensemble", description="what is saved: several models, or the best")
    max_trees: int = Field(3000, ge=10, description="trees that the model may have")
    max_latency_us: float | None = Field(None, gt=0, description="microseconds an encoded row may take, among many")
    max_size_mb: float | None = Field(None, gt=0, description="megabytes that the pickle may take")
    estimator: str | None = Field(None, description="one of your own to try: package.module:ClassName")
    extra_trees: bool = Field(False, description="try extremely randomized trees too")
    threshold_metric: Literal["accuracy", "balanced_accuracy", "f1", "matthews_corrcoef"] | None = Field(
        None, description="of two classes: tune the threshold for it"
    )
    cost_false_positive: float | None = Field(None, ge=0, description="of two classes: tune the threshold for costs")
    cost_false_negative: float | None = Field(None, ge=0, description="of two classes: tune the threshold for costs")
    coverage: float = Field(0.9, gt=0.5, lt=1, description="share of targets that the intervals of answers are to hold")

    @model_validator(mode="after")
    def _check_costs(self) -> Self:
        if (self.cost_false_positive is None) != (self.cost_false_negative is None):
            raise PipelineError("cost_false_positive and cost_false_negative go together. Give both, or neither.")
        return self

    @property
    def costs(self) -> dict[str, float] | None:
        """What wrong answers cost, None where nobody says."""
        if self.cost_false_positive is None or self.cost_false_negative is None:
            return None
        return {"false_positive": self.cost_false_positive, "false_negative": self.cost_false_negative}


def check_wishes(task: Task, is_monotone: bool, params: TrainParams) -> None:
    """Raise when parameters ask for what this task, or this contract, has no use for."""
    is_tuned = params.threshold_metric is not None or params.costs is not None
    if is_tuned and task != "binary":
        raise PipelineError(
            f"threshold_metric and costs are for two classes, and this is a {task}. Leave them out, in params.yaml too."
        )
    if params.threshold_metric is not None and params.costs is not None:
        raise PipelineError("threshold_metric and costs each set the threshold. Give one of them.")
    if is_monotone and (params.estimator is not None or params.extra_trees):
        raise PipelineError(
            "data/schema.yaml asks for monotone columns, to which estimator and extra_trees cannot keep. Take one out."
        )


def find_model(data: "TrainingData", table: "FoldTable", params: TrainParams, started: float) -> "Outcome":
    """Search, choose, and fit what is chosen on all train rows.

    Parameters
    ----------
    data, table : the train rows
    params : what to search for, and how long
    started : `time.monotonic()` at which the budget began
    """
    from data_ingestion.progress import show_trials
    from models.candidates import describe_problem
    from models.finishing import assemble_model, fit_members, learn_answering
    from models.outcome import Outcome, list_choices
    from models.search import Plan, describe_best, plan_trials, prepare_search, search
    from models.selection import Limits
    from models.training_data import list_monotone
    from models.workers import Workers, count_workers

    monotone = list_monotone(data)
    check_wishes(data.contract.task, bool(monotone), params)
    deadline = None if params.trials is not None else started + params.budget
    plan = Plan(plan_trials(len(data.X), params.trials), deadline, params.max_trees)
    encoder_mb = len(pickle.dumps(data.encoder)) / 1e6
    limits = Limits(params.max_trees, params.max_latency_us, params.max_size_mb, encoder_mb)
    wanted = {"monotone": monotone, "extra_trees": params.extra_trees, "own": params.estimator}
    problem = describe_problem(data.contract.task, data.X, data.y, params.seed, **wanted)
    with Workers(table, count_workers(table)) as workers:
        problem, plan = prepare_search(problem, table, plan, workers.n_workers)
        with show_trials(plan.max_trials, plan.deadline) as show:
            done = search(problem, table, plan, workers, lambda so_far: show(*describe_best(so_far, table)))
        choices = list_choices(done.trials, table, problem, limits)
        choice = choices[0] if params.final == "ensemble" else choices[-1]
        answering = learn_answering(choice, table, problem, params.coverage, params.threshold_metric, params.costs)
        with hold_interrupt():
            members, is_refitted = fit_members(choice, problem, plan, workers)
    estimator = assemble_model(members, choice, problem, answering)
    seconds = time.monotonic() - started
    return Outcome(estimator, choice, choices, answering, done, problem, len(table.folds), is_refitted, seconds)


@contextmanager
def hold_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C pass inside the block: the search would be lost a moment before its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def say(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        print("the last fits are under way, and then the model is saved; Ctrl-C again gives it up", file=sys.stderr)

    before = signal.signal(signal.SIGINT, say)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def describe_model(
    pipeline: "Pipeline", outcome: "Outcome", data: "TrainingData", lineage: Lineage, version: str
) -> dict[str, object]:
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
        "split": describe_split(data.preprocessed),
        "golden": golden,
        "threshold": outcome.answering.threshold,
        "uncertainty": outcome.answering.uncertainty,
    }


def describe_split(preprocessed: Lineage) -> dict[str, object]:
    """Return how the test rows were chosen, by the names of `splitter.SplitRequest`."""
    names = {"split": "strategy", "split_column": "column"} | {
        n: n for n in ("test_size", "validation_size", "gap", "seed")
    }
    return {field: preprocessed.params[name] for name, field in names.items()}


def describe_training(
    train: dict[str, object], data: "TrainingData", params: TrainParams, version: str
) -> dict[str, object]:
    """Return metrics.json as this stage starts it."""
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
        "train": train,
    }


def is_up_to_date(workspace: Workspace, lineage: Lineage) -> bool:
    """Return whether the saved model and its metrics are those that this run would write again."""
    try:
        manifest = artifact.read_manifest(workspace.models)
        metrics = files.read_json(workspace.metrics, artifact.TRAINER)
    except PipelineError:
        return False
    same = files.parse_lineage(manifest.lineage).matches(lineage)
    is_whole = metrics["train"]["ended_by"] is None  # type: ignore[index]
    is_one = metrics.get("model_version") == manifest.model_version
    written = Lineage("", {}, {}, "", outputs=manifest.files)
    return same and is_whole and is_one and files.has_outputs(written, workspace.models)


def train(workspace: Workspace, params: TrainParams) -> None:
    """Read, search, fit, and write model and metrics together."""
    started = time.monotonic()
    inputs = {
        "processed.parquet": files.sha256_input(workspace.processed, PREPROCESSOR),
        "encoder.pkl": files.sha256_input(workspace.encoder, PREPROCESSOR),
    }
    code = files.sha256_code(["data_ingestion", "models"], LIBRARIES)
    lineage = Lineage("train_model", inputs, params.effective(), code)
    if params.if_changed and is_up_to_date(workspace, lineage):
        print("models/saved_model.pkl is up to date with data/processed.parquet")
        return
    from sklearn.pipeline import Pipeline

    from models.outcome import describe_outcome, fingerprint_outcome, iterate_lines
    from models.training_data import cut_table, read_training_data

    data = read_training_data(workspace)
    table = cut_table(data, params.folds, params.seed)
    try:
        outcome = find_model(data, table, params, started)
    except BrokenExecutor as err:
        raise PipelineError(
            "a worker process was ended by the system, likely for want of memory. Close other programs, or train on "
            "fewer rows."
        ) from err
    version = files.sha256_json([lineage.to_dict(), fingerprint_outcome(outcome)])[:12]
    pipeline = Pipeline([("encoder", data.encoder), ("estimator", outcome.estimator)])
    described = describe_outcome(outcome, table)
    with files.commit() as commit:
        manifest = artifact.write_model(
            commit, workspace.models, pipeline, describe_model(pipeline, outcome, data, lineage, version)
        )
        commit.write_json(workspace.metrics, describe_training(described, data, params, version))
    print("\n".join(iterate_lines(outcome, described)))
    if params.trials is None and outcome.seconds > LATE * params.budget:
        print(
            f"  took {outcome.seconds:.0f} s of a budget of {params.budget:g} s: a line and boosting are always tried, "
            "and the chosen ones fitted once more"
        )
    if not manifest.scorer.compiled:
        print(f"  served from the pickle: {manifest.scorer.reason}")
    print(f"wrote models/{', '.join(manifest.files)}, saved_model.json, metrics.json: model {version}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; see the module's description."""
    params = parse_params(TrainParams, argv, __doc__ or "")
    with files.open_workspace(params.root) as workspace:
        train(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
