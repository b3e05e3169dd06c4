"""Target means learnt anew for each fold of the cross-validation, so that no fold knows the targets it is judged by.

processed.parquet holds, for the train rows, target means cross-fitted over all of them. Whoever is judged on a part of
the train rows must not have learnt from means that this part's targets went into.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from data_ingestion.encoder import group_encoded_columns
from data_ingestion.learnt import find_levels
from data_ingestion.schema import Contract
from data_ingestion.target_means import cross_fit_means
from models.folds import Fold

N_INNER = 5


@dataclass(frozen=True)
class FoldMeans:
    """The target means of one fold.

    Parameters
    ----------
    columns : the places of the encoded columns that they replace
    fit : (n_fit_rows, n_columns) for the rows to fit on, cross-fitted among them
    check : (n_check_rows, n_columns) for the rows to be judged by, from all rows to fit on
    """

    columns: list[int]
    fit: NDArray[np.float64]
    check: NDArray[np.float64]


def encode_target_means(
    encoder: Pipeline, raw: pa.Table, contract: Contract, y: pd.Series, folds: Sequence[Fold], seed: int
) -> list[FoldMeans | None]:
    """Return the target means of each fold, None where the encoder makes none.

    Parameters
    ----------
    encoder : the fitted encoder
    raw : the typed train rows
    contract : says what the target is
    y : (n_rows,) target
    folds : positions among the train rows
    seed : decides which rows are cross-fitted together
    """
    encode = encoder.named_steps["encode"]
    names = [str(name) for step, _, features in encode.transformers_ if step == "mean" for name in features]
    groups = group_encoded_columns(encoder)
    specs = {str(spec["name"]): spec for spec in encoder.named_steps["cast"].columns}
    classes = sorted(y.unique()) if contract.is_classification else []
    wanted = classes[1:] if len(classes) == 2 else classes
    labels = [(y == label).to_numpy(dtype=np.float64) for label in wanted] or [y.to_numpy(dtype=np.float64)]
    return encode_folds({name: raw[name] for name in names}, specs, groups, labels, folds, seed)


def encode_folds(
    raw: Mapping[str, pa.ChunkedArray],
    specs: Mapping[str, Mapping[str, object]],
    places: Mapping[str, Sequence[int]],
    labels: Sequence[NDArray[np.float64]],
    folds: Sequence[Fold],
    seed: int,
) -> list[FoldMeans | None]:
    """Return the target means of each fold, None where no column is one.

    Parameters
    ----------
    raw : the categories of the train rows, by column
    specs : what the encoder knows of these columns, see `encoder.TypeCaster`
    places : for each of these columns the places of its encoded columns, one for each of the labels
    labels : the target, or for each class (for two classes the second alone) 1 where a row is of it
    folds : positions among the train rows
    seed : decides which rows are cross-fitted together
    """
    if not raw:
        return [None] * len(folds)
    levels = {name: find_levels(values, specs[name]) for name, values in raw.items()}
    n_rows = len(labels[0])
    inner = (np.random.default_rng(seed).permutation(n_rows) % N_INNER).astype(np.uint8)
    encoded: list[FoldMeans | None] = []
    for fit, check in folds:
        columns, of_fit, of_check = [], [], []
        for name, found in levels.items():
            for label, column in zip(labels, places[name], strict=True):
                means = cross_fit_means(found.places[fit], label[fit], found.n_levels, inner[fit], N_INNER)
                columns.append(column)
                of_fit.append(means.table[inner[fit], found.places[fit]])
                of_check.append(means.table[N_INNER, found.places[check]])
        encoded.append(FoldMeans(columns, np.column_stack(of_fit), np.column_stack(of_check)))
    return encoded
