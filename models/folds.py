"""The folds of the cross-validation, cut as the test rows were cut."""

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, TimeSeriesSplit

from data_ingestion.handoff import PipelineError
from data_ingestion.schema import Strategy, Task

MAX_CELLS = 3_000_000  # above so many values one fold of a tenth of the rows says enough, and five cost too much
HOLDOUT = 10

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def cut_folds(
    task: Task,
    strategy: Strategy,
    y: pd.Series,
    n_features: int,
    n_folds: int | None,
    seed: int,
    order: NDArray[np.object_] | None = None,
) -> list[Fold]:
    """Return (fit, validation) positions per fold: as many as asked for, else five, or one where rows are many.

    Parameters
    ----------
    n_features : the width of the encoded table, which with the rows says what a fit costs
    n_folds : how many; None decides by the size of the table
    task, strategy, y, seed, order : see `build_folds`
    """
    if n_folds is None and len(y) * n_features > MAX_CELLS:
        return build_folds(task, strategy, y, HOLDOUT, seed, order)[-1:]
    return build_folds(task, strategy, y, n_folds or 5, seed, order)


def build_folds(
    task: Task,
    strategy: Strategy,
    y: pd.Series,
    n_folds: int,
    seed: int,
    order: NDArray[np.object_] | None = None,
) -> list[Fold]:
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
) -> list[Fold]:
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
