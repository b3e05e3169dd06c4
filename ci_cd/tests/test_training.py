"""Training: what is compared, what is chosen, that it is the same every time, and what is done again when."""

import json
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_runs import PIPELINE, build_columns, run_stages, snapshot, without_times, write_csv

from data_ingestion import handoff
from models import artifact
from models.candidates import Candidate, describe_problem
from models.estimators import build_estimator

TASKS = ("regression", "binary", "multiclass")
TRAINING = ("load", "preprocess", "train")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One root per task, up to training."""
    roots = {}
    for task in TASKS:
        folder = tmp_path_factory.mktemp(task)
        source = write_csv(folder / "my.csv", build_columns(task))
        run_stages(folder / "root", source, "target", TRAINING)
        roots[task] = folder / "root"
    return roots


def read_metrics(root: Path) -> dict[str, dict[str, object]]:
    return json.loads((root / "models" / "metrics.json").read_bytes())


def read_train_rows(root: Path) -> tuple[pd.DataFrame, pd.Series]:
    table = pd.read_parquet(root / "data" / "processed.parquet")
    train = table[table["split"] == "train"]
    return train.drop(columns=["row_id", "split", "target"]), train["target"]


def scores_of(root: Path, name: str) -> list[float]:
    (row,) = (row for row in read_metrics(root)["train"]["leaderboard"] if row["name"] == name)
    assert row["mean"] == pytest.approx(np.mean(row["folds"]))
    assert row["standard_error"] == pytest.approx(np.std(row["folds"], ddof=1) / len(row["folds"]) ** 0.5)
    return row["folds"]


@pytest.mark.parametrize("task", TASKS)
def test_saved_model_answers_raw_rows_for_every_task(trained: dict[str, Path], tmp_path: Path, task: str) -> None:
    metrics, models = read_metrics(trained[task]), trained[task] / "models"
    manifest = json.loads((models / "saved_model.json").read_bytes())
    assert (metrics["task"], manifest["task"], manifest["target"]) == (task, task, "target")
    assert metrics["model_version"] == manifest["model_version"]
    X = pd.DataFrame({"width": [0.5, 9.5], "color": ["blue", "red"]})
    low, high = joblib.load(models / "saved_model.pkl").predict(X)
    expected = {"binary": ("low", "high"), "multiclass": ("a", "c")}
    if task == "regression":
        assert (low, high) == pytest.approx((0.5, 12.5), abs=1.5)
    else:
        assert (low, high) == expected[task]


@pytest.mark.parametrize("task", TASKS)
def test_every_candidate_beats_the_dummy(trained: dict[str, Path], task: str) -> None:
    leaderboard = read_metrics(trained[task])["train"]["leaderboard"]
    assert {row["name"] for row in leaderboard} == {"dummy", "linear", "boosting"}
    assert leaderboard[-1]["name"] == "dummy"
    weights = {row["name"]: row["weight"] for row in leaderboard}
    assert weights["dummy"] == 0
    assert sum(weights.values()) == pytest.approx(1)


def test_dummy_of_a_regression_scores_as_computed_by_hand(trained: dict[str, Path]) -> None:
    _, y = read_train_rows(trained["regression"])
    values = y.to_numpy()
    folds = KFold(3, shuffle=True, random_state=42).split(values)
    expected = [np.sqrt(np.mean((values[check] - values[fit].mean()) ** 2)) for fit, check in folds]
    assert scores_of(trained["regression"], "dummy") == pytest.approx(expected)


def test_dummy_of_two_classes_ranks_like_a_coin(trained: dict[str, Path]) -> None:
    assert scores_of(trained["binary"], "dummy") == [0.5] * 3


def test_dummy_of_three_classes_scores_as_computed_by_hand(trained: dict[str, Path]) -> None:
    """Equal rows count once where folds are cut, and stand in one."""
    X, y = read_train_rows(trained["multiclass"])
    rows, labels = X.assign(label=y), y.to_numpy()
    kinds, first = rows.groupby(list(rows), sort=False).ngroup().to_numpy(), labels[~rows.duplicated()]
    expected = []
    for fit, check in StratifiedKFold(3, shuffle=True, random_state=42).split(first, first):
        known, judged = labels[np.isin(kinds, fit)], labels[np.isin(kinds, check)]
        expected.append(-np.mean([np.log(np.mean(known == label)) for label in judged]))
    assert len(first) < len(labels)
    assert scores_of(trained["multiclass"], "dummy") == pytest.approx(expected)


def test_linear_model_scores_as_scikit_learn_does_alone(tmp_path: Path) -> None:
    columns = build_columns("regression")
    source = write_csv(tmp_path / "my.csv", {"width": columns["width"], "target": columns["target"]})
    run_stages(tmp_path / "root", source, "target", TRAINING)
    X, y = read_train_rows(tmp_path / "root")
    linear = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 3, 13)))
    folds = KFold(3, shuffle=True, random_state=42)
    expected = -cross_val_score(linear, X, y, cv=folds, scoring="neg_root_mean_squared_error")
    assert scores_of(tmp_path / "root", "linear") == pytest.approx(expected)


def test_boosting_is_chosen_where_a_line_cannot_do(tmp_path: Path) -> None:
    a = [i * 37 % 100 / 100 for i in range(300)]
    b = [i * 61 % 97 / 97 for i in range(300)]
    xor = [10 * ((x > 0.5) != (y > 0.5)) + i % 7 / 10 for i, (x, y) in enumerate(zip(a, b, strict=True))]
    source = write_csv(tmp_path / "my.csv", {"a": a, "b": b, "target": xor})
    run_stages(tmp_path / "root", source, "target", TRAINING)
    assert read_metrics(tmp_path / "root")["train"]["chosen"] == "boosting"


# The same every time


@pytest.mark.parametrize("task", TASKS)
def test_same_input_and_seed_give_the_same_bytes(trained: dict[str, Path], tmp_path: Path, task: str) -> None:
    again = tmp_path / "again"
    run_stages(again, trained[task].parent / "my.csv", "target", TRAINING)
    assert without_times(snapshot(again)) == without_times(snapshot(trained[task]))


def test_another_seed_is_another_model(trained: dict[str, Path], tmp_path: Path) -> None:
    source = trained["regression"].parent / "my.csv"
    run_stages(tmp_path / "root", source, "target", TRAINING, train=["--folds", 3, "--trials", 2, "--seed", 1])
    assert read_metrics(tmp_path / "root")["model_version"] != read_metrics(trained["regression"])["model_version"]


def test_if_changed_does_again_what_changed_and_what_follows_from_it(call_stage, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "my.csv", build_columns("regression"))
    flags = {
        "load": ["--source", source, "--target", "target"],
        "preprocess": [],
        "train": ["--folds", 2, "--trials", 2],
        "evaluate": ["--resamples", 100],
    }

    def run_changed(**changes: list[object]) -> list[str]:
        """Run the pipeline; return the stages that did something."""
        done = {s: call_stage(s, tmp_path / "root", "--if-changed", *flags[s], *changes.get(s, [])) for s in PIPELINE}
        assert not any(result.returncode for result in done.values())
        return [stage for stage, result in done.items() if "up to date" not in result.stdout]

    assert run_changed() == ["load", "preprocess", "train", "evaluate"]
    before = snapshot(tmp_path / "root")
    assert run_changed() == []
    assert snapshot(tmp_path / "root") == before
    assert run_changed(evaluate=["--confidence", 0.9]) == ["evaluate"]
    assert run_changed(train=["--seed", 1]) == ["train", "evaluate"]
    assert run_changed(preprocess=["--test-size", 0.3]) == ["preprocess", "train", "evaluate"]
    (tmp_path / "root" / "data" / "encoder.pkl").unlink()
    assert run_changed(preprocess=["--test-size", 0.3], train=["--seed", 1]) == ["preprocess", "train", "evaluate"]
    (tmp_path / "root" / "evaluation" / "report.html").unlink()
    assert run_changed(preprocess=["--test-size", 0.3], train=["--seed", 1]) == ["evaluate"]
    write_csv(tmp_path / "my.csv", build_columns("regression", 130))
    assert run_changed() == ["load", "preprocess", "train", "evaluate"]


# What is saved


def test_golden_rows_are_checked_before_a_model_is_used(trained: dict[str, Path], tmp_path: Path) -> None:
    manifest = json.loads((trained["regression"] / "models" / "saved_model.json").read_bytes())
    manifest["golden"]["predictions"][0] += 0.001
    (tmp_path / "saved_model.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "saved_model.pkl").write_bytes((trained["regression"] / "models" / "saved_model.pkl").read_bytes())
    with pytest.raises(handoff.PipelineError, match="no longer answers its golden rows"):
        artifact.load_model(tmp_path)


def test_pickle_holds_no_class_of_main(run_copy: Path) -> None:
    assert b"__main__" not in (run_copy / "models" / "saved_model.pkl").read_bytes()


def test_rows_with_unseen_categories_and_missing_values_are_answered(trained: dict[str, Path]) -> None:
    model = artifact.load_model(trained["regression"] / "models")
    answers = model.predict([{"width": None, "color": "mauve"}, {}, {"width": 3, "color": None}])
    assert np.isfinite(answers.values).all()


def test_class_of_two_rows_among_many_does_not_stop_boosting() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"number__a": rng.normal(size=1500)})
    y = pd.Series(["u"] * 800 + ["v"] * 698 + ["w"] * 2)
    problem = describe_problem("multiclass", X, y, 0, max_iterations=6)
    assert list(build_estimator(Candidate("boosting", "boosting"), problem).fit(X, y).classes_) == ["u", "v", "w"]
