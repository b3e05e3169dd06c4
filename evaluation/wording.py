"""What the figures of a report say, in words: the answer to "how good is it really?", and a finding per figure."""

from collections.abc import Callable, Mapping

from evaluation.figure_style import cut
from evaluation.formatting import format_number, format_percent, format_point
from evaluation.metrics import TITLES, format_score
from evaluation.sections import Calibration, PartialDependence, Test, read_scores, read_test
from models.artifact import Manifest


def answer_question(manifest: Manifest, metrics: Mapping[str, object]) -> list[str]:
    """Return one to three sentences for a reader who knows no statistics."""
    test = read_test(metrics)
    scores, dummy = read_scores(test), read_scores(test.get("dummy"))
    rows = f"{test['rows']:,} rows it had never seen"
    if manifest.task == "regression":
        between = _between(test, "mae", format_number)
        sentences = [
            f"On {rows}, the model is off by {format_number(scores['mae'])} on average{between}; "
            f"always answering the mean would be off by {format_number(dummy['mae'])}."
        ]
        if 0 < scores.get("r2", 0) <= 1:
            explained = format_percent(scores["r2"])
            sentences.append(f"It explains {explained} of the variance of {quote(manifest.target)} among them.")
    else:
        between = _between(test, "accuracy", format_percent)
        sentences = [
            f"Of {rows}, the model answers {format_percent(scores['accuracy'])} right{between}; "
            f"always answering the commonest class would be right for {format_percent(dummy['accuracy'])}."
        ]
        sentences += _describe_classes(manifest, test, scores)
    return sentences + _doubt(metrics, test, dummy)


def _between(test: Test, name: str, form: Callable[[float], str]) -> str:
    bounds = test["intervals"].get(name)
    if bounds is None:
        return ""
    return f" ({form(bounds[0])} to {form(bounds[1])} with {format_percent(test['confidence'])} confidence)"


def _describe_classes(manifest: Manifest, test: Test, scores: Mapping[str, float]) -> list[str]:
    classes = manifest.classes or []
    if manifest.task == "binary" and "roc_auc" in scores:
        return [
            f"Of two rows, one {quote(classes[1])} and one {quote(classes[0])}, it gives the {quote(classes[1])} the "
            f"higher probability {format_percent(scores['roc_auc'])} of the time; guessing would 50%."
        ]
    if manifest.task == "multiclass":
        share = format_percent(scores["balanced_accuracy"])
        return [f"Class by class, it finds {share} of the rows of a class on average."]
    return []


def _doubt(metrics: Mapping[str, object], test: Test, dummy: Mapping[str, float]) -> list[str]:
    """Return a warning when the figure that candidates were compared by could be a dummy's."""
    train = metrics["train"]
    name = str(train["metric"]) if isinstance(train, Mapping) else ""
    bounds = test["intervals"].get(name)
    if bounds is None or name not in dummy or not bounds[0] <= dummy[name] <= bounds[1]:
        return []
    return ["With so few rows, the difference to a model that ignores its input may be chance."]


def describe_figure(name: str, manifest: Manifest, metrics: Mapping[str, object]) -> tuple[str, str]:
    """Return the title of a figure and what it shows, which is its caption and its text for those who cannot see it.

    Parameters
    ----------
    name : a name that `draw_figures` gives, without its ending
    manifest, metrics : of the model under test
    """
    test = read_test(metrics)
    if name.startswith("partial_dependence_"):
        found = (test.get("partial_dependence") or [])[int(name.rpartition("_")[2]) - 1]
        return found["column"], describe_dependence(manifest, found)
    scores, positive = read_scores(test), quote((manifest.classes or [""])[-1])
    shown = {key: format_score(value) for key, value in scores.items()}
    texts = {
        "actual_vs_predicted": (
            "True values over predictions",
            f"On the dashed line the two would be the same. R² is {shown.get('r2')}; on the line it would be 1.",
        ),
        "residuals": (
            "What the predictions miss",
            f"Points above the dashed line were predicted too low; the mean miss is {shown.get('mae')}. "
            "A slope or a funnel would be something the model has not learnt.",
        ),
        "roc_curve": (
            "ROC curve",
            f"The area under the curve is {shown.get('roc_auc')}; guessing, the dashed line, has 0.5.",
        ),
        "precision_recall_curve": (
            "Precision and recall",
            f"The average precision for {positive} is {shown.get('average_precision')}; "
            "guessing has the share of its rows.",
        ),
        "confusion_matrix": (
            "Which classes are taken for which",
            f"{format_percent(scores.get('accuracy'))} of the rows stand on the diagonal: answer and truth agree. "
            "The darker a cell, the larger its share of the true class.",
        ),
        "calibration": (
            "Can predictions be taken at their word?",
            describe_calibration(test.get("calibration")),
        ),
        "thresholds": ("From which probability on?", describe_threshold(manifest, test)),
        "permutation_importance": ("Which columns matter", describe_importance(manifest, test)),
    }
    return texts.get(name, (name.replace("_", " "), ""))


def describe_calibration(calibration: Calibration | None) -> str:
    """Return how far predictions are from what was observed."""
    if not calibration:
        return ""
    error = calibration.get("expected_calibration_error")
    if error is not None:
        return (
            f"Predicted probabilities differ from the shares observed by {100 * error:.1f} percentage points on "
            "average. On the dashed line they would be the same."
        )
    gaps = [(abs(found["mean_observed"] - found["mean_predicted"]), found) for found in calibration["bins"]]
    worst = max(gaps, key=lambda gap: gap[0])[1]
    predicted, observed = (format_number(worst[key]) for key in ("mean_predicted", "mean_observed"))
    return (
        "Rows with like predictions, and the mean of their true values with its interval. The farthest apart are "
        f"predictions of about {predicted}, where the truth is {observed} on average."
    )


def describe_threshold(manifest: Manifest, test: Test) -> str:
    """Return what the model's own threshold comes to."""
    chosen = next((row for row in test.get("thresholds") or [] if row.get("chosen")), None)
    if chosen is None:
        return "A higher threshold gives fewer false alarms and misses more."
    found, right = format_percent(chosen["recall"]), format_percent(chosen["precision"])
    return (
        f"The model answers {quote((manifest.classes or [''])[-1])} from {format_number(chosen['threshold'])} on, the "
        f"upright line: it then finds {found} of its rows, and {right} of its finds are right."
    )


def describe_importance(manifest: Manifest, test: Test) -> str:
    """Return which column matters most, and by how much."""
    rows = test.get("importance") or []
    if not rows:
        return ""
    top = max(rows, key=lambda row: row["mean"])
    figure = "RMSE" if manifest.task == "regression" else "log loss"
    return (
        f"Shuffling {quote(top['column'])} costs the most: {figure} rises by {format_number(top['mean'])}. "
        "Thin lines span two standard deviations to each side; columns that share their information share the cost."
    )


def describe_dependence(manifest: Manifest, dependence: PartialDependence) -> str:
    """Return between what the mean prediction moves, and where."""
    pairs = list(zip(dependence["mean"], dependence["grid"], strict=True))
    low, high = min(pairs, key=lambda pair: pair[0]), max(pairs, key=lambda pair: pair[0])
    of_class = f" for {quote(dependence['class'])}" if manifest.task == "multiclass" and "class" in dependence else ""
    return (
        f"From {format_number(low[0])} at {format_point(low[1])} to {format_number(high[0])} at "
        f"{format_point(high[1])}{of_class}."
    )


def title_metric(name: str) -> str:
    """Return a metric as readers know it."""
    return TITLES.get(name, name.replace("_", " "))


def quote(name: object) -> str:
    """Return a name as it stands in a sentence: in quotes, cut where it is long."""
    return f"“{cut(name, 40)}”"
