"""Predictions for one row and for many."""

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from app.bodies import parse_json, read_body
from app.dependencies import HostDep, SettingsDep
from app.openapi import describe_body, describe_errors
from app.predictions import predict_batch, predict_one
from app.schemas import BatchPrediction, Prediction

router = APIRouter(tags=["predict"], responses=describe_errors(400, 413, 415, 422, 503))


@router.post("/predict", openapi_extra=describe_body(many=False), response_model_exclude_none=True)
async def predict(request: Request, host: HostDep) -> Prediction:
    """Predict the target for one row: a flat JSON object of raw features.

    Columns of the contract that are no features may be sent and do not matter; other names are refused.
    """
    served = host.require()
    content = await read_body(request)
    return await run_sync(lambda: predict_one(served, parse_json(content)))


@router.post("/predict/batch", openapi_extra=describe_body(many=True), response_model_exclude_none=True)
async def predict_many(request: Request, host: HostDep, settings: SettingsDep) -> BatchPrediction:
    """Predict the target for an array of rows. Good rows are answered, bad rows are listed by their index."""
    served = host.require()
    content = await read_body(request)
    return await run_sync(lambda: predict_batch(served, parse_json(content), settings.max_batch_rows))
