"""From a JSON value to an answer. Runs in a worker thread: nothing here may touch the event loop."""

import math
from collections.abc import Sequence
from uuid import uuid4

from pydantic import ValidationError

from app.bodies import refuse
from app.errors import ApiError, ErrorList
from app.model_host import Served
from app.rows import list_warnings
from app.schemas import BatchPrediction, Prediction, RowPrediction
from models.artifact import Row


def predict_one(served: Served, value: object) -> Prediction:
    """Return the answer for one JSON object.

    Raises
    ------
    ApiError : 422 with every field at fault
    """
    errors = ErrorList()
    row = read_row(served, value, errors)
    answers = predict_rows(served, [(None, row)], errors) if row is not None else []
    if not answers:
        raise ApiError(422, "The row was refused; see errors.", errors)
    return Prediction(model_version=served.version, **answers[0].model_dump(exclude={"index"}))


def predict_batch(served: Served, value: object, max_rows: int) -> BatchPrediction:
    """Return the answers for a JSON array of objects, bad rows by their index.

    Raises
    ------
    ApiError : 422 when it is no array, is empty or too long, or when no row is good
    """
    if not isinstance(value, list):
        raise refuse("array_type", "The body is no batch", "expects an array of objects")
    if not 1 <= len(value) <= max_rows:
        raise refuse("array_length", f"The batch has {len(value):,} rows", f"expects 1 to {max_rows:,} rows")
    errors = ErrorList()
    read = [(index, read_row(served, item, errors, index)) for index, item in enumerate(value)]
    answers = predict_rows(served, [(index, row) for index, row in read if row is not None], errors)
    if not answers:
        raise ApiError(422, f"All {len(value):,} rows were refused; see errors.", errors)
    return BatchPrediction(
        model_version=served.version, predictions=answers, errors=errors.items, errors_total=errors.total
    )


def read_row(served: Served, value: object, errors: ErrorList, index: int | None = None) -> Row | None:
    """Return a row of the contract's features; None when the value is at fault, which is added to `errors`."""
    if not isinstance(value, dict):
        errors.add("object_type", "expects an object", index=index)
        return None
    unknown = [name for name in value if name not in served.contract.columns]
    for name in unknown:
        errors.add("unknown_field", "is not in the contract; see /schema", name, index)
    known = value if not unknown else {name: item for name, item in value.items() if name in served.contract.columns}
    try:
        row = served.row_model.model_validate(known)
    except ValidationError as err:
        errors.add_all(err, index)
        return None
    return None if unknown else row.model_dump(by_alias=True)


def predict_rows(served: Served, rows: Sequence[tuple[int | None, Row]], errors: ErrorList) -> list[RowPrediction]:
    """Return the answers for good rows; one for which the model finds no finite number is added to `errors`."""
    if not rows:
        return []
    predictions = served.model.predict([row for _, row in rows])
    answers = []
    for place, (index, row) in enumerate(rows):
        value = predictions.values[place]
        shares = [] if predictions.probabilities is None else predictions.probabilities[place].tolist()
        if not all(math.isfinite(float(number)) for number in shares or [value]):
            errors.add("no_finite_answer", "the model has no finite answer for these values", index=index)
            continue
        answers.append(
            RowPrediction(
                index=index or 0,
                prediction=value,
                prediction_id=uuid4().hex,
                warnings=list_warnings(served.contract, row),
                probabilities=dict(zip(served.labels, shares, strict=True)) if shares else None,
            )
        )
    return answers
