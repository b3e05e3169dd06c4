"""From one JSON object to its answer. Batches are answered in columns: see batches/."""

import math
import os
from typing import Any

import msgspec

from app.errors import ApiError, ErrorList
from app.metrics.counters import Metrics
from app.model_host import Served
from models.artifact import Row

JsonAnswer = dict[str, Any]  # as in schemas.py, without what is not there

_encoder = msgspec.json.Encoder()


def predict_one(served: Served, value: object, metrics: Metrics) -> JsonAnswer:
    """Return the answer for one JSON object, see `schemas.Prediction`; it is counted in `metrics`.

    Raises
    ------
    ApiError : 422 with every field at fault
    """
    errors = ErrorList()
    read = served.reader.read(value, errors)
    answer = None if read is None else answer_row(served, *read)
    if answer is None:
        if read is not None:
            errors.add("no_finite_answer", "the model has no finite answer for these values")
        metrics.count_rows(0, 1)
        raise ApiError(422, "The row was refused; see errors.", errors)
    metrics.count_rows(1, 0)
    if answer["warnings"]:
        metrics.count_warnings({served.reader.meanings[text]: 1 for text in answer["warnings"]})
    return answer


def answer_row(served: Served, row: Row, warnings: list[str]) -> JsonAnswer | None:
    """Return the answer for a good row; None where the model finds no finite number."""
    value, shares = served.model.predict_row(row)
    if not (math.isfinite(value) if shares is None else all(map(math.isfinite, shares))):  # type: ignore[arg-type]
        return None
    answer: JsonAnswer = {
        "prediction": value,
        "model_version": served.version,
        "prediction_id": os.urandom(16).hex(),
        "warnings": warnings,
    }
    if shares is not None:
        answer["probabilities"] = dict(zip(served.labels, shares, strict=True))
    served.add_uncertainty(answer, shares)
    return answer


def to_json(value: object) -> bytes:
    """Return a value as JSON; floats are written so that they come back as they are."""
    return _encoder.encode(value)
