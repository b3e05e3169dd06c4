"""What the API has counted, for Prometheus. Open to all, with or without API keys, like /health: it holds no values."""

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.metrics.counters import Metrics

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Answer with what all workers together have counted, in Prometheus' text format."""
    counted: Metrics = request.app.state.metrics
    # A thread of its own: a long list keeps nobody waiting, and is not kept waiting by predictions.
    content, kind = await run_sync(counted.render, limiter=CapacityLimiter(1))
    return Response(content, media_type=kind)
