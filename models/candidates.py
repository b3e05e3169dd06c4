"""The estimators that training chooses from, and how they are compared.

They take the encoded columns of processed.parquet, whose names say what made them: `category__` columns hold codes.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, roc_auc_score, root_mean_squared_error
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from data_ingestion.handoff import PipelineError
from data_ingestion.schema import Strategy, Task
from models.linear import RowwiseLogisticRegression, RowwiseRidgeCV

Metric = Literal["rmse", "roc_auc", "log_loss"]
METRICS: Mapping[Task, Metric] = {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"}
GREATER_IS_BETTER: Mapping[Metric, bool] = {"rmse": False, "roc_auc": True, "log_loss": False}
MIN_ROWS_EARLY_STOPPING = 1_000  # below this, a tenth of the rows is too few to say when to stop
MIN_CLASS_ROWS_EARLY_STOPPING = 20
MIN_ROWS_PROCESSES = 5_000  # below this, starting worker processes costs more than it saves
MIN_ROWS_THREADS = 100_000  # below this, a second thread makes a boosting fit slower on a busy machine


@dataclass(frozen=True)
class CrossValidation:
    """How one candidate did on rows it was not fitted on.

    Parameters
    ----------
    name : the candidate's name
    scores : (n_folds,) of the metric; NaN where a fold leaves it undefined
    """

    name: str
    scores: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The mean over the folds."""
        return float(np.nanmean(self.scores))

    @property
    def standard_error(self) -> float:
        """The standard error of the mean over the folds."""
        return float(np.nanstd(self.scores, ddof=1) / np.sqrt(np.count_nonzero(~np.isnan(self.scores))))


def build_candidates(task: Task, columns: Sequence[str], y: pd.Series, seed: int) -> dict[str, BaseEstimator]:
    """Return the unfitted candidates by name, the simplest first.

    Parameters
    ----------
    task : what to predict
    columns : the encoded columns
    y : (n_rows,) target of the train rows; many enough of each class, boosting holds some back to stop early
    seed : for the candidates that draw at random
    """
    codes = [name for name in columns if name.startswith("category__")]
    encode = ColumnTransformer(
        [("codes", OneHotEncoder(handle_unknown="ignore", sparse_output=False), codes)] if codes else [],
        remainder=StandardScaler(),
    )
    early = len(y) >= MIN_ROWS_EARLY_STOPPING
    if task != "regression":  # rows are held back class by class, in every fold
        early = early and y.value_counts().min() >= MIN_CLASS_ROWS_EARLY_STOPPING
    boosting = {
        "learning_rate": 0.05,
        "max_iter": 1000 if early else 150,
        "early_stopping": early,
        "n_iter_no_change": 20,
        "min_samples_leaf": 20 if early else 5,
        "l2_regularization": 1.0,
        "max_features": 0.5,
        "categorical_features": codes or None,
        "random_state": seed,
    }
    if task == "regression":
        return {
            "dummy": DummyRegressor(strategy="mean"),
            "linear": make_pipeline(encode, RowwiseRidgeCV(alphas=np.logspace(-3, 3, 13))),
            "boosting": HistGradientBoostingRegressor(**boosting),
        }
    return {
        "dummy": DummyClassifier(strategy="prior"),
        "linear": make_pipeline(encode, RowwiseLogisticRegression(max_iter=2000)),
        "boosting": HistGradientBoostingClassifier(**boosting),
    }


def build_folds(
    task: Task,
    strategy: Strategy,
    y: pd.Series,
    n_folds: int,
    seed: int,
    order: NDArray[np.object_] | None = None,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (fit, validation) positions per fold, cut as the test rows were cut.

    Parameters
    ----------
    task : what to predict
    strategy : how the test rows were chosen; group keeps groups whole, time validates on what comes after the fit
    y : (n_rows,) target of the train rows
    n_folds : how many
    seed : for the shuffling
    order : (n_rows,) the group or the time of each row, for those strategies

    Raises
    ------
    PipelineError : the rows are too few for that many folds, or hold one group, or fewer than two folds hold two
        classes to fit on and, for two classes, to be judged by
    """
    folds = _cut_folds(task, strategy, y, n_folds, seed, order)
    if task == "regression":
        return folds
    needed = 2 if task == "binary" else 1
    usable = [(fit, check) for fit, check in folds if y.iloc[fit].nunique() > 1 and y.iloc[check].nunique() >= needed]
    if len(usable) < 2:
        raise PipelineError(
            f"--split {strategy} leaves {len(usable)} of {len(folds)} folds with two classes, and comparing needs two "
            "such folds. Choose another --split, or other --folds."
        )
    return usable


def _cut_folds(
    task: Task, strategy: Strategy, y: pd.Series, n_folds: int, seed: int, order: NDArray[np.object_] | None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (fit, validation) positions per fold; see `build_folds`."""
    positions = np.arange(len(y))
    if strategy == "group" and order is not None:
        groups, names = pd.factorize(order, use_na_sentinel=False)  # no group is a group too, as in the split
        if len(names) < 2:
            raise PipelineError("the train rows hold one group, and folds need two. Choose another --split.")
        return list(GroupKFold(min(n_folds, len(names)), shuffle=True, random_state=seed).split(positions, y, groups))
    needed = n_folds + 1 if strategy == "time" else n_folds
    if len(y) < needed:
        raise PipelineError(f"--folds {n_folds} needs at least {needed} train rows, got {len(y)}. Lower --folds.")
    if strategy == "time" and order is not None:
        by_time = np.argsort(order, kind="stable")
        return [(by_time[fit], by_time[check]) for fit, check in TimeSeriesSplit(n_folds).split(positions)]
    if task == "regression":
        return list(KFold(n_folds, shuffle=True, random_state=seed).split(positions))
    n_folds = max(2, min(n_folds, int(y.value_counts().min())))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # of one row: it is in one of the two folds
        return list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(positions, y))


def cross_validate(
    candidates: Mapping[str, BaseEstimator],
    X: pd.DataFrame,
    y: pd.Series,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    metric: Metric,
    report: Callable[[int], object],
) -> list[CrossValidation]:
    """Fit and score every candidate on every fold, in processes of one thread each where that pays.

    Parameters
    ----------
    candidates : unfitted, by name
    X : (n_rows, n_features) encoded features of the train rows
    y : (n_rows,) target
    folds : see `build_folds`
    metric : what to compare by
    report : called with the number of finished fits
    """
    jobs = [(name, fold) for name in candidates for fold in range(len(folds))]
    workers = Parallel(n_jobs=-1 if len(X) >= MIN_ROWS_PROCESSES else 1, return_as="generator")
    done = workers(delayed(_score_fold)(candidates[name], X, y, folds[fold], metric) for name, fold in jobs)
    scores: dict[str, list[float]] = {name: [] for name in candidates}
    for count, ((name, _), score) in enumerate(zip(jobs, done, strict=True), start=1):
        scores[name].append(score)
        report(count)
    return [CrossValidation(name, np.array(values)) for name, values in scores.items()]


def _score_fold(
    candidate: BaseEstimator,
    X: pd.DataFrame,
    y: pd.Series,
    fold: tuple[NDArray[np.int64], NDArray[np.int64]],
    metric: Metric,
) -> float:
    fit, check = fold
    estimator = fit_estimator(candidate, X.iloc[fit], y.iloc[fit])
    if metric == "rmse":
        return float(root_mean_squared_error(y.iloc[check], estimator.predict(X.iloc[check])))
    classes = sorted(y.unique())
    probabilities = align_probabilities(estimator.predict_proba(X.iloc[check]), estimator.classes_, classes)
    if metric == "log_loss":
        return float(log_loss(y.iloc[check], probabilities, labels=classes))
    positive = (y.iloc[check] == classes[1]).to_numpy()
    return float(roc_auc_score(positive, probabilities[:, 1])) if 0 < positive.sum() < len(positive) else float("nan")


def fit_estimator(candidate: BaseEstimator, X: pd.DataFrame, y: pd.Series) -> BaseEstimator:
    """Return a fitted copy of a candidate."""
    with threadpool_limits(limits=None if len(X) >= MIN_ROWS_THREADS else 1):
        return clone(candidate).fit(X, y)


def align_probabilities(
    probabilities: NDArray[np.float64], known: Sequence[object], classes: Sequence[object]
) -> NDArray[np.float64]:
    """Return (n_rows, n_classes) probabilities in the order of `classes`, zero for those the estimator never saw."""
    aligned = np.zeros((len(probabilities), len(classes)))
    aligned[:, [list(classes).index(label) for label in known]] = probabilities
    return aligned


def rank_candidates(results: Sequence[CrossValidation], metric: Metric) -> list[CrossValidation]:
    """Return the results, best first; of equals the one that stood first, which is the simpler."""
    sign = -1.0 if GREATER_IS_BETTER[metric] else 1.0
    return sorted(results, key=lambda result: sign * result.mean)


def iterate_leaderboard(ranked: Sequence[CrossValidation]) -> Iterator[dict[str, object]]:
    """Return the ranking as plain values for metrics.json."""
    for result in ranked:
        folds = [None if np.isnan(score) else float(score) for score in result.scores]
        yield {"name": result.name, "mean": result.mean, "standard_error": result.standard_error, "folds": folds}
