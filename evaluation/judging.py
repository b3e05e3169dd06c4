"""The section "test" of metrics.json, and the verdict: every part of the evaluation that is computed, put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation import gate
from evaluation.bootstrap import draw_scores, find_intervals
from evaluation.calibration import measure_calibration, measure_coverage
from evaluation.champion import Champion
from evaluation.gate import Check, Judged, Verdict
from evaluation.importance import rank_features, trace_features
from evaluation.metrics import (
    RANKINGS,
    build_scorer,
    compute_scores,
    find_log_losses,
    place_answers,
    predict_dummy,
    to_arrays,
)
from evaluation.parameters import EvaluateParams
from evaluation.slices import compare_slices, find_worst_slices
from evaluation.slicing import Slicing, build_slicings
from evaluation.test_data import TestData
from evaluation.thresholds import tabulate_thresholds
from models.artifact import Manifest, Predictions, SavedModel, predict_table


@dataclass(frozen=True)
class Answered:
    """One model's answers as arrays.

    Parameters
    ----------
    y_true : (n_rows,) numbers, or positions among the classes
    y_pred : (n_rows,) numbers, or (n_rows, n_classes) probabilities
    places : (n_rows,) positions of the answered classes; None for a regression
    """

    y_true: NDArray[np.generic]
    y_pred: NDArray[np.generic]
    places: NDArray[np.intp] | None

    @property
    def losses(self) -> NDArray[np.float64]:
        """(n_rows,) squared errors, or log losses."""
        if self.places is None:
            return np.asarray((self.y_true - self.y_pred) ** 2, dtype=np.float64)  # type: ignore[operator]
        return find_log_losses(self.y_true, self.y_pred)


def judge_model(
    model: SavedModel,
    data: TestData,
    answers: Predictions,
    champion: Champion | None,
    params: EvaluateParams,
    report: Callable[[int], object],
) -> tuple[dict[str, object], Verdict]:
    """Return the section "test" without lineage and timing, and the verdict.

    Parameters
    ----------
    model : the model under test
    data : what to judge it by
    answers : the model's for the test rows
    champion : the model that it would replace; None when there is none
    params : of the stage
    report : called with the number of finished resamples
    """
    task, n_rows = model.manifest.task, len(data.y)
    predictions = {"model": answers, "dummy": predict_dummy(task, data.y_learnt, n_rows)}
    if champion is not None and champion.answers is not None:
        predictions["champion"] = champion.answers
    answered = {name: _to_answered(data, found, model.manifest) for name, found in predictions.items()}
    judged = judge_answers(answered, model.manifest, params, report)
    intervals = find_intervals(judged["model"].draws, params.confidence, n_rows)
    counts = {str(label): int((data.y == label).sum()) for label in model.manifest.classes or []}
    if counts and min(counts.values()) < gate.FEW_OF_CLASS:
        intervals |= dict.fromkeys(RANKINGS)  # resamples of a few rows would say that they are sure
    slicings = build_slicings(data.raw, model.contract, params.min_slice_rows)
    few = gate.check_classes(counts) if counts else None
    checks = [
        *([few] if few is not None else []),
        *check_models(judged, model.manifest, champion, n_rows, params),
        *_check_slices(answered, slicings, params),
        *gate.check_limits(task, judged["model"].scores, intervals, params.limits or {}),
    ]
    test: dict[str, object] = {
        "rows": n_rows,
        "confidence": params.confidence,
        **judged["model"].scores,
        "intervals": intervals,
        "dummy": judged["dummy"].scores,
        "champion": _describe_champion(champion, judged),
        "train": score_train_rows(model, data),
        "slices": _describe_slices(answered["model"], slicings, params),
        **describe_answers(model.manifest, data, answers, answered["model"], params.confidence),
        **explain_answers(model, data, params.seed),
        "leaks": data.leaks,
        "profile": data.profile,
        "parity": {"rows": n_rows, "different": 0},
    }
    return test, gate.decide(checks)


def _to_answered(data: TestData, found: Predictions, manifest: Manifest) -> Answered:
    y_true, y_pred = to_arrays(data.y, found, manifest.classes)
    return Answered(y_true, y_pred, place_answers(data.y, found, manifest.classes))


def judge_answers(
    answered: Mapping[str, Answered], manifest: Manifest, params: EvaluateParams, report: Callable[[int], object]
) -> dict[str, Judged]:
    """Return the figures of each model, on the rows and on the same resamples of them."""
    arrays = {name: (found.y_true, found.y_pred, found.places) for name, found in answered.items()}
    scorers = {name: build_scorer(manifest.task, *found) for name, found in arrays.items()}
    n_rows = len(answered["model"].y_true)
    draws = draw_scores(scorers, n_rows, params.resamples, params.seed, report)
    return {name: Judged(compute_scores(manifest.task, *found), draws[name]) for name, found in arrays.items()}


def check_models(
    judged: Mapping[str, Judged], manifest: Manifest, champion: Champion | None, n_rows: int, params: EvaluateParams
) -> list[Check]:
    """Return what the comparisons with the dummy and with the champion came to."""
    task, confidence = manifest.task, params.confidence
    checks = [gate.check_dummy(task, judged["model"], judged["dummy"], confidence, n_rows)]
    if champion is None:
        checks.append(Check("passed", "there is no champion yet to compare with"))
    elif champion.check is not None:
        checks.append(champion.check)
    else:
        checks.append(
            gate.check_champion(task, judged["model"], judged["champion"], confidence, n_rows, params.tolerance)
        )
    return checks


def _check_slices(answered: Mapping[str, Answered], slicings: list[Slicing], params: EvaluateParams) -> list[Check]:
    """Return whether no slice got worse, where there are slices and a champion to hold them against."""
    if "champion" not in answered or not slicings:
        return []
    own, its, allowed = answered["model"], answered["champion"].losses, params.max_slice_excess
    found = compare_slices(slicings, own.losses, its, _name_loss(own), allowed)
    return [gate.check_slices(*found, allowed, 1 - params.confidence)]


def _describe_slices(own: Answered, slicings: list[Slicing], params: EvaluateParams) -> dict[str, object]:
    worst = find_worst_slices(slicings, own.losses, _name_loss(own), params.confidence)
    return {"allowed_excess": params.max_slice_excess, "min_rows": params.min_slice_rows, **worst}


def _name_loss(own: Answered) -> str:
    return "rmse" if own.places is None else "log_loss"


def _describe_champion(champion: Champion | None, judged: Mapping[str, Judged]) -> dict[str, object] | None:
    if champion is None or "champion" not in judged:
        return None
    return {"model_version": champion.version, **judged["champion"].scores}


def score_train_rows(model: SavedModel, data: TestData) -> dict[str, object]:
    """Return the figures on a sample of the train rows: what they are better than the others is learnt by heart."""
    answers = predict_table(model.pipeline.named_steps["estimator"], data.X_train, model.contract)
    classes = model.manifest.classes
    arrays = (*to_arrays(data.y_train, answers, classes), place_answers(data.y_train, answers, classes))
    return {"rows": len(data.y_train), **compute_scores(model.manifest.task, *arrays)}


def describe_answers(
    manifest: Manifest, data: TestData, answers: Predictions, own: Answered, confidence: float
) -> dict[str, object]:
    """Return the sections on what the answers are worth: calibration, thresholds and coverage."""
    known = own.y_pred if answers.probabilities is None else answers.probabilities
    thresholds = None
    if manifest.task == "binary" and answers.probabilities is not None:
        thresholds = tabulate_thresholds(own.y_true == 1, answers.probabilities[:, 1], manifest.threshold)
    return {
        "calibration": measure_calibration(manifest.task, own.y_true, own.y_pred, confidence),
        "thresholds": thresholds,
        "coverage": measure_coverage(manifest.uncertainty, own.y_true, known, confidence),
    }


def explain_answers(model: SavedModel, data: TestData, seed: int) -> dict[str, object]:
    """Return the sections on what the answers depend on."""
    importance = rank_features(model, data.features, data.y, seed)
    columns = [str(row["column"]) for row in importance]
    return {"importance": importance, "partial_dependence": trace_features(model, data.features, columns, seed)}
