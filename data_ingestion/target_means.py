"""Target means of categories, learnt in numpy as scikit-learn's TargetEncoder learns them, over all rows and per fold.

The encoder that is saved gives a row the mean over all train rows. A train row itself must not see its own target, so
it gets the mean over the train rows of the other folds (cross-fitting).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.float64] | NDArray[np.int64]


@dataclass(frozen=True)
class TargetMeans:
    """The means of one category for one class, or for a regression's target.

    Parameters
    ----------
    encodings : (n_levels,) over all rows
    mean : of the target, for a level not seen
    table : (n_folds + 1, n_levels + 1) encodings for the train rows of each fold, in the last row those over all rows;
        the last column is for a level not seen
    """

    encodings: Floats
    mean: float
    table: Floats


def learn_means(places: NDArray[np.int64], y: Labels, n_levels: int) -> tuple[Floats, float]:
    """Return the smoothed mean of each level and the overall mean.

    The mean of a level shrinks towards the overall mean the more, the fewer its rows and the more they scatter: the
    empirical Bayes estimate of Micci-Barreca (SIGKDD Explorations 2001, eq. 5 and 6), `smooth="auto"` in scikit-learn.

    Parameters
    ----------
    places : (n_rows,) the level of each row
    y : (n_rows,) numbers, or 0 and 1 of a class
    n_levels : how many levels there are, those without a row included
    """
    mean, variance = float(np.mean(y)), float(np.var(y))
    counts = np.bincount(places, minlength=n_levels)
    with np.errstate(invalid="ignore"):
        means = np.bincount(places, weights=y, minlength=n_levels) / counts
        squares = np.bincount(places, weights=(y - means[places]) ** 2, minlength=n_levels)
        trust = variance * counts / (variance * counts + squares / counts)
        return np.where(np.isnan(trust), mean, trust * means + (1 - trust) * mean), mean


def cross_fit_means(
    places: NDArray[np.int64], y: Labels, n_levels: int, folds: NDArray[np.uint8], n_folds: int
) -> TargetMeans:
    """Return the means over all rows and over the rows outside of each fold.

    Parameters
    ----------
    places, y, n_levels : see `learn_means`
    folds : (n_rows,) below `n_folds`
    n_folds : a fold that holds all rows, or none, gives its rows the means over all
    """
    encodings, mean = learn_means(places, y, n_levels)
    table = np.tile(np.append(encodings, mean), (n_folds + 1, 1))
    for fold in range(n_folds):
        others = folds != fold
        if others.any():
            table[fold] = np.append(*learn_means(places[others], y[others], n_levels))
    return TargetMeans(encodings, mean, table)
