"""How far chance could move a figure: the rows drawn again and again, for all models the same draws."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluation.metrics import Counts, Draws, Scorer

CELLS = 1 << 17  # counts at a time: a megabyte, which stays in a core's cache


def draw_counts(n_rows: int, resamples: int, seed: int) -> Iterator[Counts]:
    """Yield (some resamples, n_rows) counts: how often each row stands in each resample of as many rows."""
    rng = np.random.default_rng(seed)
    size = max(1, CELLS // n_rows)
    for start in range(0, resamples, size):
        n_drawn = min(size, resamples - start)
        rows = rng.integers(0, n_rows, (n_drawn, n_rows))
        rows += n_rows * np.arange(n_drawn)[:, np.newaxis]
        counts = np.bincount(rows.ravel(), minlength=n_drawn * n_rows)
        yield counts.reshape(n_drawn, n_rows).astype(np.float64)


def draw_scores(
    scorers: Mapping[str, Scorer],
    n_rows: int,
    resamples: int,
    seed: int,
    report: Callable[[int], object] = lambda done: None,
) -> dict[str, Draws]:
    """Return (resamples,) of every figure of every model, all on the same resamples, so that differences are paired.

    Parameters
    ----------
    scorers : by the name of the model, see metrics.build_scorer
    n_rows : of the test rows
    resamples : how many times the rows are drawn again, with replacement
    seed : decides the draws
    report : called with the number of finished resamples
    """
    parts: dict[str, list[Draws]] = {name: [] for name in scorers}
    done = 0
    for counts in draw_counts(n_rows, resamples, seed):
        for name, score in scorers.items():
            parts[name].append(score(counts))
        done += len(counts)
        report(done)
    return {
        name: {figure: np.concatenate([part[figure] for part in drawn]) for figure in drawn[0]}
        for name, drawn in parts.items()
    }


def find_interval(draws: NDArray[np.float64], confidence: float, n_rows: int) -> list[float] | None:
    """Return [low, high] of a figure, None where fewer than half of the resamples define it.

    Percentiles of the resamples (Efron and Tibshirani, 1993, chapter 13), a little further out than the tails where
    rows are few: plain percentiles are too narrow by what a t quantile is wider than a normal one, and by
    sqrt(n / (n - 1)) (the expanded percentile interval; Hesterberg, The American Statistician 69, 2015, section 3.1).

    Parameters
    ----------
    draws : (resamples,) NaN where undefined
    confidence : the share of intervals that hold the true figure
    n_rows : how many rows were drawn from
    """
    known = draws[~np.isnan(draws)]
    if not len(known) or 2 * len(known) < len(draws):
        return None
    tail = (1 - confidence) / 2
    if n_rows > 1:
        tail = float(stats.norm.cdf(np.sqrt(n_rows / (n_rows - 1)) * stats.t.ppf(tail, n_rows - 1)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return [float(low), float(high)]


def find_intervals(draws: Draws, confidence: float, n_rows: int) -> dict[str, list[float] | None]:
    """Return [low, high] per figure; see `find_interval`."""
    return {name: find_interval(values, confidence, n_rows) for name, values in draws.items()}
