"""Answers predictions in front of the framework, whose routing takes longer than a prediction.

The routes in app/routes/predict.py describe the answers in OpenAPI, and give them the same way; the tests ask both.
"""

import logging
from collections.abc import Iterator
from typing import ClassVar

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.batches.answering import Limits, answer_batch
from app.batches.formats import MEDIA_TYPES, Forms, choose_forms
from app.errors import BUG, NO_MEMORY, ApiError, build_refusal, release_frames
from app.front.body_limit import BATCH, check_length, choose_limit
from app.metrics.counters import Metrics
from app.model_host import ModelHost, Served
from app.predictions import predict_one, to_json
from app.rows.bodies import check_body, check_plain, parse_json
from app.settings import Settings

logger = logging.getLogger(__name__)

PREDICT = "/predict"
LIGHT_BYTES = 16_384  # a body of one row; a longer one is read in a thread, or others would wait for it
CHUNK_BYTES = 2**20  # of an answer; a shorter one is sent with its length
JSON = b"application/json"


class Reply(Response):
    """An answer with status 200: short, with its length, or in chunks that are made while others are sent.

    Parameters
    ----------
    content : the answer, or its first chunk
    media_type : what it is
    rest : makes the following chunks, in a worker thread
    """

    def __init__(self, content: bytes, media_type: bytes = JSON, rest: Iterator[bytes] | None = None) -> None:
        self.status_code = 200
        self.background = None
        self.body = content
        self.rest = rest
        self.raw_headers = [(b"content-type", media_type)]
        if rest is None:
            self.raw_headers.append((b"content-length", b"%d" % len(content)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        chunk, rest = self.body, self.rest
        while rest is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk, is_last = await run_sync(take_chunk, rest)
            rest = None if is_last else rest
        await send({"type": "http.response.body", "body": chunk})


class DirectPredictions:
    """ASGI application: answers POST /predict and /predict/batch.

    Parameters
    ----------
    host : holds the model
    settings : limits; who may ask has been decided before
    metrics : counts rows and warnings
    """

    PATHS: ClassVar = (PREDICT, BATCH)

    def __init__(self, host: ModelHost, settings: Settings, metrics: Metrics) -> None:
        self.host = host
        self.settings = settings
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a prediction, or refuse it."""
        try:
            reply: Response = await self.respond(scope, receive)
        except ClientDisconnect:
            return
        except ApiError as err:
            reply = build_refusal(err, self.host.version)
            release_frames(err)
        except MemoryError as err:
            logger.error("there was no memory for a request of %s", scope["path"])
            reply = build_refusal(ApiError(503, NO_MEMORY, code="out_of_memory"), self.host.version)
            release_frames(err)
        except Exception as err:  # whatever it is, the client gets the one form of a refusal, and the log the traceback
            logger.exception("a prediction failed")
            reply = build_refusal(ApiError(500, BUG), self.host.version)
            release_frames(err)
        await reply(scope, receive, send)

    async def respond(self, scope: Scope, receive: Receive) -> Reply:
        """Return the answer to a request.

        Raises
        ------
        ApiError : it is refused
        ClientDisconnect : the client went away
        """
        served, path, given = self.host.require(), scope["path"], scope["given"]
        limit = choose_limit(path, self.settings.max_body_bytes)
        content = await read_content(receive, given.get(b"content-length", b""), limit)
        kind, encoding = given.get(b"content-type", b""), given.get(b"content-encoding", b"identity")
        if path != PREDICT:
            check_plain(content, encoding)
            return await self.respond_many(served, content, choose_forms(scope, kind))
        check_body(content, kind, encoding)
        if served.is_light and len(content) <= LIGHT_BYTES:
            return Reply(predict_row(served, content, self.metrics))
        return Reply(await run_sync(predict_row, served, content, self.metrics))

    async def respond_many(self, served: Served, content: bytes, forms: Forms) -> Reply:
        """Return the answer to a batch.

        Raises
        ------
        ApiError : it is refused
        """
        limits = Limits(self.settings.max_batch_rows, self.settings.max_body_bytes)
        parts = answer_batch(served, content, forms, limits, self.metrics)
        chunk, is_last = await run_sync(take_chunk, parts)
        return Reply(chunk, MEDIA_TYPES[forms.answer].encode(), None if is_last else parts)


def predict_row(served: Served, content: bytes, metrics: Metrics) -> bytes:
    """Return the answer to the JSON of one row."""
    return to_json(predict_one(served, parse_json(content), metrics))


def take_chunk(parts: Iterator[bytes]) -> tuple[bytes, bool]:
    """Return the next parts of an answer together, about CHUNK_BYTES, and whether they are the last."""
    taken, size = [], 0
    for part in parts:
        taken.append(part)
        size += len(part)
        if size >= CHUNK_BYTES:
            return b"".join(taken), False
    return b"".join(taken), True


async def read_content(receive: Receive, length: bytes, max_bytes: int) -> bytes:
    """Return the whole body.

    Parameters
    ----------
    receive : from the server
    length : what the headers announce
    max_bytes : how long a body may be

    Raises
    ------
    ApiError : 413 when it is longer than allowed, at once where that is announced
    ClientDisconnect : the client went away
    """
    if length.isdigit():
        check_length(int(length), max_bytes)
    chunks: list[bytes] = []
    received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        received += len(chunk)
        check_length(received, max_bytes)
        if not message.get("more_body", False):
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)
