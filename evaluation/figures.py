"""The figures of a report: errors, curves and confusions of the test rows, and the numbers of metrics.json drawn.

Each is an SVG file in one style (figure_style.py). What scikit-learn has a Display for is drawn through it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    PredictionErrorDisplay,
    RocCurveDisplay,
    confusion_matrix,
)

from data_ingestion.schema import Contract
from evaluation.figure_style import ACCENT, INK, LINE, MUTED, cut, format_axes, make_room, new_axes, to_svg, use_style
from evaluation.formatting import format_point
from evaluation.sections import CalibrationBin, Importance, PartialDependence, Threshold, read_test
from models.artifact import Manifest, Predictions, SavedModel, predict_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_POINTS = 1_000  # more hide each other
MAX_CLASSES_DRAWN = 30
MAX_CLASSES_COUNTED = 12  # with more, the counts do not fit into their cells
MAX_FEATURES_DRAWN = 15
MAX_LEVELS_DRAWN = 16


def draw_figures(
    model: SavedModel, features: pd.DataFrame, y: pd.Series, metrics: Mapping[str, object]
) -> dict[str, bytes]:
    """Return the figures as SVG files by file name.

    Parameters
    ----------
    model : the model under test
    features : (n_rows, n_features) raw test rows
    y : (n_rows,) their target
    metrics : metrics.json with its section "test"; what it lacks is not drawn
    """
    answers = predict_table(model.pipeline, features, model.contract)
    with use_style():
        drawn = {
            **dict(draw_answers(model.manifest, y.reset_index(drop=True), answers)),
            **dict(draw_numbers(model.contract, metrics)),
        }
        return {f"{name}.svg": to_svg(figure) for name, figure in drawn.items()}


def draw_answers(manifest: Manifest, y: pd.Series, answers: Predictions) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that compare every answer with the truth, by name."""
    if answers.probabilities is None:
        y_pred = np.array(answers.values, dtype=float)
        yield "actual_vs_predicted", draw_errors(y, y_pred, "actual_vs_predicted")
        yield "residuals", draw_errors(y, y_pred, "residual_vs_predicted")
        return
    classes = manifest.classes or []
    if manifest.task == "binary" and y.nunique() == len(classes):
        yield "roc_curve", draw_curve(RocCurveDisplay, y, answers.probabilities[:, 1], classes[1])
        yield "precision_recall_curve", draw_curve(PrecisionRecallDisplay, y, answers.probabilities[:, 1], classes[1])
    labels = [*classes, *sorted(set(y) - set(classes))]
    if len(labels) <= MAX_CLASSES_DRAWN:
        yield "confusion_matrix", draw_confusions(y, answers.values, labels)


def draw_numbers(contract: Contract, metrics: Mapping[str, object]) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that show numbers of metrics.json, by name."""
    test = read_test(metrics)
    calibration = test.get("calibration")
    if calibration and calibration.get("bins"):
        yield "calibration", draw_calibration(calibration["bins"], contract.is_classification)
    thresholds = test.get("thresholds")
    if thresholds:
        yield "thresholds", draw_thresholds(thresholds)
    importance = test.get("importance")
    if importance:
        yield "permutation_importance", draw_importance(importance, contract.is_classification)
    dependences = test.get("partial_dependence") or []
    bounds = find_bounds(dependences)
    for place, dependence in enumerate(dependences, start=1):
        yield f"partial_dependence_{place}", draw_dependence(dependence, bounds)


def draw_errors(y: pd.Series, y_pred: "NDArray[np.float64]", kind: str) -> Figure:
    """Draw true values, or what is missing to them, over predictions."""
    figure, axes = new_axes()
    PredictionErrorDisplay.from_predictions(
        y,
        y_pred,
        kind=kind,
        subsample=MAX_POINTS,
        random_state=0,
        ax=axes,
        scatter_kwargs={"color": ACCENT, "alpha": 0.35, "s": 11, "linewidths": 0},
        line_kwargs={"color": INK, "linewidth": 1, "linestyle": "--"},
    )
    axes.set_aspect("auto")
    axes.set(xlabel="predicted", ylabel="true" if kind == "actual_vs_predicted" else "true less predicted")
    format_axes(axes, "x", "y")
    return figure


def draw_curve(
    display: type[RocCurveDisplay] | type[PrecisionRecallDisplay],
    y: pd.Series,
    positive: "NDArray[np.float64]",
    label: int | str,
) -> Figure:
    """Draw a curve of all thresholds, and what guessing comes to."""
    figure, axes = new_axes()
    display.from_predictions(
        y,
        positive,
        pos_label=label,
        ax=axes,
        name="model",
        plot_chance_level=True,
        curve_kwargs={"color": ACCENT},
        chance_level_kw={"color": MUTED, "linewidth": 1, "label": "guessing"},
    )
    axes.set_aspect("auto")
    if display is RocCurveDisplay:
        axes.set(xlabel="false positives, share of the negatives", ylabel="true positives, share found")
    else:
        axes.set(xlabel="recall: share of the positives found", ylabel="precision: share of the finds")
    axes.legend(loc="best")
    return figure


def draw_confusions(y: pd.Series, answers: Sequence[object], labels: Sequence[int | str]) -> Figure:
    """Draw true classes down and answers across; the darker, the larger the share of its true class.

    Cells are shapes, not pixels of an image, so that they take the colours of the page.
    """
    counts = confusion_matrix(y, answers, labels=labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.4 + (0.48 if len(labels) <= MAX_CLASSES_COUNTED else 0.26) * len(labels)
    figure, axes = new_axes(max(side, 4.4), max(side - 0.4, 3.4))
    names = [cut(label, 18) for label in labels]
    make_room(figure, names, below=True)
    display = ConfusionMatrixDisplay(counts, display_labels=names)
    display.plot(
        ax=axes,
        colorbar=False,
        include_values=len(labels) <= MAX_CLASSES_COUNTED,
        xticks_rotation="vertical" if max(map(len, names)) > 3 else "horizontal",
        values_format=",d",
        text_kw={"color": INK, "fontsize": 9},
    )
    display.im_.remove()
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            corners = [column - 0.47, column + 0.47]
            axes.fill_between(corners, row - 0.47, row + 0.47, color=ACCENT, alpha=0.08 + 0.5 * share, linewidth=0)
    axes.set(xlabel="answer", ylabel="true", xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


def draw_calibration(bins: Sequence[CalibrationBin], is_classification: bool) -> Figure:
    """Draw what came of rows with like predictions over those predictions, with intervals."""
    figure, axes = new_axes()
    predicted = np.array([found["mean_predicted"] for found in bins])
    observed = np.array([found["share_observed" if is_classification else "mean_observed"] for found in bins])
    if is_classification:
        CalibrationDisplay(observed, predicted, predicted).plot(ax=axes, name="model", color=ACCENT, markersize=4)
        for line in axes.lines:
            if line.get_label() == "Perfectly calibrated":
                line.set(color=MUTED, linewidth=1, linestyle="--")
        axes.set(aspect="auto")
        legend = axes.get_legend()
        if legend is not None:
            legend.remove()
    else:
        ends = [min(predicted.min(), observed.min()), max(predicted.max(), observed.max())]
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--")
        axes.plot(predicted, observed, color=ACCENT, marker="o", markersize=4)
        format_axes(axes, "x", "y")
    for place, found in zip(predicted, bins, strict=True):
        bounds = found.get("interval")
        if bounds:
            axes.plot([place, place], bounds, color=ACCENT, alpha=0.5, linewidth=1.4)
    axes.set(
        xlabel="mean predicted probability" if is_classification else "mean prediction",
        ylabel="share observed" if is_classification else "mean of the true values",
    )
    return figure


def draw_thresholds(thresholds: Sequence[Threshold]) -> Figure:
    """Draw precision, recall and F1 over the threshold, the model's own marked."""
    figure, axes = new_axes()
    places = [row["threshold"] for row in thresholds]
    styles = {"precision": (MUTED, "--"), "recall": (MUTED, ":"), "f1": (ACCENT, "-")}
    for name, (color, dash) in styles.items():
        values = [np.nan if row.get(name) is None else row[name] for row in thresholds]  # type: ignore[literal-required]
        axes.plot(places, values, color=color, linestyle=dash, label="F1" if name == "f1" else name)
    for row in thresholds:
        if row.get("chosen"):
            axes.axvline(row["threshold"], color=INK, linewidth=1)
    axes.set(xlabel="answer yes from this probability on", ylim=(0, 1.02))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return figure


def draw_importance(importance: Sequence[Importance], is_classification: bool) -> Figure:
    """Draw the features that matter most, with two standard deviations to each side."""
    top = sorted(importance, key=lambda row: row["mean"])[-MAX_FEATURES_DRAWN:]
    figure, axes = new_axes(4.6, 0.9 + 0.27 * len(top))
    means, spreads = [row["mean"] for row in top], [2 * row["std"] for row in top]
    axes.barh(range(len(top)), means, height=0.62, color=ACCENT, alpha=0.45)
    axes.errorbar(means, range(len(top)), xerr=spreads, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    names = [cut(row["column"], 24) for row in top]
    make_room(figure, names)
    axes.set_yticks(range(len(top)), names, color=INK)
    axes.set_xlabel(f"{'log loss' if is_classification else 'RMSE'} rises by")
    axes.axvline(0, color=LINE, linewidth=0.8)
    format_axes(axes, "x")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(y=0.02)
    return figure


def find_bounds(dependences: Sequence[PartialDependence]) -> tuple[float, float] | None:
    """Return the range of predictions that all partial dependences share, so that they can be compared."""
    values = [np.ravel(np.array(found["mean"], dtype=float)) for found in dependences if found.get("mean")]
    if not values:
        return None
    low, high = float(np.concatenate(values).min()), float(np.concatenate(values).max())
    margin = (high - low or abs(high) or 1) * 0.06
    return low - margin, high + margin


def draw_dependence(dependence: PartialDependence, bounds: tuple[float, float] | None) -> Figure:
    """Draw the mean prediction over the values of one column: a line, or for categories a point each."""
    grid, means = dependence["grid"], dependence["mean"]
    is_date = dependence.get("kind") == "datetime"
    if is_date or all(isinstance(value, float | int) and not isinstance(value, bool) for value in grid):
        figure, axes = new_axes(3.4, 2.5)
        axes.plot(np.array(grid, dtype="datetime64[s]" if is_date else float), means, color=ACCENT)
        axes.set_ylim(bounds)
        format_axes(axes, "y")
        if is_date:
            shown = [grid[0], grid[len(grid) // 2], grid[-1]]
            axes.set_xticks(np.array(shown, dtype="datetime64[s]"), [format_point(value)[:10] for value in shown])
        else:
            format_axes(axes, "x", ticks=4)
        axes.set_xlabel(cut(dependence["column"], 30))
    else:
        kept = np.argsort(means)[::-1][:MAX_LEVELS_DRAWN]
        figure, axes = new_axes(3.4, max(2.5, 0.8 + 0.24 * len(kept)))
        places = range(len(kept))
        axes.hlines(places, bounds[0] if bounds else 0, [means[place] for place in kept], color=LINE, linewidth=1)
        axes.plot([means[place] for place in kept], places, color=ACCENT, marker="o", linestyle="none")
        names = [cut("missing" if grid[place] is None else grid[place], 20) for place in kept]
        make_room(figure, names)
        axes.set_yticks(places, names)
        axes.set_xlim(bounds)
        axes.set_ylabel(cut(dependence["column"], 24))
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        format_axes(axes, "x", ticks=4)
    return figure
