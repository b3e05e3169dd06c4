"""What is known of the tried candidates, which of them is best alone, and what they may cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from models.candidates import GREATER_IS_BETTER, Candidate, Metric, iterate_settings

MIN_GAIN = 0.001  # relative: what several models must win over the best one to be worth their time
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """A candidate, and how it did on rows it was not fitted on.

    Parameters
    ----------
    candidate : what was tried
    scores : (n_folds,) of the metric; NaN where a fold leaves it undefined. Fewer than there are folds where the first
        showed that the candidate is out of the running
    answers : (n_judged_rows,) values or (n_judged_rows, n_classes) probabilities, fold after fold; None where it was
        not fitted on all folds
    fit_s : seconds to fit one fold
    predict_us : microseconds to answer a row among many
    iterations : how often boosting adds trees when it is fitted on all rows; 0 for others
    n_trees : how many trees there will be when it is fitted on all rows
    size_bytes : of the pickle then
    path : where the estimator is kept, when there is one fold only
    """

    candidate: Candidate
    scores: Floats
    answers: Floats | None
    fit_s: float
    predict_us: float
    iterations: int
    n_trees: int
    size_bytes: int
    path: str | None = None

    @property
    def mean(self) -> float:
        """The mean over the folds."""
        return float(np.nanmean(self.scores))

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean over the folds, None for a single one."""
        known = np.count_nonzero(~np.isnan(self.scores))
        return float(np.nanstd(self.scores, ddof=1) / np.sqrt(known)) if known > 1 else None


@dataclass(frozen=True)
class Limits:
    """What the model may cost.

    Parameters
    ----------
    max_trees : trees of all members together
    max_latency_us : microseconds to answer an encoded row among many; None sets no limit
    max_size_mb : megabytes of the pickle; None sets no limit
    encoder_mb : the encoder's part of it
    """

    max_trees: int
    max_latency_us: float | None = None
    max_size_mb: float | None = None
    encoder_mb: float = 0.0

    def allow(self, trials: Sequence[Trial]) -> bool:
        """Return whether these candidates together keep to the limits."""
        latency, size = sum(t.predict_us for t in trials), self.encoder_mb + sum(t.size_bytes for t in trials) / 1e6
        return (
            sum(t.n_trees for t in trials) <= self.max_trees
            and (self.max_latency_us is None or latency <= self.max_latency_us)
            and (self.max_size_mb is None or size <= self.max_size_mb)
        )


@dataclass(frozen=True)
class Choice:
    """Candidates that answer together.

    Parameters
    ----------
    name : as metrics.json shows it
    members : with their weights, which add up to 1
    score : of the metric, on the rows that the members were not fitted on
    """

    name: str
    members: tuple[tuple[Trial, float], ...]
    score: float

    @property
    def n_trees(self) -> int:
        """Trees of all members together."""
        return sum(trial.n_trees for trial, _ in self.members)

    @property
    def predict_us(self) -> float:
        """Microseconds to answer a row among many."""
        return sum(trial.predict_us for trial, _ in self.members)


def to_error(metric: Metric, score: float) -> float:
    """Return a score as something that is better the smaller it is."""
    return 1 - score if GREATER_IS_BETTER[metric] else score


def rank_trials(trials: Sequence[Trial], metric: Metric) -> list[Trial]:
    """Return the trials, best first; those not fitted on all folds after the others.

    Of equals the one with fewer trees is better, and of those the one that came first.
    """
    return sorted(trials, key=lambda t: (t.answers is None, to_error(metric, t.mean), t.n_trees))


def choose_single(ranked: Sequence[Trial], metric: Metric, limits: Limits) -> Choice | None:
    """Return the best candidate that keeps to the limits, None when only the dummy does.

    Of those as good within a thousandth, the fastest.

    Speed goes by the number of trees, which is the same on every machine; with an estimator of the user's own among
    them by the time that was measured.

    Parameters
    ----------
    ranked : best first
    """
    allowed = [trial for trial in ranked if trial.answers is not None and limits.allow([trial])]
    if all(trial.candidate.family == "dummy" for trial in allowed):
        return None
    best = to_error(metric, allowed[0].mean)
    ties = [trial for trial in allowed if to_error(metric, trial.mean) <= best * (1 + MIN_GAIN)]
    has_own = any(trial.candidate.family == "own" for trial in ties)  # who knows what it is made of
    chosen = min(ties, key=lambda trial: trial.predict_us if has_own else trial.n_trees)
    return Choice(chosen.candidate.name, ((chosen, 1.0),), chosen.mean)


def iterate_leaderboard(ranked: Sequence[Trial], choice: Choice, n_folds: int) -> Iterator[dict[str, object]]:
    """Yield the ranking as plain values for metrics.json."""
    weights = {id(trial): weight for trial, weight in choice.members}
    for trial in ranked:
        folds = [None if np.isnan(score) else float(score) for score in trial.scores]
        error = trial.standard_error
        known = np.count_nonzero(~np.isnan(trial.scores))
        half = None if error is None else float(student.ppf((1 + CONFIDENCE) / 2, known - 1)) * error
        yield {
            "name": trial.candidate.name,
            "mean": trial.mean,
            "standard_error": error,
            "interval": None if half is None else [trial.mean - half, trial.mean + half],
            "folds": folds,
            "dropped": len(trial.scores) < n_folds,
            "weight": weights.get(id(trial), 0.0),
            "n_trees": trial.n_trees,
            "size_bytes": trial.size_bytes,
            "fit_s": round(trial.fit_s, 3),
            "predict_us": round(trial.predict_us, 2),
            "settings": dict(iterate_settings(trial.candidate)),
        }
