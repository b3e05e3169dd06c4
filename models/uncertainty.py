"""How far an answer may be off: split-conformal intervals and prediction sets from out-of-fold predictions.

What is learnt is a few numbers in the manifest of the model, so that whoever has the answer has the interval too.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

MIN_BIN_ROWS = 200  # fewer rows than this say too little of the tails of their errors
MAX_BINS = 10


class Intervals(BaseModel):
    """The interval around a predicted number, as wide as errors are at predictions of that size.

    Parameters
    ----------
    confidence : the share of rows whose target is to lie inside
    edges : (n_bins - 1,) predictions at which another bin begins, ascending
    low, high : (n_bins,) what to add to a prediction of each bin
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["intervals"] = "intervals"
    confidence: float
    edges: list[float]
    low: list[float]
    high: list[float]

    def bounds(self, y_pred: ArrayLike) -> NDArray[np.float64]:
        """Return (n_rows, 2) lower and upper ends for (n_rows,) predictions."""
        values = np.asarray(y_pred, dtype=np.float64)
        places = np.searchsorted(self.edges, values, side="right")
        return np.column_stack([values + np.array(self.low)[places], values + np.array(self.high)[places]])

    def bound(self, y_pred: float) -> tuple[float, float]:
        """Return the ends for one prediction, as `bounds` does, in a tenth of the time."""
        place = bisect_right(self.edges, y_pred)
        return y_pred + self.low[place], y_pred + self.high[place]


class PredictionSets(BaseModel):
    """The classes that an answer may as well have been.

    Parameters
    ----------
    confidence : the share of rows whose class is to be in the set
    min_probability : classes from this probability on are in it; the likeliest always is
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sets"] = "sets"
    confidence: float
    min_probability: float

    def contains(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return (n_rows, n_classes), whether each class is in the set, for probabilities of that shape."""
        given = np.asarray(probabilities, dtype=np.float64)
        inside: NDArray[np.bool_] = (given >= self.min_probability) | (given == given.max(axis=1, keepdims=True))
        return inside

    def find_members(self, probabilities: Sequence[float]) -> list[int]:
        """Return the places of the classes in the set of one row, as `contains` does, in a tenth of the time."""
        least = min(self.min_probability, max(probabilities))
        return [place for place, share in enumerate(probabilities) if share >= least]


Uncertainty = Intervals | PredictionSets


def learn_intervals(y: ArrayLike, y_pred: ArrayLike, confidence: float) -> Intervals:
    """Return intervals that hold new rows' targets with the wanted probability.

    Split-conformal prediction (Lei et al., JASA 2018, algorithm 2) with each tail on its own, within bins of the
    predicted value (Mondrian categories; Vovk et al., 2005, chapter 4.5): where errors grow with the value, so do the
    intervals. Of fewer than 2 / (1 - confidence) rows the largest errors stand in for the tails.

    Parameters
    ----------
    y : (n_rows,) the true values
    y_pred : (n_rows,) what models not fitted on these rows predicted
    confidence : between 0 and 1
    """
    true, predicted = np.asarray(y, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    n_bins = min(max(len(true) // MIN_BIN_ROWS, 1), MAX_BINS)
    edges = np.unique(np.quantile(predicted, np.arange(1, n_bins) / n_bins))
    places = np.searchsorted(edges, predicted, side="right")
    tail = (1 - confidence) / 2
    low, high = [], []
    for place in range(len(edges) + 1):
        errors = np.sort((true - predicted)[places == place])
        if not len(errors):  # more than a bin's share of the rows is predicted the same
            errors = np.sort(true - predicted)
        rank = min(max(_count_below(len(errors), tail), 1), len(errors))
        low.append(float(errors[rank - 1]))
        high.append(float(errors[len(errors) - rank]))
    return Intervals(confidence=confidence, edges=edges.tolist(), low=low, high=high)


def learn_sets(y: ArrayLike, probabilities: ArrayLike, confidence: float) -> PredictionSets:
    """Return prediction sets that hold new rows' classes with at least the wanted probability.

    The least ambiguous sets of Sadinle, Lei and Wasserman (JASA 2019), at one bar for all classes.

    Parameters
    ----------
    y : (n_rows,) the places of the true classes
    probabilities : (n_rows, n_classes) from models not fitted on these rows
    confidence : between 0 and 1
    """
    places = np.asarray(y, dtype=np.intp)
    given = np.sort(np.asarray(probabilities, dtype=np.float64)[np.arange(len(places)), places])
    rank = _count_below(len(given), 1 - confidence)
    return PredictionSets(confidence=confidence, min_probability=float(given[rank - 1]) if rank else 0.0)


def _count_below(n_rows: int, share: float) -> int:
    """Return how many of n rows, and one more, the share is, rounded down; 100 times 0.1 is 10, whatever floats say."""
    return math.floor((n_rows + 1) * share + 1e-9)
