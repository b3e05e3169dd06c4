"""The HTTP API: serves the model of the model folder. This module only wires.

uvicorn app.main:app --port 8000
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.body_limit import BodyLimit
from app.dependencies import check_api_key
from app.direct import DirectPredictions
from app.docs import add_docs
from app.errors import add_error_handlers
from app.model_host import ModelHost
from app.openapi import describe_errors
from app.routes import health, model, predict
from app.settings import Settings, read_settings
from data_ingestion.handoff import PipelineError

DESCRIPTION = """\
Predictions from the model in the model folder. Every refusal, at any path and of any method, has the form of
`ErrorAnswer`: 404 for an unknown path, 405 for a wrong method, and those listed below. Of names given twice in a JSON
object the last one counts. A 500 is a bug: the server's log holds its traceback."""


def create_app(settings: Settings) -> FastAPI:
    """Return the app; it touches the model folder only when it starts."""
    app = FastAPI(
        title="Predictions",
        description=DESCRIPTION,
        version="1",
        lifespan=run_host,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.host = ModelHost(settings.model_folder, settings.model_poll_s)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.state.direct = DirectPredictions(app.state.host, settings)
    app.add_middleware(DirectFirst, direct=app.state.direct)
    add_error_handlers(app)
    guard = [Depends(check_api_key)] if settings.api_keys else []
    refusals = describe_errors(401) if settings.api_keys else {}
    app.include_router(predict.router, dependencies=guard, responses=refusals)
    app.include_router(model.router, dependencies=guard, responses=refusals)
    app.include_router(health.router)
    add_docs(app)
    return app


class DirectFirst:
    """ASGI middleware: predictions go the direct way, everything else to the framework."""

    def __init__(self, app: ASGIApp, direct: DirectPredictions) -> None:
        self.app = app
        self.direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        is_prediction = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self.direct.PATHS
        await (self.direct if is_prediction else self.app)(scope, receive, send)


@asynccontextmanager
async def run_host(app: FastAPI) -> AsyncIterator[None]:
    """Load the model before the first request, and watch for another until the server stops."""
    configure_logging(app.state.settings.log_level)
    host: ModelHost = app.state.host
    await host.reload()
    watcher = asyncio.create_task(host.watch())
    yield
    watcher.cancel()
    with suppress(asyncio.CancelledError):
        await watcher


def configure_logging(level: str) -> None:
    """Send the app's own messages to stderr, unless whoever runs it has set up logging."""
    logger = logging.getLogger("app")
    logger.setLevel(level)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)


try:
    app = create_app(read_settings())
except PipelineError as err:
    sys.exit(f"error: {err}")
