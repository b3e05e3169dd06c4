"""The folds of the cross-validation, cut as the test rows were cut.

What the split keeps on one side stays in one fold: equal rows, the rows of an id, or those of a group. Where the split
goes by time, a fold is judged by rows that come later than those it is fitted on, with the split's gap between them.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold

from data_ingestion.handoff import PipelineError
from data_ingestion.schema import Strategy, Task

MAX_CELLS = 3_000_000  # above so many values one fold of a tenth of the rows says enough, and five cost too much
HOLDOUT = 10
USUAL = 5

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
Keys = NDArray[np.generic]


@dataclass(frozen=True)
class FoldRequest:
    """How to cut.

    Parameters
    ----------
    task : what to predict
    strategy : how the test rows were chosen
    n_folds : how many; None decides by the size of the table
    seed : for the shuffling
    gap : with `time`, how much before the first row to be judged by is left out, in units of the moments
    """

    task: Task
    strategy: Strategy
    n_folds: int | None = None
    seed: int = 42
    gap: float = 0.0


def cut_folds(request: FoldRequest, y: pd.Series, keys: Keys, n_features: int) -> list[Fold]:
    """Return (fit, validation) positions per fold: as many as asked for, else five, or one where rows are many.

    Parameters
    ----------
    n_features : the width of the encoded table, which with the rows says what a fit costs
    request, y, keys : see `build_folds`
    """
    if request.n_folds is None and len(y) * n_features > MAX_CELLS:
        return build_folds(request, y, keys, HOLDOUT)[-1:]
    return build_folds(request, y, keys, request.n_folds or USUAL)


def build_folds(request: FoldRequest, y: pd.Series, keys: Keys, n_folds: int) -> list[Fold]:
    """Return (fit, validation) positions per fold, fewer where the rows do not make as many.

    Parameters
    ----------
    request : how to cut
    y : (n_rows,) target of the train rows
    keys : (n_rows,) rows with the same key stay together; with `time` their moments as floats, NaN where unknown
    n_folds : how many at most

    Raises
    ------
    PipelineError : the rows are too few for that many folds, or all have one key, or no moment comes after another with
        the gap between them, or fewer than two folds hold two classes to fit on and, for two classes, to be judged by
    """
    is_timed = request.strategy == "time"
    needed = n_folds + 1 if is_timed else n_folds
    if len(y) < needed:
        raise PipelineError(f"--folds {n_folds} needs at least {needed} train rows, got {len(y)}. Lower --folds.")
    folds = list(
        _cut_by_time(np.asarray(keys, dtype=np.float64), n_folds, request.gap)
        if is_timed
        else _cut_by_key(request, y, keys, n_folds)
    )
    return folds if request.task == "regression" else _keep_judging(request, y, folds)


def explain_folds(request: FoldRequest, folds: Sequence[Fold]) -> str | None:
    """Return why there are fewer folds than asked for, None where there are as many."""
    if request.n_folds is None or len(folds) >= request.n_folds:
        return None
    things = {"time": "moments", "group": "groups"}.get(request.strategy, "different rows")
    classes = {"binary": " of each class", "multiclass": " of a class"}.get(request.task, "")
    return f"--folds {request.n_folds} lowered to {len(folds)}: the train rows hold too few {things}{classes}"


def _cut_by_key(request: FoldRequest, y: pd.Series, keys: Keys, n_folds: int) -> Iterator[Fold]:
    """Cut the distinct keys, each with the target of its first row, and give its other rows to the same fold."""
    places, distinct = pd.factorize(keys, use_na_sentinel=False)  # no group is a group too, as in the split
    if len(distinct) < 2:
        one = "one group" if request.strategy == "group" else "one row, over and over"
        raise PipelineError(f"the train rows hold {one}, and folds need two. Choose another --split.")
    first = y[~pd.Series(places).duplicated().to_numpy()]
    counts = first.value_counts()
    if request.task == "regression" or request.strategy == "group" or counts.max() < 2:
        splitter = KFold(min(n_folds, len(distinct)), shuffle=True, random_state=request.seed)
    else:  # two classes are judged in every fold, one of many may be missing
        most = counts.min() if request.task == "binary" else counts.max()
        splitter = StratifiedKFold(max(2, min(n_folds, int(most))), shuffle=True, random_state=request.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        cuts = [chosen for _, chosen in splitter.split(first, first)]
    for chosen in cuts:
        is_judged = np.bincount(chosen, minlength=len(distinct)).astype(bool)[places]
        yield np.flatnonzero(~is_judged), np.flatnonzero(is_judged)


def _cut_by_time(moments: NDArray[np.float64], n_folds: int, gap: float) -> Iterator[Fold]:
    """Cut between moments into blocks of about as many rows: a fold is fitted on what comes before its block."""
    known = np.sort(moments[~np.isnan(moments)])
    starts = np.unique(known[len(known) * np.arange(1, n_folds + 1) // (n_folds + 1)]) if len(known) else known
    starts = starts[starts - gap > known[:1]]  # before the others no row is left to fit on
    if not len(starts):
        raise PipelineError(
            "the train rows hold too few moments to be judged by later ones. Choose another --split or a smaller --gap."
        )
    for start, end in zip(starts, [*starts[1:], np.inf]):
        is_judged = (moments >= start) & (moments < end)
        yield np.flatnonzero(~(moments >= start - gap)), np.flatnonzero(is_judged)  # rows without a moment train


def _keep_judging(request: FoldRequest, y: pd.Series, folds: Sequence[Fold]) -> list[Fold]:
    """Return the folds that tell candidates apart, without rows of a class that nobody could learn there."""
    codes, classes = pd.factorize(y)
    needed = 2 if request.task == "binary" else 1
    usable = []
    for fit, check in folds:
        counts = np.bincount(codes[fit], minlength=len(classes))
        judged = check[counts[codes[check]] > 0]
        if np.count_nonzero(counts) > 1 and len(np.unique(codes[judged])) >= needed:
            usable.append((fit, judged))
    if len(usable) < 2:
        raise PipelineError(
            f"--split {request.strategy} leaves {len(usable)} of {len(folds)} folds with two classes, and comparing "
            "needs two such folds. Choose another --split, or other --folds."
        )
    return usable
