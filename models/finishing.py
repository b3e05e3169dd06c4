"""From the chosen candidates to the estimator that is saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from models.calibration import Calibration, ThresholdMetric, choose_calibration, list_folds, tune_threshold
from models.candidates import Problem
from models.ensemble import WeightedClassifier, WeightedRegressor, average, calibrate_probabilities
from models.fold_work import FoldTable
from models.search import FINISHING_S, Plan
from models.selection import Choice, Trial
from models.uncertainty import Uncertainty, learn_intervals, learn_sets
from models.workers import Workers


@dataclass(frozen=True)
class Answering:
    """What follows from the answers for rows that the members were not fitted on.

    Parameters
    ----------
    calibration : of a classifier's probabilities, None leaves them as they are
    threshold : for two classes, the probability of the second from which on it is the answer; None takes the likelier
    uncertainty : how far an answer may be off
    """

    calibration: Calibration | None
    threshold: float | None
    uncertainty: Uncertainty


def learn_answering(
    choice: Choice,
    table: FoldTable,
    problem: Problem,
    coverage: float,
    metric: ThresholdMetric | None,
    costs: Mapping[str, float] | None,
) -> Answering:
    """Return calibration, threshold and uncertainty of a choice, from its out-of-fold answers.

    Parameters
    ----------
    choice : who answers
    table, problem : what they were judged on
    coverage : the share of rows whose target an interval, or a set of classes, is to hold
    metric, costs : what the threshold is for, see `calibration.tune_threshold`
    """
    rows = np.concatenate([check for _, check in table.folds])
    answers = average([weight for _, weight in choice.members], [_answers(trial) for trial, _ in choice.members])
    y = np.asarray(table.y)[rows]
    if not problem.is_classification:
        return Answering(None, None, learn_intervals(y, answers, coverage))
    places = np.searchsorted(np.array(problem.classes), y)
    folds = list_folds([check for _, check in table.folds], len(table.y))[rows]
    calibration = choose_calibration(places, answers, folds)
    if calibration is not None:
        answers = calibrate_probabilities(answers, *calibration)
    threshold = tune_threshold(places, answers[:, 1], metric, costs) if len(problem.classes) == 2 else None
    return Answering(calibration, threshold, learn_sets(places, answers, coverage))


def _answers(trial: Trial) -> NDArray[np.float64]:
    assert trial.answers is not None, "only candidates fitted on all folds are chosen"
    return trial.answers


def fit_members(choice: Choice, problem: Problem, plan: Plan, workers: Workers) -> tuple[list[BaseEstimator], bool]:
    """Return the members fitted on all train rows, and True; or as the search left them, and False.

    They stay as they are only where the search held a few rows back once, and there is no time to fit again.
    """
    trials = [trial for trial, _ in choice.members]
    needed = sum(trial.fit_s for trial in trials) / min(workers.n_workers, len(trials)) + FINISHING_S
    kept = [trial.path for trial in trials if trial.path is not None]
    if len(kept) == len(trials) and plan.time_left < needed:
        return [joblib.load(path) for path in kept], False
    if len(trials) == 1:
        return [workers.fit_whole_here(trials[0].candidate, problem, trials[0].iterations)], True
    futures = [workers.fit_whole(trial.candidate, problem, trial.iterations) for trial in trials]
    return [future.result() for future in futures], True


def assemble_model(
    members: Sequence[BaseEstimator], choice: Choice, problem: Problem, answering: Answering
) -> BaseEstimator:
    """Return the estimator: the member itself where it is alone and answers as it is."""
    weights = [weight for _, weight in choice.members]
    if problem.is_classification:
        is_plain = answering.calibration is None and answering.threshold is None
        if len(members) == 1 and is_plain:
            return members[0]
        return WeightedClassifier(
            list(members), weights, list(problem.classes), answering.threshold, answering.calibration
        )
    return members[0] if len(members) == 1 else WeightedRegressor(list(members), weights)
