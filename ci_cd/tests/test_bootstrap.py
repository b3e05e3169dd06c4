"""The bootstrap: figures of weighted rows against scikit-learn's, and intervals that are as wide as they should be."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from evaluation import bootstrap
from evaluation.bootstrap import draw_counts, draw_scores, find_interval, find_intervals
from evaluation.metrics import build_scorer


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 60), st.sampled_from([1, 2, 8]))
def test_weighted_ranks_of_two_classes_equal_scikit_learns(seed: int, n_rows: int, digits: int) -> None:
    """Also where many rows share a score, which one digit makes sure of."""
    rng = np.random.default_rng(seed)
    y_true = np.concatenate([[0, 1], rng.integers(0, 2, n_rows)])
    positive = np.round(rng.random(len(y_true)), digits)
    weights = rng.integers(0, 4, (3, len(y_true))).astype(float)
    weights[:, :2] += 1  # both classes are there
    draws = build_scorer("binary", y_true, np.column_stack([1 - positive, positive]))(weights)
    for place, weight in enumerate(weights):
        expected = sk.roc_auc_score(y_true, positive, sample_weight=weight)
        assert draws["roc_auc"][place] == pytest.approx(expected, abs=1e-12)
        expected = sk.average_precision_score(y_true, positive, sample_weight=weight)
        assert draws["average_precision"][place] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3, 5]))
def test_weighted_figures_of_classes_equal_those_of_repeated_rows(seed: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    y_true = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 30)])
    y_pred = rng.dirichlet(np.ones(n_classes), len(y_true))
    answers = rng.integers(0, n_classes, len(y_true))  # not the likeliest ones
    counts = rng.integers(0, 3, len(y_true))
    counts[:n_classes] += 1
    task, average = ("binary", "binary") if n_classes == 2 else ("multiclass", "macro")
    draws = build_scorer(task, y_true, y_pred, answers)(counts[np.newaxis].astype(float))
    y, given_, p = (np.repeat(values, counts, axis=0) for values in (y_true, answers, y_pred))
    expected = {
        "accuracy": sk.accuracy_score(y, given_),
        "balanced_accuracy": np.mean([np.mean(given_[y == c] == c) for c in range(n_classes)]),
        "f1": sk.f1_score(y, given_, average=average, zero_division=0.0),
        "roc_auc": np.mean([sk.roc_auc_score(y == c, p[:, c]) for c in range(n_classes)]),
        "log_loss": sk.log_loss(y, p),
    }
    assert {name: draws[name][0] for name in expected} == pytest.approx(expected)


def test_weighted_errors_equal_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    y_true = 1e6 + rng.normal(size=50)
    y_pred = y_true + rng.normal(size=50)
    counts = rng.integers(0, 4, (5, 50)).astype(float)
    draws = build_scorer("regression", y_true, y_pred)(counts)
    for place, weight in enumerate(counts):
        mse = sk.mean_squared_error(y_true, y_pred, sample_weight=weight)
        expected = [mse, math.sqrt(mse), sk.mean_absolute_error(y_true, y_pred, sample_weight=weight)]
        assert [draws[name][place] for name in ("mse", "rmse", "mae")] == pytest.approx(expected)
        assert draws["r2"][place] == pytest.approx(sk.r2_score(y_true, y_pred, sample_weight=weight))


def test_figure_that_a_resample_leaves_undefined_is_nan_and_left_out() -> None:
    y_true, y_pred = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    draws = build_scorer("binary", y_true, y_pred)(np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0]]))
    assert np.isnan(draws["roc_auc"][0])
    assert draws["roc_auc"][1] == 1.0
    assert find_interval(draws["roc_auc"], 0.95, 3) == [1.0, 1.0]
    assert find_interval(np.array([np.nan, np.nan]), 0.95, 3) is None
    constant = build_scorer("regression", np.full(3, 0.1), np.zeros(3))(np.ones((1, 3)))
    assert np.isnan(constant["r2"][0])


@pytest.mark.parametrize("n_rows", [1, 7, 1_000])
def test_every_resample_has_as_many_rows(n_rows: int) -> None:
    counts = np.vstack(list(draw_counts(n_rows, 250, seed=0)))
    assert counts.shape == (250, n_rows)
    assert (counts.sum(axis=1) == n_rows).all()
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.4)


def test_no_more_resamples_are_held_at_a_time_than_fit() -> None:
    first = next(draw_counts(1_000, 10_000, seed=0))
    assert first.size <= bootstrap.CELLS
    assert len(next(draw_counts(10 * bootstrap.CELLS, 2, seed=0))) == 1


def test_models_share_their_resamples() -> None:
    """The same answers give the same draws, so that the difference of two models is paired."""
    rng = np.random.default_rng(1)
    y, z = rng.normal(size=(2, 300))
    draws = draw_scores({"a": build_scorer("regression", y, z), "b": build_scorer("regression", y, z + 0)}, 300, 999, 4)
    assert len(draws["a"]["mae"]) == 999
    assert (draws["a"]["mae"] == draws["b"]["mae"]).all()


# Intervals


def intervals(n_rows: int, confidence: float = 0.95, seed: int = 0) -> dict[str, list[float]]:
    rng = np.random.default_rng(5)
    y_true = rng.normal(size=n_rows)
    scorer = build_scorer("regression", y_true, y_true + rng.normal(size=n_rows))
    return find_intervals(draw_scores({"": scorer}, n_rows, 500, seed)[""], confidence, n_rows)


def width(bounds: Sequence[float]) -> float:
    return bounds[1] - bounds[0]


def test_intervals_narrow_as_the_square_root_of_the_rows() -> None:
    narrowing = width(intervals(50)["mae"]) / width(intervals(5000)["mae"])
    assert 6 < narrowing < 16, "a hundred times the rows, a tenth of the width"


def test_interval_of_a_mean_is_that_of_the_central_limit_theorem() -> None:
    """The mean absolute error is a mean of |N(0, 1)|, whose variance is 1 - 2/pi."""
    expected = 2 * 1.96 * math.sqrt((1 - 2 / math.pi) / 2000)
    assert width(intervals(2000)["mae"]) == pytest.approx(expected, rel=0.15)


def test_intervals_widen_with_confidence_and_depend_on_the_seed_alone() -> None:
    assert width(intervals(200, 0.99)["mae"]) > width(intervals(200, 0.8)["mae"])
    assert intervals(200) == intervals(200)
    assert intervals(200) != intervals(200, seed=1)


def test_intervals_of_few_rows_are_as_wide_as_students() -> None:
    """Plain percentiles of 10 rows would be a fifth too narrow."""
    rng = np.random.default_rng(0)
    n_rows, ratios = 10, []
    for seed in range(40):
        errors = rng.normal(size=n_rows) + 10  # all positive: the mean absolute error is their mean
        scorer = build_scorer("regression", errors, np.zeros(n_rows))
        bounds = find_interval(draw_scores({"": scorer}, n_rows, 1_000, seed)[""]["mae"], 0.95, n_rows)
        student = 2 * stats.t.ppf(0.975, n_rows - 1) * stats.sem(errors)
        ratios.append(width(bounds) / student)
    assert np.mean(ratios) == pytest.approx(1, abs=0.06)
