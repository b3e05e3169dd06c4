"""The figures by which a model is judged, each with an interval that says how far chance could move it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import config_context
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier, DummyRegressor

from data_ingestion.schema import Task
from models.artifact import Predictions

Scores = dict[str, float | None]  # None where the rows leave a figure undefined, as ROC AUC with one class

REGRESSION = ("mse", "mae", "rmse", "r2")
CLASSIFICATION = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "average_precision", "log_loss")
TITLES = {
    "mse": "MSE",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
}


def compute_scores(task: Task, y_true: NDArray[np.generic], y_pred: NDArray[np.generic]) -> Scores:
    """Return every figure of the task.

    Parameters
    ----------
    task : regression, binary or multiclass
    y_true : (n_rows,) numbers, or positions among the classes
    y_pred : (n_rows,) numbers, or (n_rows, n_classes) probabilities; the likeliest class is the answer

    Returns
    -------
    For several classes F1 and average precision are means over the classes and ROC AUC is one-against-the-rest, as
    scikit-learn's `average="macro"`. For two, the second class is the positive one.
    """
    if task == "regression":
        mse = float(sk.mean_squared_error(y_true, y_pred))
        r2 = float(sk.r2_score(y_true, y_pred)) if len(y_true) > 1 else None
        return {"mse": mse, "mae": float(sk.mean_absolute_error(y_true, y_pred)), "rmse": mse**0.5, "r2": r2}
    n_classes = y_pred.shape[1]
    confusion = count_confusions(y_true, y_pred.argmax(axis=1), n_classes)
    return {
        **_count_scores(task, confusion),
        **_rank_scores(task, y_true, y_pred, np.arange(n_classes)),
        "log_loss": mean_log_loss(y_true, y_pred),
    }


def count_confusions(y_true: NDArray[np.generic], answers: NDArray[np.intp], n_classes: int) -> NDArray[np.intp]:
    """Return (n_classes, n_classes) counts, true classes down and answers across."""
    cells = y_true.astype(np.intp) * n_classes + answers
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _count_scores(task: Task, confusion: NDArray[np.intp]) -> Scores:
    """Return the figures that follow from the counts alone, as scikit-learn defines them.

    Written out because the bootstrap asks for them a thousand times, and scikit-learn's checks of the same arrays
    take most of that time. Tests hold them equal to scikit-learn's.
    """
    hits, true, answered = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall = hits[true > 0] / true[true > 0]
    f1 = 2 * hits / np.maximum(true + answered, 1)
    return {
        "accuracy": float(hits.sum() / confusion.sum()),
        "balanced_accuracy": float(recall.mean()),
        "f1": float(f1[1] if task == "binary" else f1.mean()),
    }


def mean_log_loss(y_true: NDArray[np.generic], probabilities: NDArray[np.generic]) -> float:
    """Return the mean of -log of the probability given to the true class (Bishop, 2006, equation 4.108)."""
    given = probabilities[np.arange(len(y_true)), y_true.astype(np.intp)].astype(np.float64)
    return float(-np.log(np.clip(given, np.finfo(np.float64).eps, 1)).mean())


def _rank_scores(
    task: Task, y_true: NDArray[np.generic], y_pred: NDArray[np.generic], labels: NDArray[np.intp]
) -> Scores:
    """Return ROC AUC and average precision, None where a class has no row or all rows."""
    if len(np.unique(y_true)) < len(labels):
        return {"roc_auc": None, "average_precision": None}
    if task == "binary":
        positive = y_pred[:, 1]
        return {
            "roc_auc": float(sk.roc_auc_score(y_true, positive)),
            "average_precision": float(sk.average_precision_score(y_true, positive)),
        }
    return {
        "roc_auc": float(sk.roc_auc_score(y_true, y_pred, multi_class="ovr", labels=labels)),
        "average_precision": float(sk.average_precision_score(np.eye(len(labels))[y_true.astype(int)], y_pred)),
    }


def bootstrap_intervals(
    task: Task,
    y_true: NDArray[np.generic],
    y_pred: NDArray[np.generic],
    resamples: int,
    confidence: float,
    seed: int,
    report: Callable[[int], object],
) -> dict[str, list[float] | None]:
    """Return [low, high] per figure: percentiles over resampled rows (Efron and Tibshirani, 1993, chapter 13).

    Parameters
    ----------
    task, y_true, y_pred : see `compute_scores`
    resamples : how many times the rows are drawn again, with replacement
    confidence : the share of resamples between low and high
    seed : decides the draws
    report : called with the number of finished resamples
    """
    rng = np.random.default_rng(seed)
    draws = []
    with config_context(assume_finite=True, skip_parameter_validation=True):  # checked by the first compute_scores
        for done in range(resamples):
            report(done)
            rows = rng.integers(0, len(y_true), len(y_true))
            draws.append(compute_scores(task, y_true[rows], y_pred[rows]))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals: dict[str, list[float] | None] = {}
    for name in draws[0]:
        values = [draw[name] for draw in draws if draw[name] is not None]
        intervals[name] = [float(q) for q in np.quantile(np.array(values), tails)] if values else None
    return intervals


def predict_dummy(task: Task, y_train: pd.Series, n_rows: int) -> Predictions:
    """Return the answers of a model that ignores its input: the mean, or the class shares of the train rows."""
    nothing = np.zeros((len(y_train), 1))
    if task == "regression":
        dummy = DummyRegressor(strategy="mean").fit(nothing, y_train)
        return Predictions([float(value) for value in dummy.predict(np.zeros((n_rows, 1)))])
    dummy = DummyClassifier(strategy="prior").fit(nothing, y_train)
    probabilities = dummy.predict_proba(np.zeros((n_rows, 1)))
    return Predictions([dummy.classes_[0]] * n_rows, probabilities)


def to_arrays(
    y_true: pd.Series, predictions: Predictions, classes: Sequence[int | str] | None
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return target and answers as `compute_scores` takes them.

    A class that the train rows do not hold gets a column of its own, with probability zero in every row: answers for
    it are wrong, and counted as such.
    """
    if classes is None or predictions.probabilities is None:
        return y_true.to_numpy(), np.array(predictions.values)
    extra = sorted(set(y_true) - set(classes))
    places = {label: place for place, label in enumerate([*classes, *extra])}
    unknown = np.zeros((len(y_true), len(extra)))
    return y_true.map(places).to_numpy(), np.hstack([predictions.probabilities, unknown])


def format_score(value: float | None) -> str:
    """Return a figure with as many digits as help a reader."""
    if value is None:
        return "undefined"
    return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.2f}" if abs(value) < 10_000 else f"{value:,.0f}"


def tabulate_scores(test: Mapping[str, object]) -> list[tuple[str, str, str, str]]:
    """Return (figure, value, interval, dummy) as texts, one row per figure of metrics.json's test section."""
    intervals, dummy = test["intervals"], test["dummy"]
    rows = []
    for name, title in TITLES.items():
        if name in test:
            bounds = intervals[name]  # type: ignore[index]
            between = "undefined" if bounds is None else f"{format_score(bounds[0])} to {format_score(bounds[1])}"
            rows.append((title, format_score(test[name]), between, format_score(dummy[name])))  # type: ignore[arg-type, index]
    return rows
