"""From JSON values to answers. Runs in a worker thread where it may take long: nothing here touches the event loop."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from app.bodies import refuse
from app.errors import ApiError, ErrorList
from app.metrics import Metrics
from app.model_host import Served
from models.artifact import Row

SLICE_ROWS = 1_024  # of a batch, answered together: enough for numpy, and other requests get their turn in between

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
    if read is not None:
        row, warnings = read
        answer = next(iterate_answers(served, [row], [warnings], make_ids(1)))
        if answer is not None:
            count_answers(metrics, served, [warnings], 0)
            return {"prediction": answer.pop("prediction"), "model_version": served.version} | answer
        add_no_answer(errors)
    count_answers(metrics, served, [], 1)
    raise ApiError(422, "The row was refused; see errors.", errors)


def predict_batch(served: Served, values: object, max_rows: int, metrics: Metrics) -> Iterator[bytes]:
    """Yield the JSON of the answers for an array of objects, see `schemas.BatchPrediction`; bad rows by their index.

    Raises
    ------
    ApiError : before anything is yielded: 422 when it is no array, is empty or too long, or when no row is good
    """
    if not isinstance(values, list):
        raise refuse("array_type", "The body is no batch", "expects an array of objects")
    if not 1 <= len(values) <= max_rows:
        raise refuse("array_length", f"The batch has {len(values):,} rows", f"expects 1 to {max_rows:,} rows")
    errors = ErrorList()
    lead = b'{"model_version":%b,"predictions":[' % to_json(served.version)
    for start in range(0, len(values), SLICE_ROWS):
        part = values[start : start + SLICE_ROWS]
        answers = predict_slice(served, part, start, errors)
        count_answers(metrics, served, [answer["warnings"] for answer in answers], len(part) - len(answers))
        if answers:
            yield lead + to_json(answers)[1:-1]
            lead = b","
    if lead != b",":
        raise ApiError(422, f"All {len(values):,} rows were refused; see errors.", errors)
    yield b'],"errors":%b,"errors_total":%d}' % (to_json(errors.to_dicts()), errors.total)


def predict_slice(served: Served, values: Sequence[object], start: int, errors: ErrorList) -> list[JsonAnswer]:
    """Return the answers for the good rows among JSON values; what is wrong with others is added to `errors`.

    Parameters
    ----------
    served : the model
    values : one for each row
    start : the index of the first
    errors : grows
    """
    read = [(index, served.reader.read(value, errors, index)) for index, value in enumerate(values, start)]
    good = [(index, *row_and_warnings) for index, row_and_warnings in read if row_and_warnings is not None]
    if not good:
        return []
    indexes, rows, warnings = zip(*good, strict=True)
    answers: list[JsonAnswer] = []
    for index, answer in zip(indexes, iterate_answers(served, rows, warnings, make_ids(len(rows))), strict=True):
        if answer is None:
            add_no_answer(errors, index)
        else:
            answers.append({"index": index} | answer)
    return answers


def iterate_answers(
    served: Served, rows: Sequence[Row], warnings: Sequence[list[str]], ids: Sequence[str]
) -> Iterator[JsonAnswer | None]:
    """Yield the answers for good rows; None where the model finds no finite number.

    Parameters
    ----------
    served : the model
    rows, warnings, ids : (n_rows,) each
    """
    predictions = served.model.predict(rows)
    shares = None if predictions.probabilities is None else predictions.probabilities.tolist()
    for place, value in enumerate(predictions.values):
        if not all(map(math.isfinite, (value,) if shares is None else shares[place])):
            yield None
            continue
        answer: JsonAnswer = {"prediction": value, "prediction_id": ids[place], "warnings": warnings[place]}
        if shares is not None:
            answer["probabilities"] = dict(zip(served.labels, shares[place], strict=True))
        yield answer | served.describe_uncertainty(value, None if shares is None else shares[place])


def count_answers(metrics: Metrics, served: Served, warnings: Sequence[list[str]], refused: int) -> None:
    """Count rows that were answered, with their warnings, and rows that were refused."""
    metrics.count_rows(len(warnings), refused)
    if any(warnings):
        metrics.count_warnings(Counter(served.reader.meanings[text] for texts in warnings for text in texts))


def add_no_answer(errors: ErrorList, index: int | None = None) -> None:
    """Add that the model has no answer for a row."""
    errors.add("no_finite_answer", "the model has no finite answer for these values", index=index)


def make_ids(count: int) -> list[str]:
    """Return so many new ids of 32 hexadecimal digits."""
    digits = os.urandom(16 * count).hex()
    return [digits[start : start + 32] for start in range(0, len(digits), 32)]


def to_json(value: object) -> bytes:
    """Return a value as JSON; floats are written so that they come back as they are."""
    return _encoder.encode(value)
