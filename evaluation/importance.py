"""What the answers depend on: each raw column shuffled, and the most important ones set to one value after another."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.inspection import permutation_importance
from sklearn.metrics import root_mean_squared_error

from data_ingestion.encoder import group_encoded_columns
from data_ingestion.schema import Column
from evaluation.metrics import to_arrays
from models.artifact import SavedModel, predict_table
from models.calibration import mean_log_loss

MAX_ROWS = 2_000  # more move the means by less than their error bars
MIN_ROWS = 200
MAX_ANSWERS = 50_000  # for all columns together: many columns are shuffled on fewer rows
N_REPEATS = 5
DEPENDENCE_ROWS = 200
DEPENDENCE_FEATURES = 6
N_GRID = 15
Point = float | int | bool | str | None  # a value of a raw column, as JSON holds it


def rank_features(model: SavedModel, X: pd.DataFrame, y: pd.Series, seed: int) -> list[dict[str, object]]:
    """Return column, mean and std of how much worse the model gets without each raw column, the worst first.

    Parameters
    ----------
    model : the model under test
    X : (n_rows, n_features) raw test rows, of which a sample is taken
    y : (n_rows,) their target
    seed : decides the sample and how columns are permuted
    """
    n_rows = min(MAX_ROWS, max(MIN_ROWS, MAX_ANSWERS // (N_REPEATS * X.shape[1])))
    rows = np.random.default_rng(seed).permutation(len(X))[:n_rows]
    means, spreads = measure_importance(model, X.iloc[rows].reset_index(drop=True), y.iloc[rows], seed)
    return [
        {"column": str(X.columns[place]), "mean": float(means[place]), "std": float(spreads[place])}
        for place in np.argsort(-means, kind="stable")
    ]


def measure_importance(
    model: SavedModel, X: pd.DataFrame, y: pd.Series, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much worse the model gets when one raw column is shuffled (Breiman, 2001): (n_features,) mean and std.

    In units of RMSE or log loss. Shuffling a raw column and encoding it again gives the rows of its encoded columns in
    that order. So the rows are encoded once, and what is shuffled is, for each feature, which row its encoded columns
    are taken from.
    """
    encoder, estimator = model.pipeline.named_steps["encoder"], model.pipeline.named_steps["estimator"]
    encoded = encoder.transform(X)
    values, groups = encoded.to_numpy(), group_encoded_columns(encoder)
    columns = list(groups.values())
    origins = np.tile(np.arange(len(X))[:, np.newaxis], len(groups))

    def score(_: object, rows: NDArray[np.intp], y: pd.Series) -> float:
        shuffled = values.copy()
        for feature in np.flatnonzero((rows != origins).any(axis=0)):
            places = columns[feature]
            shuffled[:, places] = values[rows[:, [feature]], places]
        answers = predict_table(estimator, pd.DataFrame(shuffled, columns=encoded.columns), model.contract)
        y_true, y_pred = to_arrays(y, answers, model.manifest.classes)
        if model.manifest.task == "regression":
            return -float(root_mean_squared_error(y_true, y_pred))
        return -mean_log_loss(y_true.astype(np.intp), y_pred.astype(np.float64))

    found = permutation_importance(estimator, origins, y, scoring=score, n_repeats=N_REPEATS, random_state=seed)
    order = [list(groups).index(str(name)) for name in X.columns]
    return found.importances_mean[order], found.importances_std[order]


def trace_features(model: SavedModel, X: pd.DataFrame, columns: Sequence[str], seed: int) -> list[dict[str, object]]:
    """Return the partial dependence of the answers on some raw columns (Friedman, Annals of Statistics 29, 2001).

    For each column the mean answer over the rows, when all of them get one value of the grid after another. The answer
    is the prediction, the probability of the second of two classes, or of that of several which changes most.

    Parameters
    ----------
    model : the model under test
    X : (n_rows, n_features) raw test rows, of which a sample is taken
    columns : which, at most DEPENDENCE_FEATURES are looked at
    seed : decides the sample
    """
    rows = np.random.default_rng(seed).permutation(len(X))[:DEPENDENCE_ROWS]
    sample = X.iloc[np.sort(rows)]
    traced: list[dict[str, object]] = []
    for name in columns[:DEPENDENCE_FEATURES]:
        column = model.contract.features[name]
        values, shares = build_grid(X[name], column)
        if len(values) > 1:
            means = _average_answers(model, sample, name, values)
            classes = model.manifest.classes
            place = 1 if model.manifest.task == "binary" else int(np.ptp(means, axis=0).argmax())
            found: dict[str, object] = {
                "column": name,
                "kind": column.kind,
                "grid": [_to_point(value) for value in values],
            }
            found |= {"mean": means[:, place].tolist(), "shares": shares}
            traced.append(found if classes is None else found | {"class": classes[place]})
    return traced


def build_grid(values: pd.Series, column: Column) -> tuple[list[object], list[float] | None]:
    """Return the values to try, ascending or the most frequent first, and for single values their share of the rows.

    Parameters
    ----------
    values : (n_rows,) of one raw column
    column : its part of the contract

    Returns
    -------
    Quantiles of numbers and dates of many values, whose share is None; else up to N_GRID of the values themselves,
    None for missing among the categories.
    """
    if column.kind in ("number", "integer", "datetime"):
        known = values.dropna().sort_values().reset_index(drop=True)
        distinct = known.drop_duplicates()
        if len(distinct) > N_GRID:
            places = np.unique(np.linspace(0, len(known) - 1, N_GRID + 2).round().astype(int)[1:-1])
            return list(known.iloc[places].drop_duplicates()), None
        counts = known.value_counts().sort_index()
    else:
        counts = values.value_counts(dropna=False).sort_values(ascending=False, kind="stable")[:N_GRID]
    grid = [None if pd.isna(value) else value for value in counts.index]
    return grid, [float(count) / len(values) for count in counts]


def _average_answers(
    model: SavedModel, sample: pd.DataFrame, name: str, values: Sequence[object]
) -> NDArray[np.float64]:
    """Return (n_values, n_outputs) mean answers, all asked for at once."""
    tiled = sample.iloc[np.tile(np.arange(len(sample)), len(values))].reset_index(drop=True)
    column = pd.Series(list(values), dtype=object if None in values else sample[name].dtype)
    tiled[name] = column.repeat(len(sample)).reset_index(drop=True)
    answers = predict_table(model.pipeline, tiled, model.contract)
    found = (
        np.array(answers.values, dtype=float)[:, np.newaxis] if answers.probabilities is None else answers.probabilities
    )
    return np.asarray(found.reshape(len(values), len(sample), -1).mean(axis=1))


def _to_point(value: object) -> Point:
    """Return a value as JSON holds it."""
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[return-value]
