"""Whether predictions mean what they say: probabilities against shares, predictions against means, and coverage."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from data_ingestion.schema import Task
from models.uncertainty import Intervals, Uncertainty

N_BINS = 10


def measure_calibration(
    task: Task, y_true: NDArray[np.generic], y_pred: NDArray[np.generic], confidence: float
) -> dict[str, object]:
    """Return the section "calibration": what rows with like predictions came to.

    Bins hold equally many rows, so that each says something. Two classes: the probability of the second one. More: of
    the likeliest one (top-label calibration; Guo et al., ICML 2017). A regression: the predictions.

    Parameters
    ----------
    task, y_true, y_pred : see metrics.compute_scores
    confidence : of the bins' intervals
    """
    if task == "regression":
        return {"bins": _bin_means(y_true.astype(np.float64), y_pred.astype(np.float64), confidence)}
    places = y_true.astype(np.intp)
    if task == "binary":
        given, observed = y_pred[:, 1], places == 1
    else:
        given, observed = y_pred.max(axis=1), y_pred.argmax(axis=1) == places
    bins = _bin_shares(given.astype(np.float64), observed, confidence)
    gaps = [abs(float(b["mean_predicted"]) - float(b["share_observed"])) * float(b["rows"]) for b in bins]  # type: ignore[arg-type]
    return {
        "bins": bins,
        "expected_calibration_error": sum(gaps) / len(places),
        "brier_score": score_brier(task, places, y_pred),
    }


def score_brier(task: Task, places: NDArray[np.intp], probabilities: NDArray[np.generic]) -> float:
    """Return the mean squared error of the probabilities: of the second class, or summed over all (Brier, 1950)."""
    errors = (probabilities.astype(np.float64) - np.eye(probabilities.shape[1])[places]) ** 2
    return float(errors[:, 1].mean() if task == "binary" else errors.sum(axis=1).mean())


def cut_bins(values: NDArray[np.float64], n_bins: int = N_BINS) -> NDArray[np.intp]:
    """Return (n_rows,) the bin of each value, from 0: equally many rows a bin, equal values in one."""
    edges = np.quantile(values, np.arange(1, n_bins) / n_bins)
    return np.unique(np.searchsorted(np.unique(edges), values, side="right"), return_inverse=True)[1]


def _bin_shares(given: NDArray[np.float64], observed: NDArray[np.bool_], confidence: float) -> list[dict[str, object]]:
    bins: list[dict[str, object]] = []
    places = cut_bins(given)
    for place in range(places.max() + 1):
        inside = places == place
        hits, rows = int(observed[inside].sum()), int(inside.sum())
        bins.append(
            {
                "low": float(given[inside].min()),
                "high": float(given[inside].max()),
                "rows": rows,
                "mean_predicted": float(given[inside].mean()),
                "share_observed": hits / rows,
                "interval": find_share_interval(hits, rows, confidence),
            }
        )
    return bins


def _bin_means(y_true: NDArray[np.float64], y_pred: NDArray[np.float64], confidence: float) -> list[dict[str, object]]:
    bins: list[dict[str, object]] = []
    places = cut_bins(y_pred)
    for place in range(places.max() + 1):
        found, given = y_true[places == place], y_pred[places == place]
        rows, mean = len(found), float(found.mean())
        half = float(stats.t.ppf((1 + confidence) / 2, rows - 1) * stats.sem(found)) if rows > 1 else None
        bins.append(
            {
                "low": float(given.min()),
                "high": float(given.max()),
                "rows": rows,
                "mean_predicted": float(given.mean()),
                "mean_observed": mean,
                "interval": None if half is None else [mean - half, mean + half],
            }
        )
    return bins


def find_share_interval(hits: int, rows: int, confidence: float) -> list[float]:
    """Return [low, high] of a share (Wilson's score interval; JASA 22, 1927)."""
    z = float(stats.norm.ppf((1 + confidence) / 2))
    centre = (hits + z**2 / 2) / (rows + z**2)
    half = z / (rows + z**2) * (hits * (rows - hits) / rows + z**2 / 4) ** 0.5
    return [max(centre - half, 0.0), min(centre + half, 1.0)]


def measure_coverage(
    uncertainty: Uncertainty | None, y_true: NDArray[np.generic], y_pred: ArrayLike, confidence: float
) -> dict[str, object] | None:
    """Return in how many rows the truth lay where the model said it would, and how much room it left itself.

    Parameters
    ----------
    uncertainty : the model's own intervals, or sets of classes; None when it has none
    y_true : (n_rows,) target, or positions among the classes
    y_pred : (n_rows,) predictions, or (n_rows, n_classes) probabilities of the classes that the model knows
    confidence : of the interval around the share, which is not the confidence that the model promises
    """
    if uncertainty is None:
        return None
    if isinstance(uncertainty, Intervals):
        low, high = uncertainty.bounds(y_pred).T
        covered = (low <= y_true) & (y_true <= high)
        room = {"mean_width": float((high - low).mean())}
    else:
        sets, places = uncertainty.contains(y_pred), y_true.astype(np.intp)
        is_known = places < sets.shape[1]
        covered = is_known & sets[np.arange(len(places)), np.where(is_known, places, 0)]
        room = {"mean_size": float(sets.sum(axis=1).mean())}
    hits, rows = int(covered.sum()), len(covered)
    share = {"covered": hits / rows, "interval": find_share_interval(hits, rows, confidence)}
    return {"confidence": uncertainty.confidence, **share, **room}
