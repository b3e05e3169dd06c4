"""The verdict: what noise is taken for, what each check says, and what becomes of champions of all sorts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import BaseEstimator
from sklearn.metrics import root_mean_squared_error
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeRegressor
from small_models import write_small_model
from small_runs import snapshot

from data_ingestion import handoff
from data_ingestion.handoff import PipelineError
from data_ingestion.params import parse_params
from data_ingestion.schema import parse_contract
from data_ingestion.splitter import SplitRequest, find_train_rows
from evaluation import gate
from evaluation.bootstrap import draw_scores
from evaluation.champion import check_unseen, find_obstacle
from evaluation.gate import (
    Check,
    Judged,
    Verdict,
    check_champion,
    check_classes,
    check_dummy,
    check_limits,
    check_slices,
    decide,
)
from evaluation.metrics import build_scorer, compute_scores
from evaluation.parameters import EvaluateParams, parse_limits
from models import artifact

TRIALS = 200
Answers = tuple[np.ndarray, np.ndarray, np.ndarray]  # target, the champion's answers, the model's


# Noise. Errors of two models share most of what makes a row hard: their correlation is 0.9, as with two seeds.


def draw_errors(rng: np.random.Generator, n_rows: int, ratio: float) -> Answers:
    shared, own, other = rng.standard_t(8, size=(3, n_rows)) * np.sqrt([[0.9], [0.1], [0.1]])
    y = 3 * rng.normal(size=n_rows)
    return y, y + shared + own, y + ratio * (shared + other)


def draw_classes(rng: np.random.Generator, n_rows: int, gain: float) -> Answers:
    y = (rng.random(n_rows) < 0.3).astype(int)
    shared, own, other = rng.normal(size=(3, n_rows)) * np.sqrt([[0.9], [0.1], [0.1]])
    odds = [1.5 * y + shared + own, (1.5 + gain) * y + shared + other]
    champion, model = (np.column_stack([1 - p, p]) for p in (1 / (1 + np.exp(-value)) for value in odds))
    return y, champion, model


def judge(task: str, y: np.ndarray, *predictions: np.ndarray, resamples: int = 200, seed: int = 0) -> list[Judged]:
    scorers = {str(place): build_scorer(task, y, found) for place, found in enumerate(predictions)}
    draws = draw_scores(scorers, len(y), resamples, seed)
    return [Judged(compute_scores(task, y, found), draws[str(place)]) for place, found in enumerate(predictions)]


def count_verdicts(
    task: str, n_rows: int, draw: Callable[[np.random.Generator], Answers], trials: int = TRIALS
) -> dict[str, int]:
    rng, counts = np.random.default_rng(11), dict.fromkeys(("passed", "rejected", "inconclusive"), 0)
    for trial in range(trials):
        y, its, own = draw(rng)
        champion, model = judge(task, y, its, own, seed=trial)
        counts[check_champion(task, model, champion, 0.95, n_rows, 0.01).status] += 1
    return counts


@pytest.mark.parametrize("n_rows", [40, 300, 2_000])
def test_twin_of_the_champion_is_promoted_in_few_trials(n_rows: int) -> None:
    counts = count_verdicts("regression", n_rows, lambda rng: draw_errors(rng, n_rows, 1.0))
    assert counts["passed"] <= 0.05 * TRIALS
    assert counts["rejected"] <= 0.05 * TRIALS


def test_model_with_five_percent_lower_errors_passes() -> None:
    assert count_verdicts("regression", 2_000, lambda rng: draw_errors(rng, 2_000, 0.95))["passed"] >= 0.8 * TRIALS


def test_model_with_five_percent_higher_errors_is_rejected() -> None:
    assert count_verdicts("regression", 2_000, lambda rng: draw_errors(rng, 2_000, 1.05))["rejected"] >= 0.8 * TRIALS


def test_twin_that_ranks_as_well_is_promoted_in_few_trials() -> None:
    assert count_verdicts("binary", 400, lambda rng: draw_classes(rng, 400, 0.0))["passed"] <= 0.05 * TRIALS


def test_model_that_ranks_better_passes() -> None:
    """ROC AUC 0.88 against 0.86 on 500 rows."""
    assert count_verdicts("binary", 500, lambda rng: draw_classes(rng, 500, 0.25), 100)["passed"] >= 80


def test_model_that_learnt_nothing_is_rarely_better_than_the_dummy() -> None:
    rng, passed = np.random.default_rng(2), 0
    for trial in range(TRIALS):
        y = rng.integers(0, 2, 100)
        p, share = rng.random(100), np.full(100, 0.5)
        model, dummy = judge("binary", y, *(np.column_stack([1 - p, p]) for p in (p, share)), seed=trial)
        passed += check_dummy("binary", model, dummy, 0.95, 100).status == "passed"
    assert passed <= 0.05 * TRIALS


# Single checks


def test_dummy_decides_with_words_and_figures() -> None:
    y = np.arange(40.0)
    good, bad, dummy = judge("regression", y, y + 1, y[::-1], np.full(40, 19.5))
    passed = check_dummy("regression", good, dummy, 0.95, 40)
    assert passed.status == "passed"
    assert passed.reason.startswith("better than the dummy: RMSE 1.0000 against 11.54, a gain of ")
    assert check_dummy("regression", bad, dummy, 0.95, 40).status == "rejected"


def test_few_rows_that_cannot_tell_are_inconclusive_and_clear_ones_pass() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=12)
    vague, clear, dummy = judge("regression", y, 0.1 * y + 0.9 * rng.normal(size=12), y + 0.01, np.zeros(12))
    found = check_dummy("regression", vague, dummy, 0.95, 12)
    assert found.status == "inconclusive"
    assert "12 test rows are too few" in found.reason
    assert check_dummy("regression", clear, dummy, 0.95, 12).status == "passed"


@pytest.mark.parametrize("counts", [{"no": 984, "yes": 2}, {"0": 9, "1": 30}])
def test_class_with_next_to_no_rows_is_not_judged_by(counts: dict[str, int]) -> None:
    found = check_classes(counts)
    assert found.status == "inconclusive"
    assert f"{min(counts.values())} test rows of the class" in found.reason
    assert check_classes(dict.fromkeys(counts, 10)) is None
    assert check_classes({"a": 2, "b": 50, "c": 50}) is None  # log loss knows no ranks


def test_model_that_is_ahead_of_the_dummy_by_chance_perhaps_is_inconclusive() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=130)
    ahead, dummy = judge("regression", y, 0.15 * y + 0.55 * rng.normal(size=130), np.zeros(130))
    found = check_dummy("regression", ahead, dummy, 0.95, 130)
    assert ahead.scores["rmse"] < dummy.scores["rmse"]
    assert found.status == "inconclusive"
    assert "not surely better than the dummy" in found.reason


def test_figure_that_is_undefined_is_inconclusive() -> None:
    model, dummy = judge("binary", np.ones(5, dtype=int), np.tile([0.4, 0.6], (5, 1)), np.tile([0.5, 0.5], (5, 1)))
    assert check_dummy("binary", model, dummy, 0.95, 5).status == "inconclusive"
    assert check_champion("binary", model, dummy, 0.95, 5, 0.01).status == "inconclusive"


def test_model_that_is_a_little_worse_is_not_rejected_within_the_tolerance() -> None:
    rng = np.random.default_rng(0)
    y, errors = rng.normal(size=(2, 500))
    champion, model = judge("regression", y, y + errors, y + 1.005 * errors)
    assert check_champion("regression", model, champion, 0.95, 500, 0.01).status == "inconclusive"
    assert check_champion("regression", model, champion, 0.95, 500, 0.0).status == "rejected"
    assert "the champion stays" in check_champion("regression", model, champion, 0.95, 500, 0.0).reason


def test_model_that_answers_alike_is_no_better() -> None:
    y = np.arange(50.0)
    champion, model = judge("regression", y, y + 1, y + 1)
    found = check_champion("regression", model, champion, 0.95, 50, 0.01)
    assert found.status == "inconclusive"
    assert "no different from the champion" in found.reason


def test_limits_bound_errors_above_and_scores_below() -> None:
    scores = {"mse": 4.0, "mae": 1.5, "rmse": 2.0, "r2": 0.9}
    intervals = {"mse": [3.0, 5.0], "mae": [1.0, 2.0], "rmse": [1.7, 2.3], "r2": [0.85, 0.95]}

    def ask(**limits: float) -> list[Check]:
        return list(check_limits("regression", scores, intervals, limits))

    assert [check.status for check in ask(rmse=2.0, r2=0.9)] == ["passed", "passed"]
    assert [check.status for check in ask(rmse=1.99, r2=0.91)] == ["rejected", "rejected"]
    assert ask(rmse=1.5)[0].reason == "limit missed: RMSE 2.0000, wanted at most 1.5"
    assert ask(r2=0.8)[0].reason == "limit met: R² 0.9000, wanted at least 0.8"
    assert "though its interval 1.7000 to 2.3000 reaches beyond" in ask(rmse=2.1)[0].reason
    assert "though" not in ask(rmse=2.4)[0].reason
    assert ask(roc_auc=0.99) == [], "of another task"


def test_limit_on_an_undefined_figure_is_inconclusive() -> None:
    scores = dict.fromkeys(("accuracy", "balanced_accuracy", "f1", "log_loss"), 0.5) | {"roc_auc": None}
    (found,) = check_limits("binary", scores, dict.fromkeys([*scores, "average_precision"]), {"roc_auc": 0.8})
    assert found.status == "inconclusive"


def test_slices_that_got_worse_are_named_the_worst_first() -> None:
    found = check_slices(["a", "b", "c"], np.array([0.2, 0.1, 0.5]), np.array([0.01, 0.5, 0.02]), 0.1, 0.05)
    assert found.status == "rejected"
    assert "where c (by 50%), a (by 20%);" in found.reason
    assert check_slices(["a"], np.array([0.2]), np.array([0.06]), 0.1, 0.05).status == "passed"


def test_one_rejection_decides_and_its_reason_comes_first() -> None:
    checks = [Check("passed", "good"), Check("inconclusive", "unsure"), Check("rejected", "bad")]
    assert decide(checks) == Verdict("rejected", ["bad", "unsure", "good"])
    assert decide(checks[:2]).status == "inconclusive"
    assert [decide(some).exit_code for some in (checks, checks[:2], checks[:1])] == [3, 3, 0]
    assert decide(checks).to_lines() == ["verdict: rejected: bad", "  unsure", "  good"]


# Limits as parameters


def test_limits_come_as_text_or_as_mapping() -> None:
    assert parse_limits("rmse=500, r2=0.8") == parse_limits({"rmse": 500, "r2": 0.8}) == {"rmse": 500.0, "r2": 0.8}
    assert parse_limits(None) == parse_limits("") == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rmsee=3", 'unknown figure "rmsee". Did you mean "rmse"'),
        ({"roc": 1}, 'unknown figure "roc"'),
        ("rmse", "rmse expects a number, got ''"),
        ("rmse=nan", "rmse expects a number, got 'nan'"),
        ("rmse=x", "got 'x'. Write it as rmse=0.8"),
        ([1], "limits expects figures with numbers"),
    ],
)
def test_limits_that_are_none_are_refused(value: object, message: str) -> None:
    with pytest.raises(PipelineError, match="limits") as err:
        parse_limits(value)
    assert message in str(err.value)


def test_dry_run_is_no_part_of_what_decides_the_result(tmp_path: Path) -> None:
    params = parse_params(EvaluateParams, ["--dry-run", "--root", str(tmp_path)], "")
    assert params.dry_run
    assert "dry_run" not in params.effective()


# Champions that cannot be compared


@pytest.mark.parametrize(
    ("change", "status", "fragment"),
    [
        ({"model_version": "0123456789ab"}, "passed", "this very model"),
        ({"target": "rent"}, "passed", "predicts rent (regression), another question"),
        ({"task": "binary"}, "passed", "predicts price (binary), another question"),
        ({"libraries": {"scikit-learn": "0.1"}}, "inconclusive", "made with scikit-learn 0.1"),
        ({"classes": ["a", "b"]}, "inconclusive", 'does not know "a", "b"'),
    ],
)
def test_champion_that_cannot_be_compared_is_said_so(
    tmp_path: Path, change: dict[str, object], status: str, fragment: str
) -> None:
    candidate = write_small_model(tmp_path)
    champion = candidate.model_copy(update={"model_version": "feedfeedfeed"} | change)
    found = find_obstacle(champion, candidate, list(candidate.contract["columns"]))
    assert found is not None
    assert found.status == status
    assert fragment in found.reason


def test_champion_whose_features_are_gone_makes_it_inconclusive(tmp_path: Path) -> None:
    candidate = write_small_model(tmp_path)
    champion = candidate.model_copy(update={"model_version": "feedfeedfeed"})
    found = find_obstacle(champion, candidate, ["class", "rooms", "has lift", "price"])
    assert found.status == "inconclusive"
    assert 'no longer hold its "floor area", "_built"' in found.reason


def test_champion_that_has_learnt_from_test_rows_is_not_compared(tmp_path: Path) -> None:
    """As after a column was left out, or with another seed: both draw the test rows anew."""
    candidate = write_small_model(tmp_path)
    split = {"strategy": "hash", "column": None, "test_size": 0.2, "validation_size": 0.0, "gap": 0.0, "seed": 42}
    rows = pa.table({name: [f"{name} {number}" for number in range(400)] for name in candidate.contract["columns"]})
    contract = parse_contract(candidate.contract, "")
    is_test = pa.array(~find_train_rows(rows, contract, SplitRequest(**split)))
    candidate = candidate.model_copy(update={"split": split})
    assert check_unseen(candidate, candidate, rows.filter(is_test)) is None
    champion = candidate.model_copy(update={"split": split | {"seed": 1}})
    found = check_unseen(champion, candidate, rows.filter(is_test))
    assert found.status == "inconclusive"
    assert "it has learnt from" in found.reason
    by_time = candidate.model_copy(update={"split": split | {"strategy": "time"}})
    assert "chosen in another way" in check_unseen(by_time, candidate, rows.filter(is_test)).reason
    assert check_unseen(by_time, by_time, rows.filter(is_test)) is None


# Champions in the folder


def read_metrics(root: Path) -> dict[str, dict[str, object]]:
    return json.loads((root / "models" / "metrics.json").read_bytes())


def read_rows(root: Path, side: str) -> tuple[pd.DataFrame, pd.Series]:
    table = pd.read_parquet(root / "data" / "processed.parquet")
    rows = table[table["split"] == side]
    return rows[artifact.read_manifest(root / "models").feature_names], rows["target"]


def crown(root: Path, estimator: BaseEstimator, side: str | None = "train", **changes: object) -> Pipeline:
    """Put a model into models/champion/: the encoder of the one in models/ with another estimator, fitted on a side."""
    model = artifact.load_model(root / "models")
    fitted = estimator.fit(*read_rows(root, side)) if side else estimator
    pipeline = Pipeline([model.pipeline.steps[0], ("estimator", fitted)])
    rows = model.manifest.golden.rows
    answers = artifact.predict_rows(pipeline, model.contract, rows).values
    described = model.manifest.model_dump() | {
        "model_version": "feedfeedfeed",
        "golden": {"rows": rows, "predictions": answers},
        "uncertainty": None,
    }
    with handoff.commit() as commit:
        artifact.write_model(commit, root / "models" / "champion", pipeline, described | changes)
    return pipeline


def test_champion_that_is_worse_is_beaten_on_the_same_rows(call_stage, run_copy: Path) -> None:
    pipeline = crown(run_copy, DecisionTreeRegressor(max_depth=1))
    done = call_stage("evaluate", run_copy, "--resamples", 200)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = read_metrics(run_copy)
    X, y = read_rows(run_copy, "test")
    expected = root_mean_squared_error(y, pipeline.named_steps["estimator"].predict(X))
    assert metrics["test"]["champion"]["model_version"] == "feedfeedfeed"
    assert metrics["test"]["champion"]["rmse"] == pytest.approx(expected)
    assert metrics["verdict"]["status"] == "passed"
    assert any(reason.startswith("better than the champion: RMSE") for reason in metrics["verdict"]["reasons"])
    assert f", champion {expected:.2f}" in done.stdout


def test_model_that_is_worse_than_the_champion_is_rejected_and_still_reported(call_stage, run_copy: Path) -> None:
    """The champion has seen the test rows, which makes it hard to beat."""
    crown(run_copy, KNeighborsRegressor(1), side="test")
    done = call_stage("evaluate", run_copy, "--resamples", 200)
    assert (done.returncode, done.stderr) == (3, "")
    assert "verdict: rejected: worse than the champion" in done.stdout
    assert read_metrics(run_copy)["verdict"]["status"] == "rejected"
    assert read_metrics(run_copy)["test"]["champion"]["rmse"] == 0
    before = snapshot(run_copy)
    again = call_stage("evaluate", run_copy, "--resamples", 200, "--if-changed")
    assert again.returncode == 3
    assert "up to date" in again.stdout
    assert "verdict: rejected: worse than the champion" in again.stdout
    assert snapshot(run_copy) == before


def test_model_like_the_champion_is_inconclusive_until_the_champion_goes(call_stage, run_copy: Path) -> None:
    crown(run_copy, artifact.load_model(run_copy / "models").pipeline.named_steps["estimator"], side=None)
    done = call_stage("evaluate", run_copy, "--resamples", 200)
    assert done.returncode == 3
    assert "verdict: inconclusive: no different from the champion" in done.stdout
    for path in (run_copy / "models" / "champion").iterdir():
        path.unlink()
    assert call_stage("evaluate", run_copy, "--resamples", 200, "--if-changed").returncode == 0


def test_champion_is_an_input_so_a_new_one_is_judged_against(call_stage, run_copy: Path) -> None:
    assert "up to date" in call_stage("evaluate", run_copy, "--resamples", 100, "--if-changed").stdout
    crown(run_copy, DecisionTreeRegressor(max_depth=1))
    assert "up to date" not in call_stage("evaluate", run_copy, "--resamples", 100, "--if-changed").stdout


@pytest.mark.parametrize("name", ["saved_model.pkl", "saved_model.json"])
@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_damaged_champion_makes_it_inconclusive(call_stage, run_copy: Path, name: str, damage: str) -> None:
    crown(run_copy, DecisionTreeRegressor(max_depth=1))
    path = run_copy / "models" / "champion" / name
    if damage == "remove":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1 << 7
        path.write_bytes(content)
    done = call_stage("evaluate", run_copy)
    assert (done.returncode, done.stderr) == (3, "")
    assert "verdict: inconclusive: the champion cannot be asked" in done.stdout
    assert "remove models/champion/ to judge without one" in done.stdout
    assert str(run_copy) not in done.stdout
    assert read_metrics(run_copy)["test"]["champion"] is None


def test_champion_that_answers_another_question_is_no_obstacle(call_stage, run_copy: Path) -> None:
    write_small_model(run_copy / "models" / "champion")
    done = call_stage("evaluate", run_copy)
    assert done.returncode == 0
    assert "the champion predicts price (regression), another question: it was not compared" in done.stdout


def test_dry_run_says_the_same_and_writes_nothing(call_stage, run_copy: Path) -> None:
    crown(run_copy, KNeighborsRegressor(1), side="test")
    before = snapshot(run_copy)
    done = call_stage("evaluate", run_copy, "--dry-run")
    assert done.returncode == 3
    assert "verdict: rejected" in done.stdout
    assert done.stdout.endswith("wrote nothing: --dry-run\n")
    assert snapshot(run_copy) == before


def test_missed_limit_rejects(call_stage, run_copy: Path) -> None:
    done = call_stage("evaluate", run_copy, "--limits", "rmse=1,roc_auc=0.9")
    assert done.returncode == gate.EXIT_NOT_PASSED
    assert "verdict: rejected: limit missed: RMSE" in done.stdout
    assert call_stage("evaluate", run_copy, "--limits", "rmse=100000").returncode == 0


def test_limits_of_params_yaml_are_read(call_stage, run_copy: Path) -> None:
    (run_copy / "params.yaml").write_text("evaluate: {limits: {r2: 0.999}, resamples: 100}\n", encoding="utf-8")
    assert call_stage("evaluate", run_copy).returncode == 3
    (run_copy / "params.yaml").write_text("evaluate: {limits: {r3: 0.999}}\n", encoding="utf-8")
    assert 'unknown figure "r3"' in call_stage("evaluate", run_copy).stderr
