"""Whether the process is alive, and whether it can predict. Open to all, with or without API keys."""

from fastapi import APIRouter, Request

from app.dependencies import HostDep
from app.errors import ApiError
from app.openapi import describe_errors
from app.schemas import Status

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(host: HostDep) -> Status:
    """Answer as long as the process lives, with or without a model."""
    return Status(status="alive", model_version=host.served.version if host.served else None)


@router.get("/ready", responses=describe_errors(503))
async def ready(host: HostDep, request: Request) -> Status:
    """Answer 200 when there is a model to predict with, else 503 with the reason; also 503 once the server stops."""
    if request.app.state.shutdown.is_stopping:
        raise ApiError(503, "The server is stopping. Ask another one.", code="stopping")
    return Status(status="ready", model_version=host.require().version)
