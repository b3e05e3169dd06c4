"""Boosted trees on top of a line, or on a logarithm: what trees alone need many steps for.

This module needs nothing else of the project, so that a saved model can travel with it.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

CHUNK_ROWS = 50_000


class BoostedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Gradient boosting that is fitted on what a linear model leaves over, or on the logarithm of the target.

    Trees approach a line by steps and end at the last value they have seen; where the target is almost a sum of
    features, a linear model takes that part better, and the trees the rest. On a logarithmic scale errors count by
    their ratio, which suits a positive target with a long tail.

    Parameters
    ----------
    boosting : a HistGradientBoostingRegressor
    linear : a linear model to begin with; None begins with the mean
    log_target : learn log(1 + y), for y that is never negative
    max_linear_rows : the linear model learns from at most so many rows, evenly spread

    Attributes
    ----------
    boosting_, linear_ : fitted; linear_ is None without one
    """

    def __init__(
        self,
        boosting: BaseEstimator,
        linear: BaseEstimator | None = None,
        log_target: bool = False,
        max_linear_rows: int = 200_000,
    ) -> None:
        self.boosting = boosting
        self.linear = linear
        self.log_target = log_target
        self.max_linear_rows = max_linear_rows

    def fit(
        self, X: pd.DataFrame, y: ArrayLike, X_val: pd.DataFrame | None = None, y_val: ArrayLike | None = None
    ) -> "BoostedRegressor":
        """Fit on (n_rows, n_features); boosting may stop early by the validation rows."""
        target = self._scale(y)
        self.linear_ = None
        if self.linear is not None:
            rows = np.unique(np.linspace(0, len(X) - 1, min(len(X), self.max_linear_rows)).astype(np.int64))
            self.linear_ = clone(self.linear).fit(X.iloc[rows], target[rows])
        rest = target - self._predict_linear(X)
        self.boosting_ = clone(self.boosting)
        if X_val is None or y_val is None:
            self.boosting_.fit(X, rest)
        else:
            self.boosting_.fit(X, rest, X_val=X_val, y_val=self._scale(y_val) - self._predict_linear(X_val))
        return self

    def predict(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Return the predicted values, (n_rows,)."""
        check_is_fitted(self, "boosting_")
        answers: NDArray[np.float64] = self._predict_linear(X) + self.boosting_.predict(X)
        return np.expm1(answers) if self.log_target else answers

    def _scale(self, y: ArrayLike) -> NDArray[np.float64]:
        values = np.asarray(y, dtype=np.float64)
        return np.log1p(values) if self.log_target else values

    def _predict_linear(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Return what the linear model says, a block of rows at a time: its table is wide where categories are many."""
        if self.linear_ is None:
            return np.zeros(len(X))
        blocks = range(0, max(len(X), 1), CHUNK_ROWS)
        return np.concatenate([self.linear_.predict(X.iloc[start : start + CHUNK_ROWS]) for start in blocks])


def fit_watched(
    estimator: BaseEstimator, X: pd.DataFrame, y: ArrayLike, X_val: pd.DataFrame, y_val: ArrayLike
) -> BaseEstimator:
    """Return the estimator fitted, boosting stopping early by what it makes of the validation rows.

    Parameters
    ----------
    estimator : takes validation rows in `fit`, or is a pipeline whose last step does
    X, y : the rows to fit on
    X_val, y_val : the rows to watch
    """
    if isinstance(estimator, Pipeline):
        head, last = estimator[:-1], estimator[-1]
        last.fit(head.fit_transform(X, y), y, X_val=head.transform(X_val), y_val=y_val)
        return estimator
    return estimator.fit(X, y, X_val=X_val, y_val=y_val)


def find_boosting(estimator: BaseEstimator) -> BaseEstimator | None:
    """Return the fitted HistGradientBoosting estimator inside an estimator, None where there is none."""
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    inner = getattr(last, "boosting_", last)
    return inner if hasattr(inner, "n_iter_") and hasattr(inner, "_predictors") else None


def count_trees(estimator: BaseEstimator) -> int:
    """Return how many trees an estimator adds up; 0 for one without trees, or of a kind not known here."""
    members = getattr(estimator, "members", None)
    if members is not None:
        return sum(count_trees(member) for member in members)
    boosting = find_boosting(estimator)
    if boosting is not None:
        return int(boosting.n_iter_ * boosting.n_trees_per_iteration_)
    forest = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    return len(getattr(forest, "estimators_", []))
