"""The figures by which a model is judged, each with an interval that says how far chance could move it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
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
    labels = np.arange(y_pred.shape[1])
    answers = y_pred.argmax(axis=1)
    return {
        "accuracy": float(sk.accuracy_score(y_true, answers)),
        "balanced_accuracy": _balanced_accuracy(y_true, answers, labels),
        "f1": float(
            sk.f1_score(y_true, answers, zero_division=0.0)
            if task == "binary"
            else sk.f1_score(y_true, answers, labels=labels, average="macro", zero_division=0.0)
        ),
        **_rank_scores(task, y_true, y_pred, labels),
        "log_loss": float(sk.log_loss(y_true, y_pred, labels=labels)),
    }


def _balanced_accuracy(y_true: NDArray[np.generic], answers: NDArray[np.intp], labels: NDArray[np.intp]) -> float:
    """Return the mean recall over the classes that the rows hold."""
    present = np.isin(labels, y_true)
    recalls = sk.recall_score(y_true, answers, labels=labels, average=None, zero_division=0.0)
    return float(np.mean(recalls[present]))


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
) -> dict[str, list[float] | None]:
    """Return [low, high] per figure: percentiles over resampled rows (Efron and Tibshirani, 1993, chapter 13).

    Parameters
    ----------
    task, y_true, y_pred : see `compute_scores`
    resamples : how many times the rows are drawn again, with replacement
    confidence : the share of resamples between low and high
    seed : decides the draws
    """
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
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
