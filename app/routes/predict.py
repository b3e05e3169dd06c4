"""Predictions for one row and for many: described here, and answered as app/front/direct.py answers them.

A request gets here only when nothing stands in front of the framework.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.front.direct import DirectPredictions
from app.openapi import describe_answers, describe_body, describe_errors
from app.schemas import BatchPrediction, Prediction

router = APIRouter(tags=["predict"], responses=describe_errors(400, 408, 413, 415, 422, 431, 503))


async def get_direct(request: Request) -> DirectPredictions:
    """Return what answers."""
    direct: DirectPredictions = request.app.state.direct
    return direct


DirectDep = Annotated[DirectPredictions, Depends(get_direct)]


@router.post("/predict", openapi_extra=describe_body(many=False), response_model=Prediction)
async def predict(request: Request, direct: DirectDep) -> Response:
    """Predict the target for one row: a flat JSON object of raw features.

    Columns of the contract that are no features may be sent and do not matter; other names are refused.
    """
    return await direct.respond(request.scope, request.receive)


@router.post(
    "/predict/batch",
    openapi_extra=describe_body(many=True),
    response_model=BatchPrediction,
    responses=describe_answers() | describe_errors(406),
)
async def predict_many(request: Request, direct: DirectDep) -> Response:
    """Predict the target for many rows, in any of five forms, by Content-Type; the answer has the form of Accept.

    Good rows are answered. As JSON, bad rows are listed by their index; in every other form each row has its own answer
    or error, in the order of the body: on its line of NDJSON, or in the columns of a table.
    """
    return await direct.respond(request.scope, request.receive)
