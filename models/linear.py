"""Linear estimators whose answer for a row does not depend on the rows that are asked for with it.

A product of matrices may add up one row in another order than many, so that scikit-learn's own answers for the same row
differ in the last bit between a request and a batch. Here every row is added up by itself. This module needs nothing
else of the project, so that a saved model can travel with it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.utils.validation import check_is_fitted, validate_data


class RowwiseRidgeCV(RidgeCV):  # type: ignore[misc]
    """A RidgeCV that answers row by row."""

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the predicted values, (n_samples,), or (n_samples, n_targets) for several targets."""
        if issparse(X):
            return super().predict(X)  # type: ignore[no-any-return]
        check_is_fitted(self)
        sums: NDArray[np.float64] = (
            add_up_rows(validate_data(self, X, reset=False), np.atleast_2d(self.coef_)) + self.intercept_
        )
        return sums.ravel() if self.coef_.ndim == 1 else sums


class RowwiseLogisticRegression(LogisticRegression):  # type: ignore[misc]
    """A LogisticRegression that answers row by row; labels and probabilities follow from the scores."""

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the scores, (n_samples,) for two classes, else (n_samples, n_classes)."""
        if issparse(X) or issparse(getattr(self, "coef_", None)):
            return super().decision_function(X)  # type: ignore[no-any-return]
        check_is_fitted(self)
        scores: NDArray[np.float64] = add_up_rows(validate_data(self, X, reset=False), self.coef_) + self.intercept_
        return scores.ravel() if scores.shape[1] == 1 else scores


def add_up_rows(X: NDArray[np.float64], coefs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return X @ coefs.T with every row added up in the same order, however many there are and however they lie.

    Parameters
    ----------
    X : (n_samples, n_features)
    coefs : (n_sums, n_features)
    """
    X = np.ascontiguousarray(X)
    return np.column_stack([(X * coef).sum(axis=1) for coef in coefs])
