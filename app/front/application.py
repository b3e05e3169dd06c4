"""The outermost part of the API, in front of predictions and framework: what every request gets, and who gets in.

A request gets an id, its answer the headers that protect browsers, and the access log a line. Keys are checked, and
what is too much is refused. A prediction takes fifty microseconds, so all of this may take but a few.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from time import perf_counter

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ApiError, build_refusal
from app.front.accepting import Acceptor
from app.front.access_log import AccessLog, RequestIds
from app.front.direct import PREDICT, DirectPredictions
from app.front.overload import (
    HEAVY_EACH_S,
    LIGHT_DIGITS,
    LIGHT_EACH_S,
    Admission,
    HeavyRequest,
    Refused,
    encode_overloaded,
)
from app.front.security_headers import ANSWER_HEADERS, CLOSE, Header, list_missing
from app.front.shutdown import Shutdown, find_server
from app.front.slow_clients import SlowClients
from app.front.wire import Client, limit_heads
from app.metrics.counters import Metrics
from app.settings import Settings

logger = logging.getLogger(__name__)

JSON: Header = (b"content-type", b"application/json")
LONG = b"?" * (LIGHT_DIGITS + 1)  # the length of a body that announces none
OTHER = "other"  # what no route answers, in /metrics
MAX_HEADERS, MAX_HEADER_BYTES = 100, 8_192
TOO_LONG_HEADERS = f"The headers are too long: at most {MAX_HEADERS}, of {MAX_HEADER_BYTES:,} bytes together."
EARLY = {
    400: "This is no HTTP/1.1 request.",
    408: "The request did not come whole in time. Send it again, faster.",
    431: TOO_LONG_HEADERS,
}
NO_KEY = "Send a valid API key in the header X-API-Key."


class Front:
    """ASGI application: the whole API.

    Parameters
    ----------
    fastapi : answers everything but predictions
    direct : answers predictions
    settings : limits and keys
    metrics : counts requests
    """

    def __init__(self, fastapi: FastAPI, direct: DirectPredictions, settings: Settings, metrics: Metrics) -> None:
        self.fastapi = fastapi
        self.direct = direct
        self.host = direct.host
        self.settings = settings
        self.keys = settings.keys
        self.needs_key = settings.needs_key
        self.metrics = metrics
        self.ids = RequestIds()
        self.log = AccessLog()
        self.shutdown = Shutdown(settings.shutdown_delay_s)
        self.admission = Admission(settings.max_pending, settings.max_batches, settings.max_body_bytes)
        self.refused_light, self.refused_heavy = Refused(LIGHT_EACH_S), Refused(HEAVY_EACH_S)
        self.inner: ASGIApp = self.dispatch if not settings.cors_origins else allow_origins(self.dispatch, settings)
        fastapi.state.shutdown = self.shutdown

    @property
    def state(self) -> State:
        """The state of the whole API."""
        return self.fastapi.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and log it."""
        if scope["type"] != "http":
            await self.fastapi(scope, receive, send)
            return
        started = perf_counter()
        self.metrics.enter()
        scope["given"] = given = dict(scope["headers"])
        scope["request_id"] = request_id = self.ids.take(given.get(b"x-request-id"))
        status = sent = 0

        def send_completed(message: Message) -> Awaitable[None]:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                added = ANSWER_HEADERS if "is_prediction" in scope else list_missing(message["headers"])
                headers = message["headers"] = [*message["headers"], *added, (b"x-request-id", request_id)]
                if self.shutdown.is_stopping:
                    headers.append(CLOSE)
            else:
                sent += len(message.get("body", b""))
            return send(message)

        try:
            await self.inner(scope, receive, send_completed)
        except Exception:
            status = 500  # also where the answer had begun, and breaks off
            raise
        finally:
            seconds = perf_counter() - started
            status = status or scope.get("cut_off", 0)
            self.metrics.observe(scope["path"] if "is_prediction" in scope else name_route(scope), status, seconds)
            self.metrics.leave()
            self.log.add(scope, request_id, status, seconds, sent)

    def dispatch(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let a request in or refuse it: begin what answers it."""
        path, given = scope["path"], scope["given"]
        if len(scope["headers"]) > MAX_HEADERS or sum(map(len, given.values())) > MAX_HEADER_BYTES:
            return build_refusal(ApiError(431, TOO_LONG_HEADERS), self.host.version)(scope, receive, send)
        has_key = True
        if self.needs_key:
            scope["key_name"] = name = self.keys.find_name(given.get(b"x-api-key"))
            has_key = name is not None
        if scope["root_path"]:
            path = path.removeprefix(scope["root_path"])
        if scope["method"] != "POST" or path not in self.direct.PATHS:
            return self.fastapi(scope, receive, send)
        scope["is_prediction"], scope["path"] = True, path
        if not has_key:
            return build_refusal(ApiError(401, NO_KEY), self.host.version)(scope, receive, send)
        served = self.host.served
        if served is not None:
            scope["model_version"] = served.version  # the one that answers: it is taken before anything waits
        is_single = path == PREDICT and len(given.get(b"content-length", LONG)) <= LIGHT_DIGITS
        if not is_single or not (served is None or served.is_light):
            return self.answer_heavy(scope, receive, send, path != PREDICT)
        if self.admission.has_room_for_light():
            return self.direct(scope, receive, send)
        return self.refuse_overload(scope, send, self.refused_light)

    async def answer_heavy(self, scope: Scope, receive: Receive, send: Send, is_batch: bool) -> None:
        """Answer what takes long when its turn has come; refuse it when too many wait."""
        if not self.admission.has_room_for_heavy(is_batch):
            await self.refuse_overload(scope, send, self.refused_heavy)
            return
        request = HeavyRequest(self.admission, scope, receive, send, is_batch)
        try:
            await self.direct(scope, request.receive, request.send)
        finally:
            request.leave()
        if request.is_refused:
            await self.refuse_overload(scope, send, self.refused_heavy)

    async def refuse_overload(self, scope: Scope, send: Send, refused: Refused) -> None:
        """Refuse what is too much. uvicorn skips a body of known length; one without end ends the connection."""
        retry_s = await refused.hold(scope.get("client"))
        body = encode_overloaded(self.host.version)
        headers = [JSON, (b"content-length", b"%d" % len(body)), (b"retry-after", b"%d" % retry_s)]
        announced = scope["given"].get(b"content-length", b"")
        if not announced.isdigit() or int(announced) > self.settings.max_body_bytes:
            headers.append(CLOSE)
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Do, inside the block, what goes on beside the requests."""
        if self.settings.access_log:
            self.log.open()
        silence_uvicorn()
        server = find_server()
        jobs: list[Coroutine[None, None, None]] = [self.keys.watch()]
        if server is not None:
            server.config.http_protocol_class = limit_heads(server.config.http_protocol_class, self.refuse_early)
            server.config.ws_protocol_class = None  # there are none, and uvicorn would log their queries
            self.admission.acceptor = Acceptor(server)
            limits = self.settings.read_timeout_s, self.settings.write_timeout_s
            jobs.append(SlowClients(server, *limits, self.refuse_early, self.encode_refusal).watch())
        tasks = [asyncio.create_task(job) for job in jobs]
        for task in tasks:
            task.add_done_callback(report_end)
        with self.shutdown.handle_signals(server):
            yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.log.close()

    def refuse_early(self, status: int, client: Client) -> bytes:
        """Return the whole answer to what has not become a request yet; it is counted, and logged."""
        request_id = self.ids.take(None)
        answer = self.encode_refusal(status, request_id)
        self.metrics.observe(OTHER, status, 0.0)
        self.log.add({"method": "", "path": "", "client": client}, request_id, status, 0.0, len(answer))
        return answer

    def encode_refusal(self, status: int, request_id: bytes | None) -> bytes:
        """Return a whole answer, to be written past the framework; it ends its connection."""
        error = ApiError(status, EARLY[status], code="bad_request" if status == 400 else None)
        body = bytes(build_refusal(error, self.host.version).body)
        headers = [JSON, (b"content-length", b"%d" % len(body)), *ANSWER_HEADERS, CLOSE]
        headers.append((b"x-request-id", request_id or self.ids.take(None)))
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, HTTPStatus(status).phrase.encode(), lines, body)


def name_route(scope: Scope) -> str:
    """Return the path of the route that answered, as /metrics names it: clients cannot make up others."""
    return getattr(scope.get("route"), "path", OTHER)


def allow_origins(app: ASGIApp, settings: Settings) -> CORSMiddleware:
    """Return the app with answers that pages of the origins in the settings may read."""
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Content-Type", "X-API-Key", "X-Request-ID"),
        expose_headers=("X-Request-ID", "Retry-After"),
    )


def silence_uvicorn() -> None:
    """Turn off uvicorn's own access log; a connection looks whether there is one when it is made."""
    logger = logging.getLogger("uvicorn.access")
    logger.handlers = []
    logger.propagate = False


def report_end(task: asyncio.Task[None]) -> None:
    """Say why a job that goes on for ever has ended."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("a job beside the requests has ended", exc_info=task.exception())
