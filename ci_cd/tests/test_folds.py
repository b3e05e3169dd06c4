"""Folds cut as the test rows were cut, what training says of them, and that it saves the same bytes on more cores."""

import io
import json
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from small_runs import assert_refused, build_columns, edit_schema, run_stages, write_csv

from data_ingestion.handoff import PipelineError, open_workspace
from data_ingestion.pickling import dump_pickle
from models.candidates import Candidate, describe_problem
from models.fold_work import FoldTable
from models.folds import MAX_CELLS, Fold, FoldRequest, build_folds, cut_folds, explain_folds
from models.training_data import cut_table, read_training_data
from models.workers import Workers

TRAINING = ("load", "preprocess", "train")
REGRESSION = FoldRequest("regression", "hash", seed=0)
BY_TIME = FoldRequest("regression", "time", seed=0)


def zeros(n_rows: int) -> pd.Series:
    return pd.Series(np.zeros(n_rows))


def assert_equal(found: list[Fold], expected: list[Fold]) -> None:
    assert len(found) == len(expected)
    for sides in zip(found, expected, strict=True):
        for rows, expected_rows in zip(*sides, strict=True):
            assert rows.tolist() == expected_rows.tolist()


# By key


def test_rows_that_differ_are_cut_as_scikit_learn_cuts_them() -> None:
    keys, y = np.arange(103), pd.Series(["a", "b", "b"] * 34 + ["a"])
    regression = build_folds(REGRESSION, zeros(103), keys, 4)
    assert_equal(regression, list(KFold(4, shuffle=True, random_state=0).split(keys)))
    binary = build_folds(FoldRequest("binary", "hash", seed=0), y, keys, 4)
    assert_equal(binary, list(StratifiedKFold(4, shuffle=True, random_state=0).split(keys, y)))
    grouped = build_folds(FoldRequest("binary", "group", seed=0), y, keys % 10, 4)
    assert_equal(grouped, list(GroupKFold(4, shuffle=True, random_state=0).split(keys, y, keys % 10)))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 15), min_size=30, max_size=80),
    st.sampled_from(["regression", "binary", "multiclass"]),
    st.sampled_from(["hash", "stratified", "group"]),
    st.integers(2, 5),
)
def test_rows_with_one_key_stand_in_one_fold(keys: list[int], task: str, strategy: str, n_folds: int) -> None:
    keys = [*keys, *range(20, 40)]
    y = pd.Series([0.0] * len(keys) if task == "regression" else [f"c{key % 2}" for key in keys])
    folds = build_folds(FoldRequest(task, strategy, seed=0), y, np.array(keys), n_folds)
    for fit, check in folds:
        assert {keys[row] for row in fit}.isdisjoint(keys[row] for row in check)
        assert len(fit) + len(check) == len(keys)
    assert sorted(np.concatenate([check for _, check in folds])) == list(range(len(keys)))


def test_rows_without_a_group_stand_in_one_fold() -> None:
    groups = np.array([None if i % 4 == 0 else f"patient {i % 7}" for i in range(56)], dtype=object)
    for fit, check in build_folds(FoldRequest("regression", "group"), zeros(56), groups, 3):
        assert set(groups[fit]).isdisjoint(groups[check])


def test_copies_keep_the_share_of_each_class() -> None:
    keys = np.repeat(np.arange(100), 20)
    y = pd.Series(np.where(keys % 5 == 0, "rare", "usual"))
    folds = build_folds(FoldRequest("binary", "hash", seed=0), y, keys, 5)
    assert [(y.iloc[check] == "rare").mean() for _, check in folds] == [0.2] * 5


@pytest.mark.parametrize(
    ("strategy", "fragment"), [("group", "the train rows hold one group"), ("hash", "hold one row, over and over")]
)
def test_one_key_is_refused(strategy: str, fragment: str) -> None:
    with pytest.raises(PipelineError, match=fragment):
        build_folds(FoldRequest("regression", strategy), zeros(10), np.zeros(10), 2)


# By time


def test_fold_is_judged_by_what_comes_later() -> None:
    times = np.array([(i * 7) % 50 for i in range(50)])
    folds = build_folds(BY_TIME, zeros(50), times, 4)
    assert [(times[fit].max(), times[check].min(), times[check].max()) for fit, check in folds] == [
        (9, 10, 19),
        (19, 20, 29),
        (29, 30, 39),
        (39, 40, 49),
    ]


@given(st.lists(st.integers(0, 9), min_size=10, max_size=60), st.integers(2, 5), st.integers(0, 2))
def test_fold_is_cut_between_moments_and_leaves_the_gap_out(moments: list[int], n_folds: int, gap: int) -> None:
    times = np.array([-9, *moments, 30], dtype=float)
    folds = build_folds(FoldRequest("regression", "time", gap=gap), zeros(len(times)), times, n_folds)
    for fit, check in folds:
        assert times[fit].max() < times[check].min() - gap
        assert set(fit) == set(np.flatnonzero(times < times[check].min() - gap))
    judged = np.concatenate([check for _, check in folds])
    assert sorted(judged) == sorted(np.flatnonzero(times >= times[judged].min()))


def test_row_without_a_moment_is_fitted_on_and_never_judged() -> None:
    times = np.array([np.nan, 1, 2, 3, 4, np.nan])
    folds = build_folds(BY_TIME, zeros(6), times, 3)
    assert_equal(folds, [(np.array([0, *range(1, n), 5]), np.array([n])) for n in (2, 3, 4)])


@pytest.mark.parametrize(("times", "gap"), [([3.0] * 10, 0), (list(range(10)), 9), ([np.nan] * 10, 0)])
def test_moments_that_leave_nothing_to_fit_on_are_refused(times: list[float], gap: float) -> None:
    with pytest.raises(PipelineError, match="too few moments to be judged by later ones"):
        build_folds(FoldRequest("regression", "time", gap=gap), zeros(10), np.array(times), 4)


# How many


def test_very_many_rows_are_held_back_once() -> None:
    y, keys = zeros(1000), np.arange(1000.0)
    assert len(cut_folds(REGRESSION, y, keys, 10)) == 5
    ((fit, check),) = cut_folds(REGRESSION, y, keys, MAX_CELLS // 1000 + 1)
    assert (len(fit), len(check)) == (900, 100)
    ((fit, check),) = cut_folds(FoldRequest("regression", "time", gap=20), y, keys, MAX_CELLS)
    assert (max(fit), min(check), max(check)) == (888, 909, 999)


def test_rare_class_does_not_lower_the_folds_of_many_classes() -> None:
    y = pd.Series(["u"] * 60 + ["v"] * 38 + ["w"] * 2)
    request = FoldRequest("multiclass", "hash", 10)
    folds = build_folds(request, y, np.arange(100), 10)
    assert len(folds) == 10
    assert explain_folds(request, folds) is None
    assert sorted(np.concatenate([check for _, check in folds])) == list(range(100))


def test_row_of_a_class_that_was_not_fitted_on_is_not_judged() -> None:
    y = pd.Series(["u"] * 30 + ["v"] * 29 + ["w"])
    folds = build_folds(FoldRequest("multiclass", "hash"), y, np.arange(60), 5)
    assert len(folds) == 5
    assert sorted(np.concatenate([check for _, check in folds])) == list(range(59))


def test_folds_of_two_classes_are_as_many_as_the_smaller_one_has_rows_and_it_is_said() -> None:
    y = pd.Series(["no"] * 60 + ["yes"] * 8)
    request, keys = FoldRequest("binary", "hash", 10), np.array([*range(60), *[60, 61, 62, 63] * 2])
    folds = build_folds(request, y, keys, 10)
    assert len(folds) == 4
    assert explain_folds(request, folds) == (
        "--folds 10 lowered to 4: the train rows hold too few different rows of each class"
    )
    assert explain_folds(FoldRequest("binary", "hash"), folds) is None


def test_folds_without_two_classes_are_left_out_or_refused() -> None:
    request, order = FoldRequest("binary", "time", 5), np.arange(12)
    late = pd.Series(["no"] * 4 + ["no", "yes"] * 4)
    folds = build_folds(request, late, order, 5)
    assert folds
    assert all(late.iloc[fit].nunique() == late.iloc[check].nunique() == 2 for fit, check in folds)
    assert "too few moments of each class" in (explain_folds(request, folds) or "")
    with pytest.raises(PipelineError, match="leaves 0 of 5 folds with two classes"):
        build_folds(request, pd.Series(["no"] * 11 + ["yes"]), order, 5)


# The stage


def read_train(root: Path) -> dict[str, object]:
    return json.loads((root / "models" / "metrics.json").read_bytes())["train"]


def cut(root: Path, n_folds: int) -> tuple[pd.DataFrame, list[Fold]]:
    """Return the raw train rows, and the folds that training cuts them into."""
    with open_workspace(root) as workspace:
        data = read_training_data(workspace)
    return data.raw.to_pandas().iloc[data.X.index], list(cut_table(data, n_folds, 42).folds)


@pytest.mark.parametrize("strategy", ["hash", "stratified"])
def test_copies_stand_in_one_fold(tmp_path: Path, strategy: str) -> None:
    columns = {name: values * 8 for name, values in build_columns("binary", 100).items()}
    source = write_csv(tmp_path / "my.csv", columns)
    run_stages(tmp_path / "root", source, "target", TRAINING[:2], preprocess=["--split", strategy])
    rows, folds = cut(tmp_path / "root", 5)
    contents = rows.astype(str).agg(" ".join, axis=1)
    assert len(folds) == 5
    for fit, check in folds:
        assert set(contents.iloc[fit]).isdisjoint(contents.iloc[check])


def test_rows_of_one_id_stand_in_one_fold(tmp_path: Path) -> None:
    columns = build_columns("regression", 200)
    columns["who"] = [f"id{i // 8}" for i in range(200)]
    source = write_csv(tmp_path / "my.csv", columns)
    run_stages(tmp_path / "root", source, "target", ["load"])
    entry = "who:\n    kind: category\n    role: "
    edit_schema(tmp_path / "root", f"{entry}feature", f"{entry}id")
    run_stages(tmp_path / "root", source, "target", TRAINING[:2])
    rows, folds = cut(tmp_path / "root", 5)
    for fit, check in folds:
        assert set(rows["who"].iloc[fit]).isdisjoint(rows["who"].iloc[check])


def test_copies_of_noise_are_not_taken_for_knowledge(tmp_path: Path) -> None:
    """The target scatters by 1 around its mean: an error far below it is a copy found again."""
    rng = np.random.default_rng(0)
    columns = {name: np.repeat(rng.normal(size=100).round(6), 20).tolist() for name in ("a", "b", "target")}
    source = write_csv(tmp_path / "my.csv", columns)
    run_stages(tmp_path / "root", source, "target", TRAINING)
    assert min(row["mean"] for row in read_train(tmp_path / "root")["leaderboard"]) > 0.7


def test_gap_of_the_split_stands_between_the_folds_too(tmp_path: Path) -> None:
    columns = build_columns("regression")
    columns["visit"] = [f"2024-01-{1 + i // 5:02}" for i in range(120)]
    source = write_csv(tmp_path / "my.csv", columns)
    flags = ["--split", "time", "--split-column", "visit", "--gap", 2]
    run_stages(tmp_path / "root", source, "target", TRAINING[:2], preprocess=flags)
    rows, folds = cut(tmp_path / "root", 3)
    days = rows["visit"].dt.day.to_numpy()
    assert len(folds) == 3
    for fit, check in folds:
        assert days[fit].max() == days[check].min() - 3


@pytest.mark.parametrize("strategy", ["group", "time"])
def test_training_follows_the_split(tmp_path: Path, strategy: str) -> None:
    columns = build_columns("regression")
    columns["visit"] = [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(120)]
    columns["clinic"] = ["NA" if i % 20 == 0 else f"clinic {i % 9}" for i in range(120)]
    source = write_csv(tmp_path / "my.csv", columns)
    column = {"group": "clinic", "time": "visit"}[strategy]
    flags = ["--split", strategy, "--split-column", column, "--test-size", 0.4]
    run_stages(tmp_path / "root", source, "target", TRAINING, preprocess=flags)
    assert len(read_train(tmp_path / "root")["leaderboard"][0]["folds"]) == 3


@pytest.mark.parametrize(
    ("flags", "train_flags", "fragment"),
    [
        ([], ["--folds", 50], "--folds 50 needs at least 50 train rows"),
        (["--split", "group", "--split-column", "half"], [], "one group"),
        (
            ["--split", "time", "--split-column", "width", "--test-size", 0.9],
            ["--folds", 4],
            "--folds 4 needs at least 5",
        ),
    ],
    ids=["more-folds-than-rows", "one-group", "time"],
)
def test_too_few_rows_for_the_folds_are_refused(
    call_stage, tmp_path: Path, flags: list[object], train_flags: list[object], fragment: str
) -> None:
    columns = build_columns("regression", 30)
    columns["half"] = ["first" if i < 15 else "second" for i in range(30)]
    source = write_csv(tmp_path / "my.csv", columns)
    run_stages(tmp_path / "root", source, "target", ["load"])
    for seed in range(40):  # until the seed puts one of the two groups on either side
        done = call_stage("preprocess", tmp_path / "root", "--seed", seed, *flags)
        if done.returncode == 0:
            break
    assert_refused(call_stage("train", tmp_path / "root", *train_flags), fragment)
    assert not (tmp_path / "root" / "models" / "saved_model.pkl").exists()


def test_class_with_one_train_row_does_not_stop_training(tmp_path: Path) -> None:
    columns = build_columns("multiclass")
    columns["target"][7] = "rare"
    for seed in (1, 2, 3):
        root = tmp_path / str(seed)
        source = write_csv(tmp_path / "my.csv", columns)
        run_stages(root, source, "target", TRAINING, preprocess=["--seed", seed])
        table = pd.read_parquet(root / "data" / "processed.parquet")
        if "rare" in set(table["target"][table["split"] == "train"]):
            break
    assert json.loads((root / "models" / "saved_model.json").read_bytes())["classes"] == ["a", "b", "c", "rare"]
    assert read_train(root)["folds"] == 3


def test_lowered_folds_are_said(call_stage, tmp_path: Path) -> None:
    columns = build_columns("regression")
    columns["target"] = ["yes" if i % 30 == 0 else "no" for i in range(120)]
    source = write_csv(tmp_path / "my.csv", columns)
    run_stages(tmp_path / "root", source, "target", TRAINING[:2], preprocess=["--split", "stratified"])
    done = call_stage("train", tmp_path / "root", "--folds", 10, "--trials", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--folds 10 lowered to 3: the train rows hold too few different rows of each class\n" in done.stdout


@pytest.mark.parametrize(("name", "kind"), [("color", "category"), ("visit", "datetime")])
def test_monotone_effect_of_what_is_no_number_is_refused(call_stage, tmp_path: Path, name: str, kind: str) -> None:
    columns = build_columns("regression")
    columns["visit"] = [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(120)]
    source = write_csv(tmp_path / "my.csv", columns)
    run_stages(tmp_path / "root", source, "target", ["load"])
    edit_schema(tmp_path / "root", f"  {name}:\n", f"  {name}:\n    monotone: increasing\n")
    run_stages(tmp_path / "root", source, "target", TRAINING[:2])
    done = call_stage("train", tmp_path / "root", "--trials", 2)
    assert_refused(done, f'data/schema.yaml: column "{name}" is of kind {kind}', "Take monotone out")


# The same bytes


def dump(value: object) -> bytes:
    content = io.BytesIO()
    dump_pickle(value, content)
    return content.getvalue()


def test_equal_dtypes_are_written_as_one() -> None:
    first = np.dtype([("a", "<f8")])
    second, other = np.dtype([("a", "<f8")]), np.dtype([("a", "<f8")], metadata={"unit": "m"})
    assert first is not second
    assert dump([first, second]) == dump([first, first])
    arrays = [np.zeros(2, first), np.zeros(2, second)]
    assert dump(arrays) == dump([np.zeros(2, first), np.zeros(2, first)])
    assert joblib.load(io.BytesIO(dump(arrays)))[1].dtype == first
    read = joblib.load(io.BytesIO(dump([first, other])))
    assert [dtype.metadata for dtype in read] == [None, other.metadata]


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_members_are_the_same_bytes_whatever_process_fits_them(task: str) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"number__a": rng.normal(size=300), "number__b": rng.normal(size=300)})
    X["category__c"] = rng.integers(0, 4, 300).astype(float)
    y = X["number__a"] if task == "regression" else pd.Series(np.array(["u", "v", "w"])[rng.integers(0, 3, 300)])
    values = y.to_numpy() if task == "regression" else np.asarray(y, dtype=object)
    metric = "rmse" if task == "regression" else "log_loss"
    table = FoldTable(X.to_numpy(), tuple(X.columns), values, [], [], metric)
    problem = describe_problem(task, X, y, 0, max_iterations=5)
    found = []
    for n_workers in (1, 2):
        with Workers(table, n_workers) as workers:
            names = ("linear", "boosting", "boosting")
            members = [workers.fit_whole(Candidate(name, name), problem, 5) for name in names]
            found.append(dump([member.result() for member in members]))
    assert found[0] == found[1]
