"""Which candidates answer together, and with what weight: ensemble selection, in bags where rows are few."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.candidates import FEW_ROWS, GREATER_IS_BETTER, Metric
from models.ensemble import average
from models.selection import MIN_GAIN, Choice, Limits, Trial, to_error

ROUNDS = 25  # of the greedy selection: weights are multiples of 1/25
MAX_MEMBERS = 12  # of the best candidates, those that the selection looks at
PATIENCE = 6  # rounds without a gain that end the selection
BAGS = 20
SURE = 2.0  # standard errors by which several have to be worse than one to be left
MIN_WEIGHT = 0.05  # of a member out of the bags, to be worth its time

Floats = NDArray[np.float64]
Weights = list[tuple[Trial, float]]


@dataclass(frozen=True)
class _Judge:
    """What tells whether candidates do well together.

    Parameters
    ----------
    score : (n_folds,) of the metric, for answers as `Trial.answers`
    metric : says whether more is better
    limits : what all together may cost
    """

    score: Callable[[Floats], Floats]
    metric: Metric
    limits: Limits

    def find_error(self, answers: Floats) -> float:
        """Return the mean error over the folds."""
        return to_error(self.metric, float(np.nanmean(self.score(answers))))

    def is_gain(self, alone: Trial, weights: Weights) -> bool:
        """Return whether several score better over the folds than one, by more than chance and a little."""
        gain, chance, before = self._compare(alone, weights)
        return gain > max(chance, MIN_GAIN * before)

    def is_loss(self, alone: Trial, weights: Weights) -> bool:
        """Return whether several surely score worse over the folds than one."""
        gain, chance, before = self._compare(alone, weights)
        return gain < -max(SURE * chance, MIN_GAIN * before)

    def _compare(self, alone: Trial, weights: Weights) -> tuple[float, float, float]:
        """Return the mean gain over the folds, its standard error, and the error of the one alone."""
        before, after = self.score(_answers(alone)), self.score(_average(weights))
        gains = (after - before) * (1 if GREATER_IS_BETTER[self.metric] else -1)
        gains = gains[~np.isnan(gains)]
        chance = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
        return float(gains.mean()), chance, to_error(self.metric, float(np.nanmean(before)))


def choose_ensemble(
    ranked: Sequence[Trial],
    single: Choice,
    score: Callable[[Floats], Floats],
    metric: Metric,
    limits: Limits,
    n_rows: int,
    seed: int,
) -> Choice:
    """Return several candidates with weights where they do better together, else the single one.

    Parameters
    ----------
    ranked : best first
    single : the best one alone
    score : (n_folds,) of the metric, for answers as `Trial.answers`
    metric : says whether more is better
    limits : what all together may cost
    n_rows : train rows; of few the selection is made in bags
    seed : for what is in the bags

    Returns
    -------
    Of few rows, several from bags unless they are surely worse: the best one alone owes its score to chance too. Others
    only where the mean gain over the folds is larger than its standard error: weights are chosen on the rows that show
    the gain, and with enough candidates chance alone shows one.
    """
    first = single.members[0][0]
    if first.candidate.family == "dummy":
        return single
    judge = _Judge(score, metric, limits)
    others = [t for t in ranked if t is not first and t.candidate.family != "dummy" and limits.allow([t])]
    pool = [t for t in [first, *others] if t.answers is not None][:MAX_MEMBERS]
    if n_rows < FEW_ROWS:
        weights = weigh_bags(pool, judge, seed)
        if len(weights) > 1 and not judge.is_loss(first, weights):
            return _as_choice(weights, judge)
    weights = _weigh(select_greedily(pool, judge, []))
    if len(weights) > 1 and judge.is_gain(first, weights):
        return _as_choice(weights, judge)
    return single


def select_greedily(pool: Sequence[Trial], judge: _Judge, beside: Sequence[Trial]) -> list[Trial]:
    """Return members, those with more weight several times.

    Greedy selection with replacement (Caruana et al., ICML 2004): begin with the first, then add, time after time, the
    one with which the mean of all answers is best.

    Parameters
    ----------
    pool : best first
    judge : says what is best
    beside : candidates that count for the limits too
    """
    chosen = [pool[0]]
    total = _answers(pool[0])
    best: tuple[float, list[Trial]] = (judge.find_error(total), chosen)
    for size in range(2, ROUNDS + 1):
        options = [trial for trial in pool if judge.limits.allow(_distinct([*beside, *chosen, trial]))]
        errors = [judge.find_error((total + _answers(trial)) / size) for trial in options]
        place = int(np.argmin(errors))  # there is one option at least: the first
        chosen = [*chosen, options[place]]
        total = total + _answers(options[place])
        if errors[place] < best[0]:
            best = errors[place], chosen
        elif size - len(best[1]) >= PATIENCE:
            break
    return best[1]


def weigh_bags(pool: Sequence[Trial], judge: _Judge, seed: int) -> Weights:
    """Return members with the means of their weights over selections, each from another half of the candidates.

    Bagged ensemble selection (Caruana et al., ICML 2004, section 2.3): of few rows, one hard one decides which
    candidate looks best, and the selection from all of them makes much of it.
    """
    rng = np.random.default_rng(seed)
    weights: dict[int, float] = {}
    members: list[Trial] = []
    for _ in range(BAGS):
        places = np.sort(rng.permutation(len(pool))[: (len(pool) + 1) // 2])
        bag = [pool[place] for place in places if judge.limits.allow(_distinct([*members, pool[place]]))]
        if not bag:
            continue
        for trial, weight in _weigh(select_greedily(bag, judge, members)):
            weights[id(trial)] = weights.get(id(trial), 0.0) + weight
            members = _distinct([*members, trial])
    total = sum(weights.values())
    kept = [(trial, weights[id(trial)]) for trial in members if weights[id(trial)] >= MIN_WEIGHT * total]
    whole = sum(weight for _, weight in kept)
    return [(trial, weight / whole) for trial, weight in kept]


def _as_choice(weights: Weights, judge: _Judge) -> Choice:
    return Choice("ensemble", tuple(weights), float(np.nanmean(judge.score(_average(weights)))))


def _weigh(members: Sequence[Trial]) -> Weights:
    """Return each member with its share."""
    return [(trial, sum(m is trial for m in members) / len(members)) for trial in _distinct(members)]


def _average(weights: Weights) -> Floats:
    return average([weight for _, weight in weights], [_answers(trial) for trial, _ in weights])


def _answers(trial: Trial) -> Floats:
    assert trial.answers is not None, "only candidates fitted on all folds are in the pool"
    return trial.answers


def _distinct(trials: Sequence[Trial]) -> list[Trial]:
    return list({id(trial): trial for trial in trials}.values())
