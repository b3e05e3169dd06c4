"""The HTTP API: serves the model of the model folder. This module only wires.

uvicorn app.main:app --port 8000
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI

from app.dependencies import check_api_key
from app.docs import add_docs
from app.errors import add_error_handlers
from app.front.application import Front
from app.front.body_limit import BodyLimit
from app.front.direct import DirectPredictions
from app.metrics.counters import Metrics
from app.model_host import ModelHost
from app.openapi import describe_errors
from app.page.page import add_page
from app.routes import health, model, predict
from app.routes import metrics as metrics_route
from app.settings import Settings, read_settings
from data_ingestion.handoff import PipelineError

DESCRIPTION = """\
Predictions from the model in the model folder. Every refusal, at any path and of any method, has the form of
`ErrorAnswer`: 404 for an unknown path, 405 for a wrong method, 431 for headers that are too long, and those listed
below. Of names given twice in a JSON object the last one counts. A 500 is a bug: the server's log holds its
traceback."""


def create_app(settings: Settings) -> Front:
    """Return the app; it touches the model folder only when it starts.

    Raises
    ------
    PipelineError : the file of the API keys cannot be read
    """
    app = FastAPI(
        title="Predictions",
        description=DESCRIPTION,
        version="1",
        lifespan=run_host,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
    )
    app.state.settings = settings
    app.state.metrics = metrics = Metrics(settings.metrics_dir)
    app.state.host = ModelHost(settings.model_folder, settings.model_poll_s, metrics)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    add_error_handlers(app)
    guard = [Depends(check_api_key)] if settings.needs_key else []
    refusals = describe_errors(401) if settings.needs_key else {}
    app.include_router(predict.router, dependencies=guard, responses=refusals)
    app.include_router(model.router, dependencies=guard, responses=refusals)
    app.include_router(health.router)
    app.include_router(metrics_route.router)
    add_page(app)
    if settings.docs:
        add_docs(app)
    app.state.direct = DirectPredictions(app.state.host, settings, metrics)
    front = app.state.front = Front(app, app.state.direct, settings, metrics)
    return front


@asynccontextmanager
async def run_host(app: FastAPI) -> AsyncIterator[None]:
    """Load the model before the first request, and watch for another until the server stops."""
    configure_logging(app.state.settings.log_level)
    host: ModelHost = app.state.host
    app.state.metrics.start()
    await host.start()
    watcher = asyncio.create_task(host.watch())
    async with app.state.front.run():
        yield
    watcher.cancel()
    with suppress(asyncio.CancelledError):
        await watcher
    app.state.metrics.stop()


def configure_logging(level: str) -> None:
    """Send the app's own messages to stderr, unless whoever runs it has set up logging."""
    logger = logging.getLogger("app")
    logger.setLevel(level)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)


def stop_supervisor() -> None:
    """Stop the uvicorn that would start this worker anew for ever: no other would do any better."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and supervisor.pid is not None and "uvicorn._subprocess" in sys.modules:
        os.kill(supervisor.pid, signal.SIGTERM)


try:
    app = create_app(read_settings())
except PipelineError as err:
    stop_supervisor()
    sys.exit(f"error: {err}")
