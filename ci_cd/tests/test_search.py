"""The search: what is tried, on how many cores, how it ends, and which candidates answer together."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, root_mean_squared_error
from sklearn.model_selection import KFold
from sklearn.preprocessing import TargetEncoder
from small_runs import assert_refused, build_columns, edit_schema, run_stages, write_csv

from models.candidates import FEW_ROWS, Candidate, Problem, define_space, describe_problem, list_known_good
from models.fold_encoding import encode_folds
from models.fold_work import FoldTable, fit_fold, rank_auc
from models.folds import FoldRequest, build_folds
from models.search import FINISHING_S, Plan, Search, is_switch, plan_trials, prepare_search, search
from models.selection import Limits, Trial, choose_single, rank_trials
from models.train_model import hold_interrupt
from models.weighing import choose_ensemble
from models.workers import Workers

TRAINING = ("load", "preprocess", "train")


def make_table(n_rows: int = 600) -> tuple[FoldTable, Problem]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({f"number__{name}": rng.normal(size=n_rows) for name in "abc"})
    y = X["number__a"] - X["number__b"] + np.sin(3 * X["number__c"]) + rng.normal(0, 0.1, n_rows)
    folds = list(KFold(3, shuffle=True, random_state=0).split(X))
    table = FoldTable(X.to_numpy(), tuple(X.columns), y.to_numpy(), folds, [None] * 3, "rmse")
    return table, describe_problem("regression", X, y, 0, max_iterations=60)


def read_train(root: Path) -> dict[str, object]:
    return json.loads((root / "models" / "metrics.json").read_bytes())["train"]


# What is tried


class RunningFuture(Future):
    """What a worker has begun with."""

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()


def test_result_is_the_same_on_any_number_of_cores() -> None:
    table, problem = make_table()
    found = []
    for n_workers in (1, 2):
        plan = Plan(max_trials=8, deadline=None, max_trees=1000)
        with Workers(table, n_workers) as workers:
            problem_here, plan = prepare_search(problem, table, plan, n_workers)
            done = search(problem_here, table, plan, workers, lambda _: None)
        found.append([(t.candidate, t.scores.tobytes(), t.iterations) for t in done.trials])
    assert len(found[0]) == 9  # the dummy too
    assert found[0] == found[1]


def test_search_goes_on_from_what_is_known_to_be_good() -> None:
    table, problem = make_table()
    plan = Plan(max_trials=7, deadline=None, max_trees=1000)
    with Workers(table, 1) as workers:
        problem, plan = prepare_search(problem, table, plan, 1)
        done = search(problem, table, plan, workers, lambda _: None)
    tried = [trial.candidate for trial in done.trials]
    known = list_known_good(problem)
    assert tried[1 : 1 + len(known)] == known
    assert {"linear", "boosting", "boosting with pairs", "boosting on a line"} <= {c.name for c in known}
    assert tried[-1].name.startswith("boosting ")
    assert set(problem.strongest) == {"number__a", "number__b", "number__c"}


def test_time_enough_changes_nothing() -> None:
    """Time and trees that are short make boosting learn faster; more of them than it may take do not."""
    table, problem = make_table()
    trials = Plan(max_trials=7, deadline=None, max_trees=3000)
    hour = replace(trials, deadline=time.monotonic() + 3600)
    assert prepare_search(problem, table, hour, 1)[0] == prepare_search(problem, table, trials, 1)[0]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("category__sex", [0, 1, 1, -2], True),  # -2: missing
        ("category__sex", [0, 1, 2, -2], False),
        ("category__sex", [0, 0, -2], False),
        ("number__sold", [0, 1, 1], True),
        ("number__sold", [0, 1, -2], False),
        ("number__missingindicator_sold", [0, 1, 1], False),
        ("mean__place", [0, 1, 1], False),
    ],
)
def test_switch_is_what_has_two_levels(name: str, values: list[float], expected: bool) -> None:
    assert is_switch(pd.Series(values, name=name, dtype="float64")) is expected


def test_ctrl_c_keeps_what_is_finished() -> None:
    table, problem = make_table()

    def interrupt(done: Search) -> None:
        if len(done.trials) == 3:
            raise KeyboardInterrupt

    for n_workers in (1, 2):
        with Workers(table, n_workers) as workers:
            done = search(problem, table, Plan(100, None, 1000), workers, interrupt)
            assert done.ended_by == "stopped by Ctrl-C"
            assert [trial.candidate.name for trial in done.trials] == ["dummy", "linear", "boosting"]
            again = workers.fit_whole(done.trials[1].candidate, problem, None)  # others take work again
            assert again.result().predict(pd.DataFrame(table.values, columns=list(table.columns))).shape == (600,)


def test_ctrl_c_before_anything_is_finished_ends_the_run() -> None:
    table, problem = make_table()

    def interrupt(done: Search) -> None:
        raise KeyboardInterrupt

    with Workers(table, 1) as workers, pytest.raises(KeyboardInterrupt):
        search(problem, table, Plan(100, None, 1000), workers, interrupt)


@pytest.mark.parametrize("kind", [Future, RunningFuture])
def test_trial_that_does_not_end_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch, kind: type[Future]) -> None:
    monkeypatch.setattr("models.search.RESTART_S", 0)
    table, problem = make_table()
    with Workers(table, 1) as workers:
        fit, endless, dropped = workers.fit_fold, [], []

        def fit_few(*given: object) -> Future:
            if given[0].name in ("dummy", "linear", "boosting"):
                return fit(*given)
            endless.append(kind())
            return endless[-1]

        monkeypatch.setattr(workers, "fit_fold", fit_few)
        monkeypatch.setattr(workers, "drop_work", lambda: dropped.append(True))
        plan = Plan(100, time.monotonic() + FINISHING_S + 3, 1000)  # enough to begin with them
        done = search(problem, table, plan, workers, lambda _: None)
    assert [trial.candidate.name for trial in done.trials] == ["dummy", "linear", "boosting"]
    assert endless
    assert dropped == ([] if kind is Future else [True])  # a worker at work on one would hold up what follows
    assert all(future.cancelled() or future.running() for future in endless)


def test_trial_that_fails_while_time_runs_out_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    table, problem = make_table()
    with Workers(table, 1) as workers:
        fit, later = workers.fit_fold, []

        def fit_few(*given: object) -> Future:
            if given[0].name in ("dummy", "linear", "boosting"):
                return fit(*given)
            later.append(Future())
            if len(later) == 2:
                later[-1].set_exception(ValueError("a bug"))
            return later[-1]

        monkeypatch.setattr(workers, "fit_fold", fit_few)
        plan = Plan(100, time.monotonic() + FINISHING_S + 3, 1000)  # enough to begin with them
        with pytest.raises(ValueError, match="a bug"):
            search(problem, table, plan, workers, lambda _: None)


def test_candidate_far_behind_is_fitted_on_one_fold_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.search.MIN_ROWS_RACE", 100)
    table, problem = make_table()
    with Workers(table, 1) as workers:
        done = search(problem, table, Plan(3, None, 1000), workers, lambda _: None)
    by_name = {trial.candidate.name: trial for trial in done.trials}
    assert len(by_name["linear"].scores) == 3
    assert by_name["linear"].answers is not None
    slow = [trial for trial in done.trials if trial.answers is None]
    assert all(trial.scores[0] > 1.1 * min(t.scores[0] for t in done.trials) for trial in slow)


def test_as_many_candidates_are_tried_as_rows_can_tell_apart() -> None:
    assert [plan_trials(n, None) for n in (100, 2_500, 10**6)] == [12, 100, 200]
    assert plan_trials(100, 3) == 3


# Who answers


def make_trial(name: str, answers: np.ndarray, n_trees: int = 10, **more: object) -> Trial:
    score = float(root_mean_squared_error(np.zeros(4), answers))
    fields = {"fit_s": 1.0, "predict_us": 5.0, "iterations": n_trees, "size_bytes": 1_000_000} | more
    return Trial(Candidate(name, "boosting"), np.array([score]), answers, n_trees=n_trees, **fields)


def score_answers(answers: np.ndarray) -> np.ndarray:
    """The errors on two folds of two rows."""
    return np.sqrt((answers.reshape(2, 2) ** 2).mean(axis=1))


NO_LIMITS = Limits(max_trees=1000)


def test_ensemble_weighs_errors_against_each_other() -> None:
    """Errors 1 and -2 cancel with the weights 2/3 and 1/3."""
    a, b = make_trial("a", np.full(4, 1.0)), make_trial("b", np.full(4, -2.0))
    ranked = rank_trials([b, a], "rmse")
    assert ranked == [a, b]
    single = choose_single(ranked, "rmse", NO_LIMITS)
    assert single is not None
    assert (single.name, single.score) == ("a", 1.0)
    ensemble = choose_ensemble(ranked, single, score_answers, "rmse", NO_LIMITS, FEW_ROWS, 0)
    assert ensemble.score == pytest.approx(0)
    assert {trial.candidate.name: weight for trial, weight in ensemble.members} == pytest.approx(
        {"a": 2 / 3, "b": 1 / 3}
    )
    assert (ensemble.n_trees, ensemble.predict_us) == (20, 10)


def test_ensemble_that_is_no_better_is_left() -> None:
    ranked = [make_trial("a", np.full(4, 1.0)), make_trial("b", np.full(4, 1.5))]
    single = choose_single(ranked, "rmse", NO_LIMITS)
    assert single is not None
    assert choose_ensemble(ranked, single, score_answers, "rmse", NO_LIMITS, FEW_ROWS, 0) is single


def test_ensemble_that_is_better_on_one_fold_only_is_left() -> None:
    """Its mean gain is no larger than its standard error."""
    a, b = make_trial("a", np.array([1.0, 1.0, 1.0, 1.0])), make_trial("b", np.array([-1.0, -1.0, 3.0, 3.0]))
    single = choose_single([a, b], "rmse", NO_LIMITS)
    assert single is not None
    assert choose_ensemble([a, b], single, score_answers, "rmse", NO_LIMITS, FEW_ROWS, 0) is single


def test_few_rows_are_answered_by_several_of_the_best() -> None:
    """A gain on one fold only would not do where rows are many."""
    a, b = make_trial("a", np.array([1.0, 1.0, 1.0, 1.0])), make_trial("b", np.array([-1.0, -1.0, 3.0, 3.0]))
    c = make_trial("c", np.array([2.5, 2.5, -2.5, -2.5]))
    single = choose_single([a, b, c], "rmse", NO_LIMITS)
    assert single is not None
    found = choose_ensemble([a, b, c], single, score_answers, "rmse", NO_LIMITS, FEW_ROWS - 1, 0)
    weights = {trial.candidate.name: weight for trial, weight in found.members}
    assert set(weights) == {"a", "b", "c"}
    assert sum(weights.values()) == pytest.approx(1)
    assert found.score < 1
    again = choose_ensemble([a, b, c], single, score_answers, "rmse", NO_LIMITS, FEW_ROWS - 1, 0)
    assert again.members == found.members


def test_few_rows_are_answered_by_one_that_is_surely_better() -> None:
    best, worse = make_trial("best", np.full(4, 0.1)), make_trial("worse", np.full(4, 5.0))
    single = choose_single([best, worse], "rmse", NO_LIMITS)
    assert single is not None
    assert choose_ensemble([best, worse], single, score_answers, "rmse", NO_LIMITS, FEW_ROWS - 1, 0) is single


def test_few_rows_keep_to_the_limits_over_all_bags() -> None:
    trials = [make_trial(f"t{n}", np.roll([1.0, -1.0, 1.5, 1.0], n) + n / 100) for n in range(8)]
    limits = Limits(max_trees=30)
    ranked = rank_trials(trials, "rmse")
    single = choose_single(ranked, "rmse", limits)
    assert single is not None
    found = choose_ensemble(ranked, single, score_answers, "rmse", limits, FEW_ROWS - 1, 0)
    assert 1 < len(found.members) <= 3


def test_dummy_that_is_best_answers_alone() -> None:
    dummy = Trial(Candidate("dummy", "dummy"), np.array([0.5]), np.full(4, 0.5), 0.1, 1.0, 0, 0, 100)
    others = [make_trial(f"noise {n}", np.full(4, 0.6 + n / 100)) for n in range(15)]
    single = choose_single([dummy, *others], "rmse", NO_LIMITS)
    assert single is not None
    assert choose_ensemble([dummy, *others], single, score_answers, "rmse", NO_LIMITS, FEW_ROWS, 0) is single
    assert choose_single([dummy], "rmse", NO_LIMITS) is None


def test_candidate_beyond_the_first_twelve_may_be_the_single_one() -> None:
    """The twelve before it are as good within a thousandth, and slower."""
    slow = [make_trial(f"slow {n}", np.full(4, 1.0 + n / 1e5), 900) for n in range(14)]
    fast = make_trial("fast", np.full(4, 1.0005), 10)
    single = choose_single([*slow, fast], "rmse", NO_LIMITS)
    assert single is not None
    assert single.name == "fast"
    assert choose_ensemble([*slow, fast], single, score_answers, "rmse", NO_LIMITS, FEW_ROWS, 0) is single


def test_tie_with_an_own_estimator_goes_to_the_faster_though_it_has_no_trees() -> None:
    own = Trial(Candidate("SVR", "own"), np.array([1.0]), np.full(4, 1.0), 0.1, 500.0, 0, 0, 100)
    boosting = make_trial("boosting", np.full(4, 1.0001), 30)
    assert boosting.predict_us < own.predict_us
    assert choose_single([own, boosting], "rmse", NO_LIMITS).name == "boosting"


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_trees=15),
        Limits(1000, max_latency_us=7),
        Limits(1000, max_size_mb=1.5),
        Limits(1000, max_size_mb=2.5, encoder_mb=1.0),
    ],
    ids=["trees", "latency", "size", "size with the encoder"],
)
def test_limits_hold_for_all_members_together(limits: Limits) -> None:
    ranked = [make_trial("a", np.full(4, 1.0)), make_trial("b", np.full(4, -2.0))]
    single = choose_single(ranked, "rmse", limits)
    assert single is not None
    assert choose_ensemble(ranked, single, score_answers, "rmse", limits, FEW_ROWS, 0) is single
    assert choose_single(ranked, "rmse", Limits(1000, max_latency_us=1)) is None


def test_of_candidates_as_good_the_fastest_is_chosen() -> None:
    ranked = [make_trial("slow", np.full(4, 1.0), 900), make_trial("fast", np.full(4, 1.0005), 90)]
    chosen = choose_single(ranked, "rmse", NO_LIMITS)
    assert chosen is not None
    assert chosen.name == "fast"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_area_under_the_curve_is_that_of_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    positive, answers = np.array([p for p, _ in rows]), np.array([a / 5 for _, a in rows])
    if positive.all() or not positive.any():
        assert np.isnan(rank_auc(positive, answers))
    else:
        assert rank_auc(positive, answers) == pytest.approx(roc_auc_score(positive, answers))


# Target means


def test_fold_learns_target_means_from_its_own_rows() -> None:
    """The rows to be judged get what scikit-learn's TargetEncoder learns from the rows to fit on."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 8, 200)
    y = levels + rng.normal(size=200)
    texts = [f"l{level}" for level in levels]
    fit, check = np.arange(150), np.arange(150, 200)
    raw = {"c": pa.chunked_array([pa.array(texts)])}
    (means,) = encode_folds(raw, {"c": {"name": "c", "missing": []}}, {"c": [4]}, [y], [(fit, check)], seed=0)
    assert means is not None
    assert means.columns == [4]
    X = np.array(texts, dtype=object)[:, np.newaxis]
    expected = TargetEncoder(target_type="continuous").fit(X[fit], y[fit]).transform(X[check])
    assert means.check == pytest.approx(expected)
    changed = y.copy()
    changed[check] += 100  # what is judged has no part in what is learnt
    (again,) = encode_folds(raw, {"c": {"name": "c", "missing": []}}, {"c": [4]}, [changed], [(fit, check)], seed=0)
    assert again is not None
    assert again.fit.tobytes() == means.fit.tobytes()
    assert abs(np.corrcoef(means.fit[:, 0], y[fit])[0, 1]) > 0.5


# The stage


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root per module, up to the preprocessor."""
    folder = tmp_path_factory.mktemp("prepared")
    run_stages(folder / "root", write_csv(folder / "my.csv", build_columns("binary")), "target", TRAINING[:2])
    return folder / "root"


def test_estimator_of_ones_own_joins_the_search(call_stage, prepared: Path) -> None:
    flags = ["--trials", 3, "--folds", 3, "--estimator", "sklearn.neighbors:KNeighborsClassifier"]
    assert call_stage("train", prepared, *flags).returncode == 0
    rows = {row["name"]: row for row in read_train(prepared)["leaderboard"]}
    assert rows["KNeighborsClassifier"]["mean"] > 0.5
    assert rows["KNeighborsClassifier"]["settings"]["estimator"] == "sklearn.neighbors:KNeighborsClassifier"


def test_estimator_that_fails_is_left_out_and_said(call_stage, prepared: Path) -> None:
    flags = ["--trials", 3, "--folds", 3, "--estimator", "sklearn.naive_bayes:CategoricalNB"]
    done = call_stage("train", prepared, *flags)
    assert done.returncode == 0
    assert "left out CategoricalNB: " in done.stderr
    assert "CategoricalNB" not in {row["name"] for row in read_train(prepared)["leaderboard"]}


@pytest.mark.parametrize(
    ("path", "fragment"),
    [
        ("nowhere:Model", "No module named 'nowhere'"),
        ("sklearn.svm:Nothing", "no attribute 'Nothing'"),
        ("sklearn.svm:LinearSVC", "must be a class with fit and predict_proba, for binary"),
    ],
)
def test_estimator_that_is_none_is_refused(call_stage, prepared: Path, path: str, fragment: str) -> None:
    assert_refused(call_stage("train", prepared, "--trials", 3, "--estimator", path), fragment)


def test_threshold_of_costs_is_kept_with_the_model(call_stage, prepared: Path) -> None:
    flags = ["--trials", 2, "--folds", 3, "--cost-false-positive", 1, "--cost-false-negative", 50]
    done = call_stage("train", prepared, *flags)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((prepared / "models" / "saved_model.json").read_bytes())
    assert manifest["threshold"] < 0.5
    assert f"is the answer from a probability of {manifest['threshold']:.4f}" in done.stdout
    model = joblib.load(prepared / "models" / "saved_model.pkl")
    X = pd.DataFrame({"width": np.linspace(0, 10, 50), "color": ["red", "blue"] * 25})
    second = model.predict_proba(X)[:, 1] >= manifest["threshold"]
    assert list(model.predict(X)) == [str(label) for label in np.where(second, "low", "high")]
    assert_refused(call_stage("train", prepared, "--cost-false-positive", 1), "go together")


def test_limit_that_nothing_keeps_to_is_refused(call_stage, prepared: Path) -> None:
    done = call_stage("train", prepared, "--trials", 2, "--folds", 3, "--max-size-mb", 0.0001)
    assert_refused(done, "no candidate keeps to max_trees, max_latency_us and max_size_mb")


def test_model_has_as_many_trees_as_it_says_and_may(call_stage, prepared: Path) -> None:
    assert call_stage("train", prepared, "--trials", 4, "--folds", 3, "--max-trees", 40).returncode == 0
    (row,) = (row for row in read_train(prepared)["leaderboard"] if row["name"] == "boosting")
    assert row["n_trees"] == 40
    assert row["settings"]["learning_rate"] == pytest.approx(0.05 * 150 / 40)
    assert row["settings"]["min_samples_leaf"] == 5


@pytest.mark.parametrize(
    ("task", "flags", "fragment"),
    [
        ("regression", ["--threshold-metric", "f1"], "are for two classes, and this is a regression"),
        ("multiclass", ["--cost-false-positive", 1, "--cost-false-negative", 2], "are for two classes"),
        (
            "binary",
            ["--threshold-metric", "f1", "--cost-false-positive", 1, "--cost-false-negative", 2],
            "each set the threshold",
        ),
    ],
)
def test_threshold_that_has_no_use_is_refused(
    call_stage, tmp_path: Path, task: str, flags: list[object], fragment: str
) -> None:
    run_stages(tmp_path / "root", write_csv(tmp_path / "my.csv", build_columns(task)), "target", TRAINING[:2])
    assert_refused(call_stage("train", tmp_path / "root", "--trials", 1, *flags), fragment)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that was started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_first_interrupt_lets_the_last_fits_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), hold_interrupt():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert "Ctrl-C again gives it up" in capsys.readouterr().err
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_interrupted_search_is_not_up_to_date(call_stage, prepared: Path) -> None:
    flags = ["--trials", 2, "--folds", 3]
    assert call_stage("train", prepared, *flags).returncode == 0
    metrics = json.loads((prepared / "models" / "metrics.json").read_bytes())
    metrics["train"]["ended_by"] = "stopped by Ctrl-C"
    (prepared / "models" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    assert "up to date" not in call_stage("train", prepared, *flags, "--if-changed").stdout
    assert "up to date" in call_stage("train", prepared, *flags, "--if-changed").stdout


def test_worker_that_is_killed_leaves_what_is_finished() -> None:
    table, problem = make_table()

    def kill(done: Search) -> None:
        if len(done.trials) == 3:
            for process in list(workers._pool._processes.values()):  # as the system does it when memory is short
                os.kill(process.pid, signal.SIGKILL)

    with Workers(table, 2) as workers:
        done = search(problem, table, Plan(50, None, 1000), workers, kill)
        assert done.ended_by == "a worker process was ended by the system, likely for want of memory"
        assert len(done.trials) >= 3
        assert workers.fit_whole(done.trials[1].candidate, problem, 1).result() is not None


def test_category_of_many_levels_does_not_stop_the_search() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"category__c": np.arange(600) % 180.0, "number__a": rng.normal(size=600)})
    space = define_space(describe_problem("regression", X, pd.Series(rng.normal(size=600)), 0))
    assert space["max_bins"].choices == (255,)


def test_budget_ends_the_search(call_stage, prepared: Path) -> None:
    assert call_stage("train", prepared, "--budget", 0.5).returncode == 0
    assert 1 <= read_train(prepared)["trials"] < 12


def test_single_model_is_saved_when_asked_for(call_stage, prepared: Path) -> None:
    assert call_stage("train", prepared, "--trials", 5, "--folds", 3, "--final", "single").returncode == 0
    train = read_train(prepared)
    assert [member["weight"] for member in train["members"]] == [1.0]
    assert train["choices"][-1]["name"] == train["chosen"]


def test_monotone_column_never_lowers_the_answer(call_stage, tmp_path: Path) -> None:
    columns = build_columns("regression", 300)
    source = write_csv(tmp_path / "my.csv", columns)
    run_stages(tmp_path / "root", source, "target", ["load"])
    edit_schema(tmp_path / "root", "  width:\n", "  width:\n    monotone: increasing\n")
    flags = {"load": ["--source", source, "--target", "target"], "train": ["--trials", 4, "--folds", 3]}
    for stage in TRAINING:
        done = call_stage(stage, tmp_path / "root", *flags.get(stage, []))
        assert done.returncode == 0, done.stderr
    names = {row["name"] for row in read_train(tmp_path / "root")["leaderboard"]}
    assert "linear" not in names
    model = joblib.load(tmp_path / "root" / "models" / "saved_model.pkl")
    grid = pd.DataFrame({"width": np.linspace(-1, 12, 200), "color": "blue"})
    assert (np.diff(model.predict(grid)) >= 0).all()
    edit_schema(tmp_path / "root", "monotone: increasing", "monotone: decreasing")
    for stage in TRAINING:
        assert call_stage(stage, tmp_path / "root", *flags.get(stage, [])).returncode == 0
    assert (np.diff(joblib.load(tmp_path / "root" / "models" / "saved_model.pkl").predict(grid)) <= 0).all()


def test_fold_is_judged_on_rows_it_was_not_fitted_on() -> None:
    table, problem = make_table()
    result = fit_fold(table, Candidate("dummy", "dummy"), problem, 1, None)
    fit, check = table.folds[1]
    assert result.score == pytest.approx(np.sqrt(np.mean((table.y[check] - table.y[fit].mean()) ** 2)))


def test_rare_class_does_not_keep_boosting_from_stopping() -> None:
    """Of noise there is nothing to learn, whatever class a row is of; one class has six rows."""
    rng = np.random.default_rng(0)
    X, y = pd.DataFrame({"number__a": rng.normal(size=1_000)}), pd.Series(rng.integers(0, 2, 1_000))
    y[:6] = 2
    folds = build_folds(FoldRequest("multiclass", "hash"), y, np.arange(1_000), 5)
    table = FoldTable(X.to_numpy(), tuple(X.columns), y.to_numpy(), folds, [None] * 5, "log_loss")
    problem = describe_problem("multiclass", X, y, 0)
    result = fit_fold(table, list_known_good(problem)[1], problem, 0, None)
    assert 0 < result.iterations < 50
    assert result.score < 1
