"""The report of an evaluation: figures drawn through scikit-learn's displays, and one self-contained page."""

import base64
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.inspection import permutation_importance
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    PredictionErrorDisplay,
    RocCurveDisplay,
    root_mean_squared_error,
)

from data_ingestion.encoder import group_encoded_columns
from data_ingestion.schema import Contract
from evaluation.metrics import mean_log_loss, tabulate_scores, to_arrays
from models.artifact import Manifest, SavedModel, predict_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATES = Path(__file__).parent / "templates"
MAX_IMPORTANCE_ROWS = 2_000  # more rows move the means by less than their error bars
MAX_CLASSES_DRAWN = 20
COLOR, ACCENT = "#2a6f97", "#c8553d"


def draw_figures(model: SavedModel, X: pd.DataFrame, y: pd.Series, seed: int) -> dict[str, bytes]:
    """Return the figures as PNG by name.

    Parameters
    ----------
    model : the model under test
    X : (n_rows, n_features) raw test rows
    y : (n_rows,) their target
    seed : decides which rows are drawn and how columns are permuted
    """
    y = y.reset_index(drop=True)
    # Names come from the data: a $ begins no formula, and a letter that the font lacks is drawn as a box.
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        if model.manifest.task == "regression":
            figures = _draw_regression(model, X, y, seed)
        else:
            figures = _draw_classification(model, X, y)
        return figures | {"permutation_importance": _draw_importance(model, X, y, seed)}


def _new_axes(width: float = 5.2, height: float = 4.2) -> tuple[Figure, "Axes"]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    return figure, figure.add_subplot()


def _to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_regression(model: SavedModel, X: pd.DataFrame, y: pd.Series, seed: int) -> dict[str, bytes]:
    y_pred = np.array(predict_table(model.pipeline, X, model.contract).values)
    figures = {}
    for name, kind in (("actual_vs_predicted", "actual_vs_predicted"), ("residuals", "residual_vs_predicted")):
        figure, axes = _new_axes()
        PredictionErrorDisplay.from_predictions(
            y,
            y_pred,
            kind=kind,
            subsample=1_000,
            random_state=seed,
            ax=axes,
            scatter_kwargs={"color": COLOR, "alpha": 0.5, "s": 12},
            line_kwargs={"color": ACCENT},
        )
        figures[name] = _to_png(figure)
    return figures


def _draw_classification(model: SavedModel, X: pd.DataFrame, y: pd.Series) -> dict[str, bytes]:
    answers = predict_table(model.pipeline, X, model.contract)
    classes = model.manifest.classes or []
    figures = {}
    if len(classes) <= MAX_CLASSES_DRAWN:
        figure, axes = _new_axes(max(4.5, 0.5 * len(classes)), max(4.0, 0.45 * len(classes)))
        ConfusionMatrixDisplay.from_predictions(
            y, answers.values, ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45
        )
        figures["confusion_matrix"] = _to_png(figure)
    if model.manifest.task == "binary" and answers.probabilities is not None and y.nunique() == len(classes):
        for name, display in (("roc_curve", RocCurveDisplay), ("precision_recall_curve", PrecisionRecallDisplay)):
            figure, axes = _new_axes()
            display.from_predictions(
                y,
                answers.probabilities[:, 1],
                pos_label=classes[1],
                ax=axes,
                plot_chance_level=True,
                curve_kwargs={"color": COLOR},
                name="model",
            )
            figures[name] = _to_png(figure)
    return figures


def measure_importance(
    model: SavedModel, X: pd.DataFrame, y: pd.Series, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much worse the model gets when one raw column is shuffled (Breiman, 2001): (n_features,) mean and std.

    Shuffling a raw column and encoding it again gives the rows of its encoded columns in that order. So the rows are
    encoded once, and what is shuffled is, for each feature, which row its encoded columns are taken from.
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
        return -mean_log_loss(y_true, y_pred)

    found = permutation_importance(estimator, origins, y, scoring=score, n_repeats=5, random_state=seed)
    order = [list(groups).index(str(name)) for name in X.columns]
    return found.importances_mean[order], found.importances_std[order]


def _draw_importance(model: SavedModel, X: pd.DataFrame, y: pd.Series, seed: int) -> bytes:
    """Draw the features that matter most."""
    rows = np.random.default_rng(seed).permutation(len(X))[:MAX_IMPORTANCE_ROWS]
    means, spreads = measure_importance(model, X.iloc[rows].reset_index(drop=True), y.iloc[rows], seed)
    order = np.argsort(means)[-15:]
    figure, axes = _new_axes(6.0, 1.2 + 0.3 * len(order))
    names = [str(X.columns[place]) for place in order]
    axes.barh(names, means[order], xerr=spreads[order], color=COLOR, ecolor=ACCENT)
    axes.set_xlabel(f"{'RMSE' if model.manifest.task == 'regression' else 'log loss'} rises by, when shuffled")
    return _to_png(figure)


def build_report(
    manifest: Manifest, contract: Contract, metrics: Mapping[str, object], figures: Mapping[str, bytes]
) -> str:
    """Return the page: it shows without a network, and texts from the data are escaped.

    Parameters
    ----------
    manifest, contract : of the model under test
    metrics : metrics.json with its section "test"
    figures : PNG by name
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    test: Mapping[str, object] = metrics["test"]  # type: ignore[assignment]
    return environment.get_template("report.html").render(
        manifest=manifest,
        metrics=metrics,
        n_features=len(contract.features),
        scores=tabulate_scores(test),
        confidence=f"{test['confidence']:.0%}",
        figures={name.replace("_", " "): base64.b64encode(content).decode() for name, content in figures.items()},
    )
