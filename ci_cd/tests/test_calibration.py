"""Calibration, coverage and thresholds, against hand calculation, scipy and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from evaluation.calibration import cut_bins, find_share_interval, measure_calibration, measure_coverage, score_brier
from evaluation.thresholds import tabulate_thresholds
from models.uncertainty import Intervals, PredictionSets

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("hits", "rows"), [(0, 7), (3, 7), (7, 7), (120, 1_000)])
def test_interval_of_a_share_is_wilsons(hits: int, rows: int) -> None:
    expected = stats.binomtest(hits, rows).proportion_ci(0.9, method="wilson")
    assert find_share_interval(hits, rows, 0.9) == pytest.approx([expected.low, expected.high], abs=1e-12)


def test_bins_hold_equally_many_rows_and_equal_values_share_one() -> None:
    assert np.bincount(cut_bins(RNG.random(100))).tolist() == [10] * 10
    assert cut_bins(np.array([0.5] * 20)).tolist() == [0] * 20
    assert np.bincount(cut_bins(np.array([0.1] * 55 + [0.9] * 45))).tolist() == [55, 45]


def test_calibration_of_two_classes_by_hand() -> None:
    """Twenty rows at 0.2 of which 5 are positive, twenty at 0.8 of which 14 are."""
    positive = np.repeat([0.2, 0.8], 20)
    y = np.array([1] * 5 + [0] * 15 + [1] * 14 + [0] * 6)
    found = measure_calibration("binary", y, np.column_stack([1 - positive, positive]), 0.95)
    low, high = found["bins"]
    assert (low["low"], low["high"], low["rows"]) == (0.2, 0.2, 20)
    assert (low["mean_predicted"], low["share_observed"]) == pytest.approx((0.2, 0.25))
    assert (high["mean_predicted"], high["share_observed"]) == pytest.approx((0.8, 0.7))
    assert found["expected_calibration_error"] == pytest.approx((0.05 + 0.1) / 2)
    assert found["brier_score"] == pytest.approx(sk.brier_score_loss(y, positive))


def test_calibration_of_several_classes_looks_at_the_likeliest() -> None:
    y_pred = np.array([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.7, 0.1, 0.2], [0.2, 0.1, 0.7]])
    found = measure_calibration("multiclass", np.array([0, 1, 2, 2]), y_pred, 0.95)
    (only,) = found["bins"]
    assert (only["rows"], only["mean_predicted"], only["share_observed"]) == (4, pytest.approx(0.7), 0.75)
    assert found["brier_score"] == pytest.approx(np.mean([0.14, 0.14, 0.49 + 0.01 + 0.64, 0.14]))


def test_brier_score_of_two_classes_counts_the_second() -> None:
    assert score_brier("binary", np.array([1, 0]), np.array([[0.2, 0.8], [0.6, 0.4]])) == pytest.approx(0.1)


def test_calibration_of_a_regression_compares_means() -> None:
    y_pred = np.arange(40.0)
    y = y_pred + np.tile([1.0, 3.0], 20)
    bins = measure_calibration("regression", y, y_pred, 0.95)["bins"]
    assert [found["rows"] for found in bins] == [4] * 10
    assert [found["mean_observed"] - found["mean_predicted"] for found in bins] == pytest.approx([2.0] * 10)
    expected = stats.t.interval(0.95, 3, y[:4].mean(), stats.sem(y[:4]))
    assert bins[0]["interval"] == pytest.approx(expected)


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_calibration_of_one_row_has_no_more_to_say(task: str) -> None:
    y_pred = np.array([3.0]) if task == "regression" else np.array([[0.4, 0.6]])
    (only,) = measure_calibration(task, np.array([1]), y_pred, 0.95)["bins"]
    assert only["rows"] == 1


# Coverage


def test_coverage_of_intervals_by_hand() -> None:
    """Below 10 an interval of -1 to 1, from there on of -5 to 5."""
    intervals = Intervals(confidence=0.9, edges=[10.0], low=[-1.0, -5.0], high=[1.0, 5.0])
    found = measure_coverage(intervals, np.array([1.0, 4.0, 14.0, 20.0]), np.array([1.5, 6.0, 10.0, 16.0]), 0.95)
    assert (found["confidence"], found["covered"], found["mean_width"]) == (0.9, 3 / 4, 6.0)
    assert found["interval"] == find_share_interval(3, 4, 0.95)


def test_coverage_of_prediction_sets_by_hand() -> None:
    sets = PredictionSets(confidence=0.8, min_probability=0.3)
    probabilities = np.array([[0.5, 0.4, 0.1], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6], [0.4, 0.3, 0.3]])
    found = measure_coverage(sets, np.array([1, 1, 2, 2]), probabilities, 0.95)
    assert (found["covered"], found["mean_size"]) == (3 / 4, (2 + 1 + 1 + 3) / 4)


def test_class_that_the_model_does_not_know_is_in_no_set() -> None:
    sets = PredictionSets(confidence=0.8, min_probability=0.0)
    assert measure_coverage(sets, np.array([0, 2]), np.array([[0.5, 0.5], [0.5, 0.5]]), 0.95)["covered"] == 0.5


def test_model_without_intervals_has_no_coverage() -> None:
    assert measure_coverage(None, np.array([1.0]), np.array([1.0]), 0.95) is None


# Thresholds


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, 0.5, 0.123]))
def test_thresholds_equal_scikit_learns(seed: int, own: float | None) -> None:
    rng = np.random.default_rng(seed)
    y = np.concatenate([[0, 1], rng.integers(0, 2, 40)])
    p = rng.random(42)
    rows = tabulate_thresholds(y == 1, p, own)
    assert len(rows) == (20 if own == 0.123 else 19)
    assert [row["threshold"] for row in rows if row["chosen"]] == [own or 0.5]
    for row in rows:
        answers = p >= row["threshold"]
        assert row["answered_positive_share"] == answers.mean()
        assert row["recall"] == pytest.approx(sk.recall_score(y, answers))
        assert row["f1"] == pytest.approx(sk.f1_score(y, answers, zero_division=0.0))
        if answers.any():
            assert row["precision"] == pytest.approx(sk.precision_score(y, answers))
        (_, false_positives), (false_negatives, _) = sk.confusion_matrix(y, answers)
        assert (row["false_positives"], row["false_negatives"]) == (false_positives, false_negatives)


def test_precision_is_undefined_where_nothing_is_answered() -> None:
    rows = tabulate_thresholds(np.array([True, False]), np.array([0.2, 0.1]), None)
    assert rows[-1]["precision"] is None
    assert rows[-1]["false_negatives"] == 1
