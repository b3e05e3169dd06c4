"""Fitted models that answer together, each with its weight; and for classes, calibrated and with a threshold.

This module needs nothing else of the project, so that a saved model can travel with it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

SMALLEST = 1e-15  # below it, the logarithm of a probability says no more


class WeightedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The weighted mean of fitted regressors.

    Parameters
    ----------
    members : fitted regressors that take the same columns
    weights : (n_members,) adding up to 1
    """

    def __init__(self, members: Sequence[BaseEstimator], weights: Sequence[float]) -> None:
        self.members = members
        self.weights = weights

    def __sklearn_is_fitted__(self) -> bool:
        """Return true: the members are fitted."""
        return True

    def fit(self, X: pd.DataFrame, y: ArrayLike) -> "WeightedRegressor":
        """Do nothing: the members are fitted."""
        return self

    def predict(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Return the predicted values, (n_rows,), members added up in their order."""
        return average(self.weights, [member.predict(X) for member in self.members])


class WeightedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The weighted mean of fitted classifiers' probabilities, calibrated, and the answer that follows from it.

    Parameters
    ----------
    members : fitted classifiers that take the same columns
    weights : (n_members,) adding up to 1
    classes : (n_classes,) all labels, sorted; a class that a member does not know has probability 0 there
    threshold : for two classes, the probability of the second from which on it is the answer; None takes the likelier
    calibration : (slope, intercept of each class) for `calibrate_probabilities`; None leaves the mean as it is
    """

    def __init__(
        self,
        members: Sequence[BaseEstimator],
        weights: Sequence[float],
        classes: Sequence[int | str],
        threshold: float | None = None,
        calibration: tuple[float, Sequence[float]] | None = None,
    ) -> None:
        self.members = members
        self.weights = weights
        self.classes = classes
        self.threshold = threshold
        self.calibration = calibration

    @property
    def classes_(self) -> NDArray[np.generic]:
        """The labels in the order of the probabilities."""
        return np.array(list(self.classes))

    def __sklearn_is_fitted__(self) -> bool:
        """Return true: the members are fitted."""
        return True

    def fit(self, X: pd.DataFrame, y: ArrayLike) -> "WeightedClassifier":
        """Do nothing: the members are fitted."""
        return self

    def predict_proba(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Return the probabilities, (n_rows, n_classes), members added up in their order."""
        given = [align_probabilities(m.predict_proba(X), m.classes_, self.classes) for m in self.members]
        mean = average(self.weights, given)
        return mean if self.calibration is None else calibrate_probabilities(mean, *self.calibration)

    def predict(self, X: pd.DataFrame) -> NDArray[np.generic]:
        """Return the labels, (n_rows,)."""
        labels: NDArray[np.generic] = self.classes_[choose_places(self.predict_proba(X), self.threshold)]
        return labels


def average(weights: Sequence[float], answers: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the weighted sum of arrays of one shape, added up in order, so that the last bit is always the same."""
    total = weights[0] * answers[0]
    for weight, answer in zip(weights[1:], answers[1:], strict=True):
        total = total + weight * answer
    return total


def align_probabilities(
    probabilities: NDArray[np.float64], known: Sequence[object], classes: Sequence[object]
) -> NDArray[np.float64]:
    """Return (n_rows, n_classes) probabilities in the order of `classes`, zero for those the estimator never saw."""
    if len(known) == len(classes):
        return probabilities
    aligned = np.zeros((len(probabilities), len(classes)))
    aligned[:, [list(classes).index(label) for label in known]] = probabilities
    return aligned


def calibrate_probabilities(
    probabilities: NDArray[np.float64], slope: float, intercepts: Sequence[float]
) -> NDArray[np.float64]:
    """Return softmax(slope * log(p) + intercept), (n_rows, n_classes): temperature scaling with a bias for each class.

    Of two classes this is Platt's scaling of the log-odds (Alexandari, Kundaje and Shrikumar, ICML 2020, section 3).
    Columns are added up one by one, so that a row's last bit does not depend on the rows beside it.
    """
    logits = slope * np.log(np.maximum(probabilities, SMALLEST)) + np.asarray(intercepts, dtype=np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    total = odds[:, 0].copy()
    for place in range(1, odds.shape[1]):
        total += odds[:, place]
    result: NDArray[np.float64] = odds / total[:, np.newaxis]
    return result


def choose_places(probabilities: NDArray[np.float64], threshold: float | None) -> NDArray[np.intp]:
    """Return for each row the place of its answer among the classes.

    Parameters
    ----------
    probabilities : (n_rows, n_classes)
    threshold : see `WeightedClassifier`
    """
    if threshold is None:
        likeliest: NDArray[np.intp] = probabilities.argmax(axis=1)
        return likeliest
    return (probabilities[:, 1] >= threshold).astype(np.intp)
