"""The parts of a model beside scikit-learn's: pairs, boosting on a line, weighted answers, calibration, intervals."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, matthews_corrcoef

from models.boosting import BoostedRegressor, count_trees, fit_watched
from models.calibration import choose_calibration, learn_calibration, tune_threshold
from models.ensemble import WeightedClassifier, WeightedRegressor, calibrate_probabilities, choose_places
from models.pairs import PairFeatures
from models.uncertainty import learn_intervals, learn_sets


def make_line(n_rows: int = 400, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"a": rng.normal(0, 3, n_rows), "b": rng.uniform(-1, 5, n_rows)})
    return X, 2 * X["a"] - X["b"] + rng.normal(0, 0.1, n_rows)


# Pairs


def test_pairs_are_worked_out_by_hand() -> None:
    X = pd.DataFrame({"a": [1.0, 3.0], "b": [4.0, 0.0], "c": [7.0, 7.0]})
    pairs = PairFeatures(["a", "b"], ["-", "~", "+", "/", "*"]).fit(X)
    made = pairs.transform(X)
    assert list(made.columns) == list(pairs.get_feature_names_out())
    assert made[["a", "b", "c"]].equals(X)
    # standard deviations: 1 and 2
    assert made["pair__a - b"].tolist() == [-3, 3]
    assert made["pair__a ~ b"].tolist() == [1 - 2, 3 - 0]
    assert made["pair__a + b"].tolist() == [1 + 2, 3 + 0]
    assert made["pair__a / b"].tolist() == [0.25, 0]
    assert made["pair__a * b"].tolist() == [2, 0]


def test_switch_gives_each_of_its_two_levels_a_slope_of_its_own() -> None:
    X = pd.DataFrame({"a": [1.0, 3.0, 3.0, 1.0], "b": [4.0, 0.0, 0.0, 4.0], "s": [1.0, 0.0, -2.0, 2.0]})
    pairs = PairFeatures(["a", "b"], ["*", "?"], ["s"]).fit(X)  # standard deviations: 1 and 2
    made = pairs.transform(X)
    assert list(made.columns) == list(pairs.get_feature_names_out())
    assert list(made.columns[3:]) == ["pair__a * b", "pair__a ? s", "pair__b ? s"]
    assert made["pair__a ? s"].tolist() == [1, -3, 0, 0]
    assert made["pair__b ? s"].tolist() == [2, 0, 0, 0]


def test_pairs_that_were_saved_before_there_were_switches_still_answer() -> None:
    X = pd.DataFrame({"a": [1.0, 3.0], "b": [4.0, 0.0]})
    pairs = PairFeatures(["a", "b"], ["-"]).fit(X)
    del pairs.__dict__["switches"]
    assert pairs.transform(X)["pair__a - b"].tolist() == [-3, 3]
    assert clone(pairs).get_params() == {"columns": ["a", "b"], "signs": ["-"], "switches": ()}


def test_column_that_does_not_vary_is_paired_as_it_is() -> None:
    X = pd.DataFrame({"a": [5.0, 5.0], "b": [1.0, 3.0]})
    assert PairFeatures(["a", "b"], ["~"]).fit(X).transform(X)["pair__a ~ b"].tolist() == [4, 2]


@settings(deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=4, max_size=4))
def test_pairs_of_any_numbers_are_finite(values: list[float]) -> None:
    X = pd.DataFrame({"a": values[:2], "b": values[2:]})
    assert np.isfinite(PairFeatures(["a", "b"], ["-", "/"]).fit(X).transform(X).to_numpy()).all()


# Boosting


def test_boosting_on_a_line_answers_beyond_what_it_has_seen() -> None:
    X, y = make_line()
    boosting = HistGradientBoostingRegressor(max_iter=20, random_state=0)
    far = pd.DataFrame({"a": [30.0], "b": [0.0]})
    on_line = BoostedRegressor(boosting, LinearRegression()).fit(X, y)
    assert on_line.predict(far) == pytest.approx([60], abs=1)
    assert boosting.fit(X, y).predict(far) < 25
    rest = y - LinearRegression().fit(X, y).predict(X)
    expected = LinearRegression().fit(X, y).predict(X) + boosting.fit(X, rest).predict(X)
    assert on_line.predict(X) == pytest.approx(expected)
    assert count_trees(on_line) == 20


def test_boosting_on_a_log_scale_learns_the_logarithm() -> None:
    X, y = make_line()
    positive = np.exp(y / 4)
    boosting = HistGradientBoostingRegressor(max_iter=20, random_state=0)
    expected = np.expm1(boosting.fit(X, np.log1p(positive)).predict(X))
    assert BoostedRegressor(boosting, log_target=True).fit(X, positive).predict(X) == pytest.approx(expected)


def test_watched_rows_stop_boosting() -> None:
    X, y = make_line()
    noise = pd.Series(np.random.default_rng(1).normal(size=len(y)))
    boosting = HistGradientBoostingRegressor(max_iter=500, early_stopping=True, n_iter_no_change=5, random_state=0)
    for estimator in (boosting, BoostedRegressor(boosting, LinearRegression())):
        fitted = fit_watched(estimator, X[:300], noise[:300], X[300:], noise[300:])
        assert count_trees(fitted) < 50


# Weighted answers


def test_weighted_regressor_answers_the_weighted_mean() -> None:
    X, y = make_line()
    members = [LinearRegression().fit(X, y), HistGradientBoostingRegressor(max_iter=5).fit(X, y)]
    model = pickle.loads(pickle.dumps(WeightedRegressor(members, [0.25, 0.75])))
    assert model.predict(X) == pytest.approx(np.average([m.predict(X) for m in members], axis=0, weights=[0.25, 0.75]))
    assert count_trees(model) == 5


def test_class_that_a_member_never_saw_has_probability_zero_there() -> None:
    X = pd.DataFrame({"a": [0.0, 1, 2, 3, 4, 5]})
    y = np.array(["u", "u", "v", "v", "w", "w"])
    members = [LogisticRegression().fit(X, y), LogisticRegression().fit(X[:4], y[:4])]
    model = WeightedClassifier(members, [0.5, 0.5], ["u", "v", "w"])
    found = model.predict_proba(X)
    assert found[:, 2] == pytest.approx(members[0].predict_proba(X)[:, 2] / 2)
    assert found.sum(axis=1) == pytest.approx(1)
    assert set(model.predict(X)) <= {"u", "v", "w"}


def test_threshold_decides_between_two_classes() -> None:
    X = pd.DataFrame({"a": [-3.0, -1, 1, 3]})
    member = LogisticRegression().fit(X, ["no", "no", "yes", "yes"])
    probabilities = member.predict_proba(X)[:, 1]
    bar = (probabilities[0] + probabilities[1]) / 2
    assert list(WeightedClassifier([member], [1.0], ["no", "yes"], bar).predict(X)) == ["no", "yes", "yes", "yes"]
    assert choose_places(np.array([[0.4, 0.6], [0.3, 0.7]]), 0.7).tolist() == [0, 1]


# Calibration


@given(st.floats(0.1, 5), st.floats(-3, 3), st.lists(st.floats(0.001, 0.999), min_size=1, max_size=5))
def test_calibration_of_two_classes_is_platt_scaling(slope: float, bias: float, positive: list[float]) -> None:
    p = np.array(positive)
    found = calibrate_probabilities(np.column_stack([1 - p, p]), slope, [0.0, bias])
    assert found[:, 1] == pytest.approx(expit(slope * logit(p) + bias))


def make_labels(slope: float, n_rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn with true log-odds z, and probabilities that say slope * z."""
    rng = np.random.default_rng(3)
    z = rng.normal(0, 1.5, n_rows)
    p = expit(slope * z)
    return (rng.random(n_rows) < expit(z)).astype(np.intp), np.column_stack([1 - p, p])


def test_overconfident_probabilities_are_calibrated() -> None:
    y, probabilities = make_labels(slope=3)
    slope, (_, bias) = learn_calibration(y, probabilities)
    assert slope == pytest.approx(1 / 3, abs=0.03)
    assert bias == pytest.approx(0, abs=0.15)
    found = choose_calibration(y, probabilities, np.arange(len(y)) % 5)
    assert found is not None
    assert log_loss(y, calibrate_probabilities(probabilities, *found)) < log_loss(y, probabilities) - 0.05


def test_honest_probabilities_are_left_alone() -> None:
    y, probabilities = make_labels(slope=1)
    assert choose_calibration(y, probabilities, np.arange(len(y)) % 5) is None


# The threshold


def test_threshold_of_least_cost_is_the_ratio_of_costs_for_calibrated_probabilities() -> None:
    """Elkan (IJCAI 2001), equation 2: fp / (fp + fn)."""
    y, probabilities = make_labels(slope=1, n_rows=20_000)
    found = tune_threshold(y, probabilities[:, 1], None, {"false_positive": 1, "false_negative": 4})
    assert found == pytest.approx(0.2, abs=0.06)


def test_threshold_may_say_never() -> None:
    y = np.array([0] * 99 + [1])
    found = tune_threshold(y, np.full(100, 0.01), None, {"false_positive": 1000, "false_negative": 1})
    assert found > 1
    assert tune_threshold(y, np.full(100, 0.01), None, {"false_positive": 0, "false_negative": 1}) <= 0.01


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=4, max_size=30),
    st.sampled_from(["accuracy", "balanced_accuracy", "f1", "matthews_corrcoef"]),
)
def test_no_other_threshold_is_better(rows: list[tuple[bool, int]], metric: str) -> None:
    y, positive = np.array([label for label, _ in rows], dtype=int), np.array([value / 8 for _, value in rows])
    if y.min() == y.max():
        return
    score = {
        "accuracy": accuracy_score,
        "balanced_accuracy": balanced_accuracy_score,
        "f1": f1_score,
        "matthews_corrcoef": matthews_corrcoef,
    }[metric]
    found = score(y, positive >= tune_threshold(y, positive, metric, None))
    assert found == pytest.approx(max(score(y, positive >= bar / 16) for bar in range(18)))


def test_threshold_tuned_for_f1_beats_one_half() -> None:
    y, probabilities = make_labels(slope=1)
    rare = y & (np.arange(len(y)) % 4 == 0)
    found = tune_threshold(rare, probabilities[:, 1], "f1", None)
    assert f1_score(rare, probabilities[:, 1] >= found) > f1_score(rare, probabilities[:, 1] >= 0.5)
    assert tune_threshold(y, probabilities[:, 1], None, None) is None


# Intervals and sets


def test_intervals_of_few_rows_are_ranks_of_errors() -> None:
    errors = np.arange(1, 100) - 50.0  # 99 rows: tails of a tenth begin at the 10th
    y_pred = np.full(99, 7.0)
    found = learn_intervals(y_pred + errors, y_pred, 0.8)
    assert found.bounds([7.0, 9.0]).tolist() == [[7 - 40, 7 + 40], [9 - 40, 9 + 40]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.6, 0.8, 0.9]))
def test_intervals_hold_as_many_new_rows_as_they_say(seed: int, confidence: float) -> None:
    rng = np.random.default_rng(seed)

    def draw(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        y_pred = rng.exponential(10, n_rows)
        return y_pred + rng.gamma(1.0, 1 + y_pred), y_pred  # errors are lopsided and grow with the value

    intervals = learn_intervals(*draw(4000), confidence)
    y, y_pred = draw(20_000)
    low, high = intervals.bounds(y_pred).T
    inside = (low <= y) & (y <= high)
    assert inside.mean() == pytest.approx(confidence, abs=0.03)
    widths = high - low
    assert widths[y_pred > 20].mean() > 2 * widths[y_pred < 2].mean()


def test_sets_hold_as_many_new_rows_as_they_say() -> None:
    rng = np.random.default_rng(0)

    def draw(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        given = rng.dirichlet([0.6, 0.6, 0.6], n_rows)
        return np.array([rng.choice(3, p=p) for p in given]), given

    sets = learn_sets(*draw(4000), 0.9)
    y, given = draw(4000)
    inside = sets.contains(given)
    assert inside[np.arange(4000), y].mean() == pytest.approx(0.9, abs=0.02)
    assert 1 < inside.sum(axis=1).mean() < 2.5


def test_set_is_never_empty() -> None:
    sets = learn_sets([0, 0], [[1.0, 0.0], [0.9, 0.1]], 0.6)
    assert sets.contains([[0.5, 0.3, 0.2]]).tolist() == [[True, False, False]]
