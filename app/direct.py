"""Answers predictions in front of the framework, whose routing takes longer than a prediction.

What is read, checked and answered is what the routes in app/routes/predict.py read, check and answer; they describe it
in OpenAPI, and the tests ask both. Only their way to it is shorter here.
"""

from collections.abc import Callable
from typing import ClassVar

from anyio.to_thread import run_sync
from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from app.bodies import check_body, parse_json
from app.body_limit import check_announced, check_length
from app.dependencies import check_key
from app.errors import ApiError, build_refusal
from app.model_host import ModelHost, Served
from app.predictions import predict_batch, predict_one
from app.settings import Settings

LIGHT_BYTES = 16_384  # a body of one row; a longer one is read in a thread, or others would wait for it


class DirectPredictions:
    """ASGI middleware: answers POST /predict and /predict/batch, and passes everything else on.

    Parameters
    ----------
    app : what takes everything else
    host : holds the model
    settings : limits and keys
    """

    PATHS: ClassVar = ("/predict", "/predict/batch")

    def __init__(self, app: ASGIApp, host: ModelHost, settings: Settings) -> None:
        self.app = app
        self.host = host
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a prediction, or pass the request on."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self.PATHS:
            await self.app(scope, receive, send)
            return
        try:
            content = await self._answer(scope["path"], Headers(scope=scope), receive)
        except ApiError as err:
            await build_refusal(Request(scope), err)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        await send_json(send, content)

    async def _answer(self, path: str, headers: Headers, receive: Receive) -> bytes:
        """Return the answer as JSON."""
        if self.settings.api_keys:
            check_key(self.settings, headers.get("x-api-key"))
        served = self.host.require()
        content = await read_content(receive, headers, self.settings.max_body_bytes)
        check_body(content, headers)
        if path == "/predict":
            if served.is_light and len(content) <= LIGHT_BYTES:
                return to_json(predict_one(served, parse_json(content)))
            return await run_sync(self._in_thread, served, content, predict_one)
        return await run_sync(self._in_thread, served, content, self._predict_many)

    def _in_thread(self, served: Served, content: bytes, predict: Callable[[Served, object], BaseModel]) -> bytes:
        return to_json(predict(served, parse_json(content)))

    def _predict_many(self, served: Served, value: object) -> BaseModel:
        return predict_batch(served, value, self.settings.max_batch_rows)


async def read_content(receive: Receive, headers: Headers, max_bytes: int) -> bytes:
    """Return the whole body.

    Raises
    ------
    ApiError : 413 when it is longer than allowed, at once where that is announced
    ClientDisconnect : the client went away
    """
    check_announced(headers, max_bytes)
    chunks, received, is_more = [], 0, True
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        received += len(chunk)
        check_length(received, max_bytes)
        chunks.append(chunk)
        is_more = message.get("more_body", False)
    return b"".join(chunks) if len(chunks) > 1 else chunks[0]


def to_json(answer: BaseModel) -> bytes:
    """Return an answer as the routes write it, without what is not there."""
    return answer.model_dump_json(exclude_none=True).encode()


async def send_json(send: Send, content: bytes) -> None:
    """Send an answer with status 200."""
    headers = [(b"content-length", str(len(content)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
