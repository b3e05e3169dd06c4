"""What is made of a classifier's probabilities: calibrated where that helps, and a threshold for the answer."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn import metrics as sk

from models.ensemble import calibrate_probabilities

MIN_ROWS = 500  # fewer rows calibrate worse than they should
MAX_CLASSES = 30
MIN_GAIN = 0.001  # relative: a smaller gain in log loss is not worth another step at every answer

ThresholdMetric = Literal["accuracy", "balanced_accuracy", "f1", "matthews_corrcoef"]
_METRICS = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "f1": sk.f1_score,
    "matthews_corrcoef": sk.matthews_corrcoef,
}

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
    candidates = np.unique(np.quantile(positive, np.linspace(0, 1, 201), method="inverted_cdf"))
    between = np.concatenate([[max(candidates[0] - 1e-9, 0.0)], (candidates[1:] + candidates[:-1]) / 2])
    scores = [_judge(y, positive >= threshold, metric, costs) for threshold in between]
    return float(between[int(np.argmax(scores))])


def _judge(
    y: Places, answers: NDArray[np.bool_], metric: ThresholdMetric | None, costs: Mapping[str, float] | None
) -> float:
    if costs is not None:
        false_positives = np.count_nonzero(answers & (y == 0))
        false_negatives = np.count_nonzero(~answers & (y == 1))
        return -(costs["false_positive"] * false_positives + costs["false_negative"] * false_negatives)
    assert metric is not None
    return float(_METRICS[metric](y, answers))


def list_folds(checks: Sequence[NDArray[np.int64]], n_rows: int) -> NDArray[np.int64]:
    """Return (n_rows,) the fold in which each row was judged, -1 where in none."""
    folds = np.full(n_rows, -1)
    for number, check in enumerate(checks):
        folds[check] = number
    return folds
