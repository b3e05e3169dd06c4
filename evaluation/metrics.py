"""The figures by which a model is judged, for the rows as they are, and for many resamples of them at once.

A resample of the rows is a vector of counts: how often each row stands in it. All figures are sums over rows weighted
by these counts, so a thousand resamples cost some passes over the rows instead of a thousand sorts.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor

from data_ingestion.schema import Task
from models.artifact import Predictions

Scores = dict[str, float | None]  # None where the rows leave a figure undefined, as ROC AUC with one class
Counts = NDArray[np.float64]  # (n_resamples, n_rows)
Draws = dict[str, NDArray[np.float64]]  # (n_resamples,) of each figure; NaN where a resample leaves it undefined
Scorer = Callable[[Counts], Draws]

REGRESSION = ("mse", "mae", "rmse", "r2")
RANKINGS = ("roc_auc", "average_precision")
CLASSIFICATION = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "average_precision", "log_loss")
SCORES = ("r2", "accuracy", "balanced_accuracy", "f1", "roc_auc", "average_precision")  # greater is better
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
CONSTANT = 1e-12  # a target whose variance is a smaller share of its mean square is the same in every row


def compute_scores(
    task: Task,
    y_true: NDArray[np.generic],
    y_pred: NDArray[np.generic],
    answers: NDArray[np.intp] | None = None,
) -> Scores:
    """Return every figure of the task.

    Parameters
    ----------
    task : regression, binary or multiclass
    y_true : (n_rows,) numbers, or positions among the classes
    y_pred : (n_rows,) numbers, or (n_rows, n_classes) probabilities
    answers : (n_rows,) positions of the answered classes; None takes the likeliest ones

    Returns
    -------
    For several classes F1 and average precision are means over the classes and ROC AUC is one-against-the-rest, as
    scikit-learn's `average="macro"`. For two, the second class is the positive one.
    """
    draws = build_scorer(task, y_true, y_pred, answers)(np.ones((1, len(y_true))))
    return {name: None if np.isnan(values[0]) else float(values[0]) for name, values in draws.items()}


def build_scorer(
    task: Task,
    y_true: NDArray[np.generic],
    y_pred: NDArray[np.generic],
    answers: NDArray[np.intp] | None = None,
) -> Scorer:
    """Return a function from (n_resamples, n_rows) counts to (n_resamples,) of every figure; see `compute_scores`."""
    if task == "regression":
        return _build_error_scorer(y_true.astype(np.float64), y_pred.astype(np.float64))
    places, n_classes = y_true.astype(np.intp), y_pred.shape[1]
    answered = y_pred.argmax(axis=1) if answers is None else answers
    is_right, losses = places == answered, find_log_losses(places, y_pred)
    positives = [1] if task == "binary" else list(range(n_classes))
    rankings = [_build_rank_scorer(places == place, y_pred[:, place]) for place in positives]

    def score(counts: Counts) -> Draws:
        true = count_classes(counts, places, n_classes)
        hits = count_classes(counts * is_right, places, n_classes)
        draws = _score_answers(true, hits, count_classes(counts, answered, n_classes), is_binary=task == "binary")
        ranked = [rank(counts) for rank in rankings]
        has_all = (true > 0).all(axis=1)
        for name in RANKINGS:
            draws[name] = np.where(has_all, np.mean([rank[name] for rank in ranked], axis=0), np.nan)
        return draws | {"log_loss": counts @ losses / counts.sum(axis=1)}

    return score


def _build_error_scorer(y_true: NDArray[np.float64], y_pred: NDArray[np.float64]) -> Scorer:
    centred = y_true - np.median(y_true)  # keeps the variance exact where the target lies far from zero
    columns = np.column_stack([(y_true - y_pred) ** 2, np.abs(y_true - y_pred), centred**2, centred])

    def score(counts: Counts) -> Draws:
        mse, mae, square, mean = (counts @ columns / counts.sum(axis=1, keepdims=True)).T
        variance = square - mean**2
        varies = variance > CONSTANT * square
        r2 = 1 - np.divide(mse, variance, out=np.full_like(mse, np.nan), where=varies)
        return {"mse": mse, "mae": mae, "rmse": np.sqrt(mse), "r2": r2}

    return score


def _score_answers(
    true: NDArray[np.float64], hits: NDArray[np.float64], answers: NDArray[np.float64], is_binary: bool
) -> Draws:
    """Return the figures that follow from how often each class is true, right and answered, as scikit-learn's do.

    Parameters
    ----------
    true, hits, answers : (n_resamples, n_classes) counts of rows
    is_binary : F1 is that of the second class, else the mean
    """
    recall = np.divide(hits, true, out=np.zeros_like(hits), where=true > 0)
    f1 = 2 * hits / np.maximum(true + answers, 1)
    n_seen = (true + answers > 0).sum(axis=1)  # a class that nobody has or gives counts for nothing
    return {
        "accuracy": hits.sum(axis=1) / true.sum(axis=1),
        "balanced_accuracy": recall.sum(axis=1) / (true > 0).sum(axis=1),
        "f1": f1[:, 1] if is_binary else f1.sum(axis=1) / n_seen,
    }


def count_classes(counts: Counts, places: NDArray[np.intp], n_classes: int) -> NDArray[np.float64]:
    """Return (n_resamples, n_classes), how often each class stands in each resample."""
    cells = np.arange(len(counts))[:, np.newaxis] * n_classes + places
    found = np.bincount(cells.ravel(), weights=counts.ravel(), minlength=len(counts) * n_classes)
    return np.asarray(found.reshape(len(counts), n_classes), dtype=np.float64)


def _build_rank_scorer(is_positive: NDArray[np.bool_], values: NDArray[np.generic]) -> Scorer:
    """Return a function that gives ROC AUC and average precision: sorted once, equal values share one rank.

    Each resample's curve follows from cumulative sums over the sorted rows, read off where positive rows are: ROC AUC
    is the share of pairs in order, half for ties (Fawcett, Pattern Recognition Letters 27, 2006), and average precision
    the precision at each rank weighted by the recall it adds, as scikit-learn's.
    """
    falling = -values.astype(np.float64)
    order = np.argsort(falling, kind="stable")
    ranked, positions = falling[order], np.flatnonzero(is_positive[order])
    ranks = np.unique(ranked[positions])
    starts, ends = (np.searchsorted(ranked, ranks, side=side) for side in ("left", "right"))
    first, last = np.searchsorted(positions, starts), np.searchsorted(positions, ends)

    def score(counts: Counts) -> Draws:
        seen, found = _accumulate(counts[:, order]), _accumulate(counts[:, order[positions]])
        n_positive, n_rows = found[:, -1], seen[:, -1]
        found_before, found_after, seen_after = found[:, first], found[:, last], seen[:, ends]
        hits = found_after - found_before
        negatives = (seen_after - found_after + seen[:, starts] - found_before) / 2  # ranked above, ties half
        n_negative = n_rows - n_positive
        in_order = n_positive * n_negative - np.einsum("ij,ij->i", hits, negatives)
        with np.errstate(invalid="ignore", divide="ignore"):  # none or all positive: undefined
            return {
                "roc_auc": in_order / (n_positive * n_negative),
                "average_precision": np.einsum("ij,ij->i", hits, found_after / np.maximum(seen_after, 1)) / n_positive,
            }

    return score


def _accumulate(counts: Counts) -> NDArray[np.float64]:
    """Return (n_resamples, n_rows + 1) how many rows stand before each place."""
    sums = np.zeros((counts.shape[0], counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=sums[:, 1:])
    return sums


def find_log_losses(places: NDArray[np.generic], probabilities: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return (n_rows,) of -log of the probability given to the true class (Bishop, 2006, equation 4.108)."""
    given = probabilities[np.arange(len(places)), places.astype(np.intp)].astype(np.float64)
    losses: NDArray[np.float64] = -np.log(np.clip(given, np.finfo(np.float64).eps, 1))
    return losses


def predict_dummy(task: Task, y_train: pd.Series, n_rows: int) -> Predictions:
    """Return the answers of a model that ignores its input: the mean, or the class shares of the train rows."""
    nothing = np.zeros((len(y_train), 1))
    if task == "regression":
        dummy = DummyRegressor(strategy="mean").fit(nothing, y_train)
        return Predictions([float(value) for value in dummy.predict(np.zeros((n_rows, 1)))])
    dummy = DummyClassifier(strategy="prior").fit(nothing, y_train)
    probabilities = dummy.predict_proba(np.zeros((n_rows, 1)))
    return Predictions([dummy.classes_[probabilities[0].argmax()]] * n_rows, probabilities)


def to_arrays(
    y_true: pd.Series, predictions: Predictions, classes: Sequence[int | str] | None
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return target and answers as `compute_scores` takes them.

    A class that the train rows do not hold gets a column of its own, with probability zero in every row: answers for
    it are wrong, and counted as such.
    """
    if classes is None or predictions.probabilities is None:
        return y_true.to_numpy(), np.array(predictions.values)
    places = place_classes(y_true, classes)
    unknown = np.zeros((len(y_true), len(places) - len(classes)))
    return y_true.map(places).to_numpy(), np.hstack([predictions.probabilities, unknown])


def place_answers(
    y_true: pd.Series, predictions: Predictions, classes: Sequence[int | str] | None
) -> NDArray[np.intp] | None:
    """Return (n_rows,) positions of the answered classes, which need not be the likeliest; None for a regression."""
    if classes is None:
        return None
    return pd.Series(predictions.values).map(place_classes(y_true, classes)).to_numpy(np.intp)


def place_classes(y_true: pd.Series, classes: Sequence[int | str]) -> dict[int | str, int]:
    """Return the position of each class: those of the model first, then others among the rows."""
    return {label: place for place, label in enumerate([*classes, *sorted(set(y_true) - set(classes))])}


def format_score(value: float | None) -> str:
    """Return a figure with as many digits as help a reader."""
    if value is None:
        return "undefined"
    return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.2f}" if abs(value) < 10_000 else f"{value:,.0f}"


def format_interval(bounds: Sequence[float] | None) -> str:
    """Return an interval as a text."""
    return "undefined" if bounds is None else f"{format_score(bounds[0])} to {format_score(bounds[1])}"


def tabulate_scores(test: Mapping[str, object]) -> list[tuple[str, str, str, str]]:
    """Return (figure, value, interval, dummy) as texts, one row per figure of metrics.json's test section."""
    intervals, dummy = test["intervals"], test["dummy"]
    rows = []
    for name, title in TITLES.items():
        if name in test:
            between = format_interval(intervals[name])  # type: ignore[index]
            rows.append((title, format_score(test[name]), between, format_score(dummy[name])))  # type: ignore[arg-type, index]
    return rows
