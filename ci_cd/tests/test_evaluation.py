"""Evaluation: figures against independent ones, honest intervals, the parity check, and a report safe to open."""

import json
import math
import re
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.inspection import permutation_importance
from small_runs import assert_refused, build_columns, run_stages, snapshot, write_csv

from data_ingestion import handoff
from data_ingestion.schema import Column
from evaluation.importance import N_GRID, build_grid, measure_importance, trace_features
from evaluation.metrics import compute_scores, place_answers, predict_dummy, to_arrays
from evaluation.parity import OWN_TOLERANCE, check_parity
from models import artifact
from models.artifact import Predictions


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished root per task."""
    roots = {}
    for task in ("regression", "binary", "multiclass"):
        folder = tmp_path_factory.mktemp(task)
        run_stages(folder / "root", write_csv(folder / "my.csv", build_columns(task)), "target")
        roots[task] = folder / "root"
    return roots


def read_test(root: Path) -> dict[str, object]:
    return json.loads((root / "models" / "metrics.json").read_bytes())["test"]


def read_test_rows(root: Path) -> pd.DataFrame:
    table = pd.read_parquet(root / "data" / "processed.parquet")
    return pd.read_csv(root.parent / "my.csv").iloc[table.loc[table["split"] == "test", "row_id"]]


# Figures


def test_figures_of_a_regression_by_hand() -> None:
    scores = compute_scores("regression", np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 3.0, 3.0, 4.0]))
    assert scores == pytest.approx({"mse": 5 / 4, "mae": 3 / 4, "rmse": math.sqrt(5 / 4), "r2": 1 - 5 / 14})


def test_figures_of_two_classes_by_hand() -> None:
    """Answers: 0, 1, 1, 1, 0. Of the 6 pairs of a positive and a negative, 4 are in order."""
    positive = np.array([0.1, 0.6, 0.8, 0.7, 0.4])
    scores = compute_scores("binary", np.array([0, 0, 1, 1, 1]), np.column_stack([1 - positive, positive]))
    expected = {
        "accuracy": 3 / 5,
        "balanced_accuracy": (1 / 2 + 2 / 3) / 2,
        "f1": 2 * 2 / (3 + 3),
        "roc_auc": 5 / 6,
        "average_precision": (1 / 1 + 2 / 2 + 3 / 4) / 3,
        "log_loss": -np.mean(np.log([0.9, 0.4, 0.8, 0.7, 0.4])),
    }
    assert scores == pytest.approx(expected)


def test_figures_of_three_classes_by_hand() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    scores = compute_scores("multiclass", np.array([0, 1, 2, 2]), probabilities)
    assert scores["accuracy"] == 3 / 4
    assert scores["balanced_accuracy"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert scores["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert scores["log_loss"] == pytest.approx(-np.mean(np.log([0.8, 0.6, 0.3, 0.7])))
    assert scores["roc_auc"] == pytest.approx((1 + 1 + 1) / 3)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([2, 3, 5]), st.integers(12, 40))
def test_figures_of_classes_equal_scikit_learns(data: st.DataObject, n_classes: int, n_rows: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    y_true = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n_rows)])
    y_pred = rng.dirichlet(np.ones(n_classes), len(y_true))
    answers, task = y_pred.argmax(axis=1), "binary" if n_classes == 2 else "multiclass"
    one_hot, average = np.eye(n_classes)[y_true], "binary" if n_classes == 2 else "macro"
    scores = compute_scores(task, y_true, y_pred)
    expected = {
        "accuracy": sk.accuracy_score(y_true, answers),
        "balanced_accuracy": sk.balanced_accuracy_score(y_true, answers),
        "f1": sk.f1_score(y_true, answers, average=average, zero_division=0.0),
        "roc_auc": np.mean([sk.roc_auc_score(one_hot[:, c], y_pred[:, c]) for c in range(n_classes)]),
        "average_precision": sk.average_precision_score(y_true, y_pred[:, 1])
        if n_classes == 2
        else np.mean([sk.average_precision_score(one_hot[:, c], y_pred[:, c]) for c in range(n_classes)]),
        "log_loss": sk.log_loss(y_true, y_pred),
    }
    assert scores == pytest.approx(expected)


def test_figures_that_the_rows_leave_undefined_are_none() -> None:
    one_class = compute_scores("binary", np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]]))
    assert (one_class["roc_auc"], one_class["average_precision"], one_class["accuracy"]) == (None, None, 0.5)
    assert compute_scores("regression", np.array([2.0]), np.array([3.0]))["r2"] is None


def test_class_that_only_the_test_rows_hold_counts_as_wrong() -> None:
    known = Predictions(["a", "a", "b"], np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
    y_true, y_pred = to_arrays(pd.Series(["a", "new", "b"]), known, ["a", "b"])
    scores = compute_scores("multiclass", y_true, y_pred)
    assert scores["accuracy"] == 2 / 3
    assert scores["balanced_accuracy"] == pytest.approx((1 + 1 + 0) / 3)
    assert scores["f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["log_loss"] > 10


def test_new_class_among_the_test_rows_is_evaluated_to_the_end(tmp_path: Path) -> None:
    columns = build_columns("binary")
    columns["when"] = list(range(1000, 1120))
    columns["target"][-4:] = ["never seen"] * 4
    source = write_csv(tmp_path / "my.csv", columns)
    run_stages(tmp_path / "root", source, "target", preprocess=["--split", "time", "--split-column", "when"])
    test = read_test(tmp_path / "root")
    assert test["rows"] == 24
    assert test["accuracy"] <= 20 / 24


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_metrics_are_those_of_the_saved_model_on_the_test_rows(evaluated: dict[str, Path], task: str) -> None:
    root = evaluated[task]
    rows, test = read_test_rows(root), read_test(root)
    pipeline = joblib.load(root / "models" / "saved_model.pkl")
    y, answers = rows["target"].to_numpy(), pipeline.predict(rows)
    assert test["rows"] == len(rows) > 15
    if task == "regression":
        assert test["rmse"] == pytest.approx(np.sqrt(np.mean((y - answers) ** 2)))
        assert test["mae"] == pytest.approx(np.mean(np.abs(y - answers)))
        assert test["r2"] == pytest.approx(1 - np.mean((y - answers) ** 2) / np.var(y))
    else:
        assert test["accuracy"] == pytest.approx(np.mean(y == answers))
        assert test["log_loss"] == pytest.approx(sk.log_loss(y, pipeline.predict_proba(rows)))


def test_dummy_ignores_its_input() -> None:
    y_train = pd.Series([1.0, 2.0, 6.0])
    assert predict_dummy("regression", y_train, 2).values == [3.0, 3.0]
    classes = predict_dummy("multiclass", pd.Series(["b", "a", "c", "b"]), 2)
    assert classes.probabilities.tolist() == [[0.25, 0.5, 0.25]] * 2


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_model_is_better_than_the_dummy_and_says_by_how_much(evaluated: dict[str, Path], task: str) -> None:
    test, figure = read_test(evaluated[task]), "rmse" if task == "regression" else "log_loss"
    assert test[figure] < test["dummy"][figure] / 2


# Intervals


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_intervals_hold_the_point_estimate(evaluated: dict[str, Path], task: str) -> None:
    test = read_test(evaluated[task])
    intervals = {name: found for name, found in test["intervals"].items() if found is not None}
    assert len(intervals) >= 4
    for name, (low, high) in intervals.items():
        assert low <= test[name] <= high, name


# Parity


def test_parity_names_the_first_row_that_differs() -> None:
    answers = {"this way": Predictions([1.0, 2.0, 3.0]), "that way": Predictions([1.0, 2.5, 3.0000001])}
    with pytest.raises(handoff.PipelineError) as err:
        check_parity(answers)
    assert "skew in 2 of 3 test rows" in str(err.value)
    assert "(test row 1) the this way gives 2.0, the that way gives 2.5" in str(err.value)


def test_parity_looks_at_probabilities_not_only_at_labels() -> None:
    one, other = (Predictions(["a"], np.array([[p, 1 - p]])) for p in (0.9, 0.8))
    with pytest.raises(handoff.PipelineError, match="skew in 1 of 1 test rows"):
        check_parity({"this way": one, "that way": other})


def test_parity_of_an_own_estimator_lets_rounding_pass_and_nothing_more() -> None:
    one, rounded, other = (Predictions([3.017668544610682 * share]) for share in (1, 1 + 1e-15, 1 + 1e-6))
    check_parity({"this way": one, "that way": rounded}, OWN_TOLERANCE)
    for found, tolerance in ((rounded, 0.0), (other, OWN_TOLERANCE)):
        with pytest.raises(handoff.PipelineError, match="skew in 1 of 1 test rows"):
            check_parity({"this way": one, "that way": found}, tolerance)


def test_encoder_that_does_not_belong_to_the_estimator_is_caught(call_stage, run_copy: Path) -> None:
    """A model whose own golden rows agree, yet whose encoder is not the one that made processed.parquet."""
    model = artifact.load_model(run_copy / "models")
    ordinal = model.pipeline.named_steps["encoder"].named_steps["encode"].named_transformers_["category"]
    *levels, missing = ordinal.categories_[1]
    ordinal.categories_[1] = np.array([*levels[::-1], missing], dtype=object)
    golden = model.manifest.golden
    answers = model.predict(golden.rows).values
    described = model.manifest.model_dump() | {"golden": {"rows": golden.rows, "predictions": answers}}
    with handoff.commit() as commit:
        artifact.write_model(commit, run_copy / "models", model.pipeline, described)
    before = snapshot(run_copy)
    assert_refused(call_stage("evaluate", run_copy), "training/serving skew in", "test rows", "Run again")
    assert snapshot(run_copy) == before


# What the answers depend on


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_importance_equals_scikit_learns_on_the_raw_columns(evaluated: dict[str, Path], task: str) -> None:
    model = artifact.load_model(evaluated[task] / "models")
    raw = pd.read_parquet(evaluated[task] / "data" / "raw.parquet")
    X, y = raw[list(model.contract.features)], raw["target"]
    scoring = "neg_root_mean_squared_error" if task == "regression" else "neg_log_loss"
    expected = permutation_importance(model.pipeline, X, y, scoring=scoring, n_repeats=5, random_state=3)
    means, spreads = measure_importance(model, X, y, seed=3)
    assert means == pytest.approx(expected.importances_mean, rel=1e-9, abs=1e-12)
    assert spreads == pytest.approx(expected.importances_std, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_importance_ranks_every_feature(evaluated: dict[str, Path], task: str) -> None:
    ranked = read_test(evaluated[task])["importance"]
    assert [row["column"] for row in ranked] == ["width", "color"], "the target is width, and 3 where color is red"
    assert ranked[0]["mean"] > ranked[1]["mean"] > 0
    assert all(row["std"] >= 0 for row in ranked)


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_partial_dependence_is_the_mean_answer_with_one_column_set(evaluated: dict[str, Path], task: str) -> None:
    model = artifact.load_model(evaluated[task] / "models")
    X = read_test_rows(evaluated[task])[["width", "color"]].reset_index(drop=True)
    width, color = trace_features(model, X, ["width", "color"], seed=0)
    assert (width["kind"], color["kind"]) == ("number", "category")
    assert width["grid"] == sorted(width["grid"])
    assert len(width["grid"]) <= N_GRID
    assert sorted(color["grid"]) == sorted(X["color"].unique())
    assert color["shares"] == [pytest.approx((X["color"] == value).mean()) for value in color["grid"]]
    for found in (width, color):
        for value, mean in zip(found["grid"], found["mean"], strict=True):
            changed = X.assign(**{found["column"]: value})
            if task == "regression":
                expected = model.pipeline.predict(changed).mean()
            else:
                place = list(model.manifest.classes).index(found["class"])
                expected = model.pipeline.predict_proba(changed)[:, place].mean()
            assert mean == pytest.approx(expected)
    if task == "binary":
        assert width["class"] == model.manifest.classes[1]


def test_grid_holds_quantiles_of_many_values_and_single_ones_of_few() -> None:
    grid, shares = build_grid(pd.Series(np.arange(1_000.0)), Column(kind="number"))
    assert len(grid) == N_GRID
    assert grid == pytest.approx(np.arange(1, N_GRID + 1) / (N_GRID + 1) * 999, abs=1)
    assert shares is None
    assert build_grid(pd.Series([3, 1, 3, 3]), Column(kind="integer")) == ([1, 3], [0.25, 0.75])
    texts = pd.Series(["b", "a", "b", None], dtype=object)
    assert build_grid(texts, Column(kind="category")) == (["b", "a", None], [0.5, 0.25, 0.25])


# The other sections


def test_answers_need_not_be_the_likeliest_class() -> None:
    """With a threshold of 0.3 two more rows are answered with the second class."""
    positive = np.array([0.1, 0.35, 0.4, 0.7])
    y_pred = np.column_stack([1 - positive, positive])
    predictions = Predictions(["no", "yes", "yes", "yes"], y_pred)
    y = pd.Series(["no", "yes", "no", "yes"])
    answers = place_answers(y, predictions, ["no", "yes"])
    assert answers.tolist() == [0, 1, 1, 1]
    y_true, _ = to_arrays(y, predictions, ["no", "yes"])
    assert compute_scores("binary", y_true, y_pred, answers)["accuracy"] == 3 / 4
    assert compute_scores("binary", y_true, y_pred)["accuracy"] == 3 / 4
    assert compute_scores("binary", y_true, y_pred, answers)["f1"] == pytest.approx(2 * 2 / (2 + 3))
    assert compute_scores("binary", y_true, y_pred)["f1"] == pytest.approx(2 * 1 / (2 + 1))


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_train_rows_have_figures_of_their_own(evaluated: dict[str, Path], task: str) -> None:
    root = evaluated[task]
    table = pd.read_parquet(root / "data" / "processed.parquet")
    rows = pd.read_csv(root.parent / "my.csv").iloc[table.loc[table["split"] == "train", "row_id"]]
    train, pipeline = read_test(root)["train"], joblib.load(root / "models" / "saved_model.pkl")
    assert train["rows"] == len(rows)
    if task == "regression":
        assert train["mae"] == pytest.approx(np.mean(np.abs(rows["target"] - pipeline.predict(rows))))
    else:
        assert train["log_loss"] == pytest.approx(sk.log_loss(rows["target"], pipeline.predict_proba(rows)))


def test_only_two_classes_have_thresholds(evaluated: dict[str, Path]) -> None:
    assert {task: bool(read_test(root)["thresholds"]) for task, root in evaluated.items()} == {
        "regression": False,
        "binary": True,
        "multiclass": False,
    }


def test_section_holds_the_profile_and_the_leaks_of_the_data(evaluated: dict[str, Path]) -> None:
    test = read_test(evaluated["regression"])
    assert test["profile"]["rows"] == 120
    width = test["profile"]["columns"]["width"]
    assert (width["kind"], width["missing_share"], width["min"], width["max"]) == ("number", 0.0, 0.0, 10.0)
    assert [row["value"] for row in test["profile"]["columns"]["color"]["top"]]
    leaks = json.loads((evaluated["regression"] / "data" / "leaks.json").read_bytes())
    assert test["leaks"] == leaks["findings"]


@pytest.mark.parametrize(
    ("name", "maker"), [("leaks.json", "data_preprocessor.py"), ("profile.json", "data_loader.py")]
)
def test_what_was_written_beside_the_data_must_belong_to_it(call_stage, run_copy: Path, name: str, maker: str) -> None:
    path = run_copy / "data" / name
    path.write_bytes(path.read_bytes() + b" ")
    assert_refused(call_stage("evaluate", run_copy), name, "is not the file that was written", maker)


def test_timing_is_measured_once_for_each_model(call_stage, run_copy: Path) -> None:
    timing = read_test(run_copy)["timing"]
    assert 0 < timing["row_ms"]["p50"] <= timing["row_ms"]["p95"]
    assert (timing["batch_us_per_row"] > 0, timing["batch_rows"]) == (True, read_test(run_copy)["rows"])
    assert call_stage("evaluate", run_copy, "--resamples", 150).returncode == 0
    assert read_test(run_copy)["timing"] == timing


def test_first_run_without_a_champion_passes_and_says_why(run_copy: Path) -> None:
    verdict = json.loads((run_copy / "models" / "metrics.json").read_bytes())["verdict"]
    assert verdict["status"] == "passed"
    assert verdict["reasons"][0].startswith("better than the dummy: RMSE")
    assert verdict["reasons"][1] == "there is no champion yet to compare with"
    assert read_test(run_copy)["champion"] is None


def test_summary_shows_the_verdict(run_copy: Path) -> None:
    done = run_script("evaluation/summary.py", ["--root", run_copy])
    assert "\nverdict: passed: better than the dummy: RMSE" in done.stdout
    done = run_script("evaluation/summary.py", ["--root", run_copy, "--markdown"])
    assert "\n**passed**\n\n- better than the dummy" in done.stdout


def test_summary_of_a_model_that_did_not_pass_ends_as_the_evaluation_did(run_copy: Path) -> None:
    """`make run` tracks and sums up such a model too, and still ends with its exit code."""
    path = run_copy / "models" / "metrics.json"
    metrics = json.loads(path.read_bytes())
    path.write_text(json.dumps(metrics | {"verdict": {"status": "inconclusive", "reasons": ["who knows"]}}))
    done = run_script("evaluation/summary.py", ["--root", run_copy])
    assert (done.returncode, done.stderr) == (3, "")
    assert "verdict: inconclusive: who knows" in done.stdout


# Report


def test_figures_are_files_too(evaluated: dict[str, Path]) -> None:
    for root in evaluated.values():
        made = {path.relative_to(root / "evaluation").as_posix() for path in (root / "evaluation").rglob("*.*")}
        assert made == set(read_test(root)["lineage"]["outputs"])
        assert {"report.html", "report.md"} < made
        assert len(made) >= 6


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_names_and_classes_from_the_file_are_escaped_and_drawn_as_they_are(tmp_path: Path, task: str) -> None:
    """Also in the figures, where $ would begin a formula and an unknown letter would be a warning."""
    columns = build_columns(task)
    hostile = {
        "<script>alert(1)</script>": columns["width"],
        "cost $\\frac{ in $": columns["color"],
        "_größe 年齢": list(range(0, 240, 2)),
        '<img src=x onerror="alert(2)">': [f"<b>${t}$_{{</b>" for t in columns["target"]]
        if task == "multiclass"
        else columns["target"],
    }
    source = write_csv(tmp_path / "my.csv", hostile)
    run_stages(tmp_path / "root", source, '<img src=x onerror="alert(2)">')
    page = (tmp_path / "root" / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=" in page
    assert not re.search(r"<script|<img src=x|<b>\$", page)


def test_evaluation_gives_the_same_bytes_twice(call_stage, evaluated: dict[str, Path]) -> None:
    before = snapshot(evaluated["binary"])
    assert call_stage("evaluate", evaluated["binary"], "--resamples", 100).returncode == 0
    assert snapshot(evaluated["binary"]) == before
