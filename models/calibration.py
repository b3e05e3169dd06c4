"""What is made of a classifier's probabilities: calibrated where that helps, and a threshold for the answer."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.ensemble import calibrate_probabilities

MIN_ROWS = 500  # fewer rows calibrate worse than they should
MAX_CLASSES = 30
MIN_GAIN = 0.001  # relative: a smaller gain in log loss is not worth another step at every answer

ThresholdMetric = Literal["accuracy", "balanced_accuracy", "f1", "matthews_corrcoef"]
Calibration = tuple[float, tuple[float, ...]]
Floats = NDArray[np.float64]
Places = NDArray[np.intp]


def learn_calibration(y: Places, probabilities: Floats) -> Calibration:
    """Return slope and intercepts for `calibrate_probabilities` with the least log loss.

    Parameters
    ----------
    y : (n_rows,) the places of the true classes
    probabilities : (n_rows, n_classes) from models not fitted on these rows
    """
    n_classes = probabilities.shape[1]

    def loss(values: Floats) -> float:
        return mean_log_loss(y, calibrate_probabilities(probabilities, values[0], [0.0, *values[1:]]))

    found = minimize(
        loss,
        np.array([1.0, *[0.0] * (n_classes - 1)]),
        method="L-BFGS-B",
        bounds=[(0.05, 20), *[(-10, 10)] * (n_classes - 1)],
    )
    return float(found.x[0]), (0.0, *(float(v) for v in found.x[1:]))


def choose_calibration(y: Places, probabilities: Floats, folds: NDArray[np.int64]) -> Calibration | None:
    """Return a calibration when it lowers the log loss of rows it has not seen, else None.

    Parameters
    ----------
    y, probabilities : see `learn_calibration`
    folds : (n_rows,) which rows are judged together by what is learnt from the others
    """
    numbers = np.unique(folds)
    if len(y) < MIN_ROWS or not 2 <= probabilities.shape[1] <= MAX_CLASSES:
        return None
    if len(numbers) < 2:  # one fold: judge its halves by each other
        folds, numbers = np.arange(len(y)) % 2, np.arange(2)
    calibrated = np.empty_like(probabilities)
    for number in numbers:
        here = folds == number
        calibrated[here] = calibrate_probabilities(
            probabilities[here], *learn_calibration(y[~here], probabilities[~here])
        )
    if mean_log_loss(y, calibrated) >= (1 - MIN_GAIN) * mean_log_loss(y, probabilities):
        return None
    return learn_calibration(y, probabilities)


def mean_log_loss(y: Places, probabilities: Floats) -> float:
    """Return the mean of -log of the probability given to the true class (Bishop, 2006, equation 4.108)."""
    return float(-np.log(np.clip(probabilities[np.arange(len(y)), y], np.finfo(np.float64).eps, 1)).mean())


def tune_threshold(
    y: Places, positive: Floats, metric: ThresholdMetric | None, costs: Mapping[str, float] | None
) -> float | None:
    """Return the threshold that is best for out-of-fold rows, None where nobody asks for one.

    Parameters
    ----------
    y : (n_rows,) 1 for the second class
    positive : (n_rows,) its probability
    metric : what is to be as high as can be
    costs : what a `false_positive` and a `false_negative` cost; wins over the metric
    """
    if metric is None and costs is None:
        return None
    bars, hits, finds = _count_answers(y, positive)
    scores = _judge_counts(hits, finds, int(y.sum()), len(y), metric, costs)
    return float(bars[int(np.argmax(scores))])


def _count_answers(y: Places, positive: Floats) -> tuple[Floats, Floats, Floats]:
    """Return every threshold that makes a difference, from "never" down to "always", and what each comes to.

    Returns
    -------
    bars : (n_bars,) thresholds, halfway between the probabilities beside them
    hits : (n_bars,) rows rightly answered with the second class
    finds : (n_bars,) rows answered with it
    """
    values, places = np.unique(-positive, return_inverse=True)
    finds = np.cumsum(np.bincount(places, minlength=len(values)))
    hits = np.cumsum(np.bincount(places, weights=y, minlength=len(values)))
    above = -values
    bars = np.concatenate([[np.nextafter(1.0, 2.0)], (above[:-1] + above[1:]) / 2, [0.0]])
    return bars, np.concatenate([[0.0], hits]), np.concatenate([[0.0], finds])


def _judge_counts(
    hits: Floats,
    finds: Floats,
    n_positive: int,
    n_rows: int,
    metric: ThresholdMetric | None,
    costs: Mapping[str, float] | None,
) -> Floats:
    """Return what is to be as high as can be, (n_bars,), as scikit-learn defines it; undefined counts as 0."""
    false_positives, false_negatives = finds - hits, n_positive - hits
    if costs is not None:
        return np.asarray(-costs["false_positive"] * false_positives - costs["false_negative"] * false_negatives)
    n_negative = n_rows - n_positive
    true_negatives = n_negative - false_positives
    if metric == "accuracy":
        return np.asarray((hits + true_negatives) / n_rows)
    if metric == "balanced_accuracy":
        return np.asarray((hits / max(n_positive, 1) + true_negatives / max(n_negative, 1)) / 2)
    if metric == "f1":
        return np.asarray(2 * hits / np.maximum(finds + n_positive, 1))
    spread: Floats = np.sqrt(finds * (n_rows - finds)) * np.sqrt(float(n_positive) * n_negative)
    return np.asarray((hits * true_negatives - false_positives * false_negatives) / np.maximum(spread, 1))


def list_folds(checks: Sequence[NDArray[np.int64]], n_rows: int) -> NDArray[np.int64]:
    """Return (n_rows,) the fold in which each row was judged, -1 where in none."""
    folds = np.full(n_rows, -1)
    for number, check in enumerate(checks):
        folds[check] = number
    return folds
