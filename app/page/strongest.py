"""Which features move the answers most: as evaluation measured it, or else found by asking the model."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ValidationError

from app.model_host import Served
from data_ingestion.schema import Column, read_bounds
from models.artifact import Row, Value

METRICS = "metrics.json"
PROBES = 5  # values of a feature that the model is asked about
NOISE = 1e-6  # of the strongest: what moves the answers by less only moves the last digits of a sum
MAX_CELLS = 4_000_000  # asking takes a row per feature and probe, each of all features: a second at most


class Importance(BaseModel):
    """What the error grows by when a column is shuffled."""

    column: str
    mean: float


class MeasuredTest(BaseModel):
    """The part of a test that is read here."""

    importance: list[Importance]


class Metrics(BaseModel):
    """The part of `metrics.json` that is read here."""

    model_version: str
    test: MeasuredTest


def rank_features(served: Served, rows: Sequence[Row], folder: Path) -> list[str]:
    """Return the features that matter, the strongest first.

    Parameters
    ----------
    served : the model
    rows : real ones, to start from where the model has to be asked
    folder : may hold what evaluation measured of this model
    """
    measured = read_importance(folder / METRICS, served.version)
    strengths = measure_spreads(served, rows) if measured is None else measured
    known = {name: strength for name, strength in strengths.items() if name in served.contract.features}
    least = NOISE * max([0.0, *known.values()])
    return sorted((name for name in known if known[name] > least), key=lambda name: -known[name])


def read_importance(path: Path, version: str) -> dict[str, float] | None:
    """Return the importance of each column; None when there is no evaluation of this very model."""
    try:
        metrics = Metrics.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):  # a model need not have been evaluated
        return None
    if metrics.model_version != version:
        return None
    return {item.column: item.mean for item in metrics.test.importance}


def measure_spreads(served: Served, rows: Sequence[Row]) -> dict[str, float]:
    """Return how far apart the answers are, on average over the rows, when one feature alone is varied."""
    features = served.contract.features
    probes = {name: list_probes(column) for name, column in features.items()}
    per_row = sum(map(len, probes.values()))
    rows = rows[: min(3, MAX_CELLS // max(1, per_row * len(features)))]
    asked = [{**row, name: value} for name, values in probes.items() for value in values for row in rows]
    if not asked:
        return {}
    found = served.model.predict(asked)
    answers = np.asarray(found.values if found.probabilities is None else found.probabilities, dtype=np.float64)
    answers = np.nan_to_num(answers).reshape(per_row, len(rows), -1)  # probes of all features, rows, classes or one
    strengths, start = {}, 0
    for name, values in probes.items():
        if values:
            strengths[name] = float(np.ptp(answers[start : start + len(values)], axis=0).max(axis=1).mean())
        start += len(values)
    return strengths


def list_probes(column: Column) -> list[Value]:
    """Return values that span what the contract expects of a column; none where it expects nothing."""
    if column.kind == "boolean":
        return [False, True]
    if column.kind == "category":
        known = column.categories or []
        return list(known[:: max(1, -(-len(known) // PROBES))])
    low, high = read_bounds(column)
    if low is None or high is None:
        return []
    steps = [step / (PROBES - 1) for step in range(PROBES)]
    if isinstance(low, datetime) or isinstance(high, datetime):
        return [low + (high - low) * step for step in steps]  # type: ignore[operator]
    values = [low + (high - low) * step for step in steps]
    return [round(value) for value in values] if column.kind == "integer" else list(values)
