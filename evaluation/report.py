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
from sklearn.inspection import permutation_importance
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    PredictionErrorDisplay,
    RocCurveDisplay,
)

from data_ingestion.schema import Contract
from evaluation.metrics import tabulate_scores
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


def _draw_importance(model: SavedModel, X: pd.DataFrame, y: pd.Series, seed: int) -> bytes:
    """Draw how much worse the model gets when one raw column is shuffled (Breiman, 2001)."""
    rows = np.random.default_rng(seed).permutation(len(X))[:MAX_IMPORTANCE_ROWS]
    X, y = X.iloc[rows].reset_index(drop=True), y.iloc[rows]
    scoring = "neg_log_loss" if _can_score_probabilities(model, y) else "accuracy"
    if model.manifest.task == "regression":
        scoring = "neg_root_mean_squared_error"
    found = permutation_importance(model.pipeline, X, y, scoring=scoring, n_repeats=5, random_state=seed)
    order = np.argsort(found.importances_mean)[-15:]
    figure, axes = _new_axes(6.0, 1.2 + 0.3 * len(order))
    names = [str(X.columns[place]) for place in order]
    axes.barh(names, found.importances_mean[order], xerr=found.importances_std[order], color=COLOR, ecolor=ACCENT)
    axes.set_xlabel(f"how much worse {scoring.removeprefix('neg_').replace('_', ' ')} gets when the column is shuffled")
    return _to_png(figure)


def _can_score_probabilities(model: SavedModel, y: pd.Series) -> bool:
    """Return whether the rows hold exactly the classes the model knows, as scikit-learn's log loss wants it."""
    return sorted(set(y)) == sorted(model.manifest.classes or [])


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
