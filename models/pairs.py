"""Pairs of features side by side: what a tree needs many splits for is one split on a difference or a ratio.

This module needs nothing else of the project, so that a saved model can travel with it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

LIMIT = 1e30  # as in the contract: a ratio to almost nothing is no infinity

Column = NDArray[np.float64]
Pair = tuple[str, str, str, float, float]  # column, sign, column, and the standard deviation of each


def _divide(a: Column, b: Column, scale_a: float, scale_b: float) -> Column:
    with np.errstate(over="ignore"):
        return np.clip(np.divide(a, b, out=np.zeros_like(a), where=b != 0), -LIMIT, LIMIT)


# What becomes of two columns, given their standard deviations; the sign stands in the name of the new column.
_COMBINE: Mapping[str, Callable[[Column, Column, float, float], Column]] = {
    "-": lambda a, b, scale_a, scale_b: a - b,
    "~": lambda a, b, scale_a, scale_b: a / scale_a - b / scale_b,  # a difference in standard deviations
    "+": lambda a, b, scale_a, scale_b: a / scale_a + b / scale_b,
    "/": _divide,
    "*": lambda a, b, scale_a, scale_b: (a / scale_a) * (b / scale_b),
    "?": lambda a, b, scale_a, scale_b: np.where(b == 1, a / scale_a, np.where(b == 0, -a / scale_a, 0.0)),
}
_SWITCHED = "?"


class PairFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Add to a table the differences, sums, ratios or products of pairs of its columns, and keep what is there.

    Parameters
    ----------
    columns : the columns to pair, each with each
    signs : what to make of a pair: "-" the difference, "~" the difference of both in standard deviations, "+" their
        sum in standard deviations, "/" the ratio (0 to nothing is 0), "*" the product in standard deviations;
        "?" pairs each of the columns with each switch instead: the column in standard deviations where the switch is
        1, its negative where it is 0, and 0 elsewhere
    switches : columns of codes, of which 0 and 1 are two levels, and others mean something else

    Attributes
    ----------
    scales_ : (n_columns,) the standard deviations of the columns, 1 where a column does not vary
    """

    switches: Sequence[str] = ()  # of what was saved before there were any

    def __init__(self, columns: Sequence[str], signs: Sequence[str], switches: Sequence[str] = ()) -> None:
        self.columns = columns
        self.signs = signs
        self.switches = switches

    def fit(self, X: pd.DataFrame, y: object = None) -> "PairFeatures":
        """Learn how far the columns scatter."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        scales = X[list(self.columns)].to_numpy(dtype=np.float64).std(axis=0)
        self.scales_ = np.where(scales > 0, scales, 1.0)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return (n_rows, n_features + n_pairs * n_signs), the new columns last."""
        check_is_fitted(self, "scales_")
        values = {name: X[name].to_numpy(dtype=np.float64) for name in (*self.columns, *self.switches)}
        added = {
            _name_pair(a, sign, b): _COMBINE[sign](values[a], values[b], scale_a, scale_b)
            for a, sign, b, scale_a, scale_b in self.list_pairs()
        }
        return pd.concat([X, pd.DataFrame(added, index=X.index)], axis=1)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Return the names of the columns of `transform`."""
        pairs = [_name_pair(a, sign, b) for a, sign, b, _, _ in self.list_pairs()]
        return np.asarray([*self.feature_names_in_, *pairs], dtype=object)

    def list_pairs(self) -> list[Pair]:
        """Return the pairs in the order of their new columns; a switch is taken as it is."""
        scales = dict(zip(self.columns, self.scales_.tolist(), strict=True)) | dict.fromkeys(self.switches, 1.0)
        return [
            (a, sign, b, scales[a], scales[b])
            for sign in self.signs
            for a, b in (product(self.columns, self.switches) if sign == _SWITCHED else combinations(self.columns, 2))
        ]


def _name_pair(a: str, sign: str, b: str) -> str:
    return f"pair__{a} {sign} {b}"
