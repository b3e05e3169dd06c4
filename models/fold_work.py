"""What is done for one fold of one candidate: in this process, or in a worker that reads the table from a file."""

import functools
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from data_ingestion.pickling import dump_pickle
from models.boosting import count_trees, find_boosting, fit_watched
from models.calibration import mean_log_loss
from models.candidates import Candidate, Metric, Problem
from models.ensemble import align_probabilities
from models.estimators import build_estimator, count_linear_rows
from models.fold_encoding import FoldMeans
from models.folds import Fold

MIN_ROWS_THREADS = 100_000  # below this, a second thread makes a boosting fit slower on a busy machine
TABLE = "table.joblib"
TIMED_ROWS = 2_000  # so many that a row counts, and not the call


@dataclass(frozen=True)
class FoldTable:
    """The train rows, and how they are cut.

    Parameters
    ----------
    values : (n_rows, n_columns) encoded features
    columns : their names
    y : (n_rows,) target
    folds : positions to fit on and to be judged by
    means : for each fold the target means that replace some of the columns
    metric : what candidates are compared by
    """

    values: NDArray[np.float64]
    columns: tuple[str, ...]
    y: NDArray[np.generic]
    folds: Sequence[Fold]
    means: Sequence[FoldMeans | None]
    metric: Metric


@dataclass(frozen=True)
class FoldResult:
    """How a candidate did on one fold.

    Parameters
    ----------
    answers : (n_check_rows,) values or (n_check_rows, n_classes) probabilities
    score : of the metric, NaN where the fold leaves it undefined
    fit_s : seconds to fit
    predict_us : microseconds to answer a row among many
    iterations : how often boosting added trees, 0 for others
    n_trees : how many trees there are
    size_bytes : of the pickle
    """

    answers: NDArray[np.float64]
    score: float
    fit_s: float
    predict_us: float
    iterations: int
    n_trees: int
    size_bytes: int


def share_table(table: FoldTable, folder: Path) -> None:
    """Write the table to where workers map it into their memory."""
    joblib.dump(table, folder / TABLE)


@functools.lru_cache(maxsize=1)
def _map_table(folder: str) -> FoldTable:
    table: FoldTable = joblib.load(Path(folder) / TABLE, mmap_mode="r")
    return table


def fit_shared_fold(folder: str, candidate: Candidate, problem: Problem, fold: int, path: str | None) -> FoldResult:
    """Fit and judge in a worker; see `fit_fold`."""
    return fit_fold(_map_table(folder), candidate, problem, fold, path)


def fit_fold(table: FoldTable, candidate: Candidate, problem: Problem, fold: int, path: str | None) -> FoldResult:
    """Return how a candidate does on one fold, on one thread.

    Parameters
    ----------
    table : the train rows
    candidate, problem : what to build
    fold : its number
    path : where the fitted estimator is kept, None where nobody wants it
    """
    (X, y), (X_check, y_check) = take_fold(table, fold)
    estimator = build_estimator(candidate, problem)
    started = time.perf_counter()
    with threadpool_limits(1):
        if candidate.family == "boosting" and problem.watch:
            fit_watched(estimator, X, y, X_check, y_check)
        else:
            _fit_plain(estimator, candidate, problem, X, y)
        fitted = time.perf_counter()
        answers = answer(estimator, X_check, problem.classes)
        predict_us = time_answers(estimator, X_check, problem)
    content = io.BytesIO()
    dump_pickle(estimator, content)
    if path is not None:
        Path(path).write_bytes(content.getvalue())
    boosting = find_boosting(estimator)
    return FoldResult(
        answers=answers,
        score=score(table.metric, y_check, answers, problem.classes),
        fit_s=fitted - started,
        predict_us=predict_us,
        iterations=0 if boosting is None else int(boosting.n_iter_),
        n_trees=count_trees(estimator),
        size_bytes=content.tell(),
    )


def time_answers(estimator: BaseEstimator, X: pd.DataFrame, problem: Problem) -> float:
    """Return the microseconds that a row takes among TIMED_ROWS; few rows are repeated."""
    many = X.iloc[np.arange(TIMED_ROWS) % len(X)]
    started = time.perf_counter()
    answer(estimator, many, problem.classes)
    return (time.perf_counter() - started) / TIMED_ROWS * 1e6


def fit_shared_whole(folder: str, candidate: Candidate, problem: Problem, iterations: int | None) -> BaseEstimator:
    """Fit on all train rows in a worker; see `fit_whole`."""
    return fit_whole(_map_table(folder), candidate, problem, iterations, 1)


def fit_whole(
    table: FoldTable, candidate: Candidate, problem: Problem, iterations: int | None, n_threads: int | None
) -> BaseEstimator:
    """Return a candidate fitted on all train rows.

    Parameters
    ----------
    table : the train rows
    candidate, problem : what to build
    iterations : how often boosting adds trees
    n_threads : None takes all cores where rows are many
    """
    estimator = build_estimator(candidate, problem, iterations)
    X = pd.DataFrame(table.values, columns=list(table.columns), copy=False)
    threads = n_threads if n_threads is not None or len(X) >= MIN_ROWS_THREADS else 1
    with threadpool_limits(threads):
        return _fit_plain(estimator, candidate, problem, X, np.asarray(table.y))


def _fit_plain(
    estimator: BaseEstimator, candidate: Candidate, problem: Problem, X: pd.DataFrame, y: NDArray[np.generic]
) -> BaseEstimator:
    """Fit without rows to watch; a linear model on as many rows as its table can hold."""
    if candidate.family == "linear" and len(X) > count_linear_rows(problem):
        rows = np.unique(np.linspace(0, len(X) - 1, count_linear_rows(problem)).astype(np.int64))
        return estimator.fit(X.iloc[rows], y[rows])
    return estimator.fit(X, y)


def take_fold(
    table: FoldTable, fold: int
) -> tuple[tuple[pd.DataFrame, NDArray[np.generic]], tuple[pd.DataFrame, NDArray[np.generic]]]:
    """Return the features and targets to fit on, and those to be judged by."""
    parts = []
    for side, rows in zip(("fit", "check"), table.folds[fold], strict=True):
        values = np.asarray(table.values[rows])
        means = table.means[fold]
        if means is not None:
            values[:, means.columns] = getattr(means, side)
        parts.append((pd.DataFrame(values, columns=list(table.columns), copy=False), np.asarray(table.y[rows])))
    return parts[0], parts[1]


def answer(estimator: BaseEstimator, X: pd.DataFrame, classes: Sequence[object]) -> NDArray[np.float64]:
    """Return (n_rows,) predicted values, or (n_rows, n_classes) probabilities in the order of `classes`."""
    if not classes:
        return np.asarray(estimator.predict(X), dtype=np.float64)
    return align_probabilities(np.asarray(estimator.predict_proba(X), dtype=np.float64), estimator.classes_, classes)


def score(metric: Metric, y: NDArray[np.generic], answers: NDArray[np.float64], classes: Sequence[object]) -> float:
    """Return the metric of answers, NaN where the rows leave it undefined.

    The ensemble asks for it some thousand times, and most of scikit-learn's time for it goes into checks.
    """
    if metric == "rmse":
        return float(np.sqrt(np.mean((y.astype(np.float64) - answers) ** 2)))
    if metric == "log_loss":
        return mean_log_loss(np.searchsorted(np.array(classes), y), answers)
    return rank_auc(np.asarray(y == classes[1]), answers[:, 1])


def rank_auc(positive: NDArray[np.bool_], answers: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve, NaN without rows of either class.

    The share of pairs of a positive and another row that are in order, from the sum of ranks (Mann and Whitney, 1947);
    scikit-learn's way to the same number takes several times as long.
    """
    n_positive = int(np.count_nonzero(positive))
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    ranks = float(rankdata(answers)[positive].sum())
    return (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
