"""Judge the saved model on the test rows, which it has never seen, and say whether it may replace the champion.

Reads the model folder, models/champion/ where there is one, data/processed.parquet, data/raw.parquet and what was
written beside them; adds the sections "test" and "verdict" to models/metrics.json and writes evaluation/report.html,
report.md and the figures. Ends with 0 when the model passed, with 3 when it was rejected or nothing is sure.

The same input and seed give the same bytes, but for how long an answer takes ("timing"), which is measured once for
each model that training makes.

    python evaluation/evaluate_model.py --resamples 1000
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_ingestion import handoff as files
from data_ingestion.handoff import Lineage, Workspace
from data_ingestion.params import parse_params
from data_ingestion.schema import Task
from evaluation.parameters import EvaluateParams
from evaluation.test_data import PREPROCESSOR, TestData, read_test_data
from models import artifact
from models.artifact import SavedModel

LIBRARIES = ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib")


def describe_lineage(workspace: Workspace, params: EvaluateParams) -> Lineage:
    """Return what this evaluation is made from."""
    inputs = {
        "saved_model.json": files.sha256_file(workspace.models / artifact.MANIFEST),
        "processed.parquet": files.sha256_input(workspace.processed, PREPROCESSOR),
    }
    champion = find_champion(workspace) / artifact.MANIFEST
    if champion.is_file():
        inputs["champion/saved_model.json"] = files.sha256_file(champion)
    code = files.sha256_code(["data_ingestion", "models", "evaluation"], LIBRARIES)
    return Lineage(stage="evaluate_model", inputs=inputs, params=params.effective(), code=code)


def find_champion(workspace: Workspace) -> Path:
    """Return the folder of the model that would be replaced."""
    return workspace.models / "champion"


def evaluate(workspace: Workspace, params: EvaluateParams) -> int:
    """Read, check parity, judge, and write metrics and report together; return the exit code."""
    metrics = files.read_json(workspace.metrics, artifact.TRAINER)
    manifest = artifact.read_manifest(workspace.models)
    if metrics.get("model_version") != manifest.model_version:
        reason = f"it is of model {metrics.get('model_version')}, and the saved model is {manifest.model_version}"
        raise files.stale_error(workspace.metrics, reason, artifact.TRAINER)
    lineage = describe_lineage(workspace, params)
    if params.if_changed and not params.dry_run and is_up_to_date(workspace, metrics, lineage):
        return report_up_to_date(metrics)
    model = artifact.load_model(workspace.models)
    data = read_test_data(workspace, model, params.seed)
    return judge(workspace, model, data, metrics, lineage, params)


def report_up_to_date(metrics: Mapping[str, object]) -> int:
    """Print the verdict as it stands and return its exit code."""
    from evaluation.gate import read_verdict

    verdict = read_verdict(metrics)
    print("models/metrics.json is up to date with models/saved_model.pkl")
    if verdict.exit_code:
        print("\n".join(verdict.to_lines()))
    return verdict.exit_code


def judge(
    workspace: Workspace,
    model: SavedModel,
    data: TestData,
    metrics: Mapping[str, object],
    lineage: Lineage,
    params: EvaluateParams,
) -> int:
    """Judge the model, write what came of it unless this is a dry run, and return the exit code."""
    from data_ingestion.progress import show_progress
    from evaluation.champion import ask_champion
    from evaluation.judging import judge_model
    from evaluation.parity import OWN_TOLERANCE, check_parity, predict_each_way

    answers = predict_each_way(model, data)
    check_parity(answers, 0.0 if model.manifest.scorer.compiled else OWN_TOLERANCE)
    champion = ask_champion(find_champion(workspace), model, data.raw)
    with show_progress("bootstrapping", total=params.resamples) as report:
        test, verdict = judge_model(model, data, next(iter(answers.values())), champion, params, report)
    print(f"{len(data.y):,} test rows: {len(answers)} ways to ask give the same answer for every row")
    print(f"  {describe_headline(model.manifest.task, test)}")
    print("\n".join(verdict.to_lines()))
    if params.dry_run:
        print("wrote nothing: --dry-run")
        return verdict.exit_code
    test["timing"] = read_timing(metrics, model, data)
    write_evaluation(workspace, model, data, {**metrics, "test": test, "verdict": verdict.to_dict()}, lineage)
    wrote = "models/metrics.json, evaluation/report.html, evaluation/report.md"
    print(f"wrote {wrote}: model {model.manifest.model_version}")
    return verdict.exit_code


def describe_headline(task: Task, test: Mapping[str, object]) -> str:
    """Return the figure that candidates were compared by, in a line; all of them are in the report."""
    from evaluation.metrics import TITLES, format_score, tabulate_scores
    from models.candidates import METRICS

    metric = METRICS[task]
    value, interval, dummy = next(row[1:] for row in tabulate_scores(test) if row[0] == TITLES[metric])
    champion: Mapping[str, float | None] | None = test["champion"]  # type: ignore[assignment]
    beside = "" if champion is None else f", champion {format_score(champion[metric])}"
    return f"{TITLES[metric]} {value}, {test['confidence']:.0%} interval {interval}, dummy {dummy}{beside}"


def read_timing(metrics: Mapping[str, object], model: SavedModel, data: TestData) -> object:
    """Return how long answers take, measured unless that was done for this model before: training starts anew."""
    from evaluation.timing import measure_timing

    test = metrics.get("test")
    known = test.get("timing") if isinstance(test, Mapping) else None
    return measure_timing(model, data.features) if known is None else known


def is_up_to_date(workspace: Workspace, metrics: Mapping[str, object], lineage: Lineage) -> bool:
    """Return whether metrics.json and the report are those that this run would write again."""
    test = metrics.get("test")
    if not isinstance(test, dict) or "verdict" not in metrics:
        return False
    done = files.parse_lineage(test["lineage"])
    return done.matches(lineage) and files.has_outputs(done, workspace.report.parent)


def write_evaluation(
    workspace: Workspace, model: SavedModel, data: TestData, metrics: dict[str, object], lineage: Lineage
) -> None:
    """Write figures and reports, and last metrics.json, which vouches for them."""
    from evaluation import report

    figures = report.draw_figures(model, data.features, data.y, metrics)
    page = report.build_report(model.manifest, model.contract, metrics, figures)
    text = report.build_markdown(model.manifest, model.contract, metrics)
    contents = {workspace.figures / name: content for name, content in figures.items()}
    contents |= {workspace.report: page.encode(), workspace.report.with_suffix(".md"): text.encode()}
    with files.commit() as commit:
        folder = workspace.report.parent
        outputs = {path.relative_to(folder).as_posix(): commit.write_bytes(path, c) for path, c in contents.items()}
        test: dict[str, object] = metrics["test"]  # type: ignore[assignment]
        test = {**test, "lineage": replace(lineage, outputs=outputs).to_dict()}
        commit.write_json(workspace.metrics, metrics | {"test": test})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; see the module's description."""
    params = parse_params(EvaluateParams, argv, __doc__ or "")
    # One thread: boosted trees answer small batches slower with two whenever the machine has other work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with files.open_workspace(params.root) as workspace:
        return evaluate(workspace, params)


if __name__ == "__main__":
    sys.exit(files.run_stage(main))
