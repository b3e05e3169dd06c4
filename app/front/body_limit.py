"""Refuses bodies that are too large before they are read."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ApiError, build_response

BATCH = "/predict/batch"
MAX_ROW_BYTES = 2**20


class BodyLimit:
    """ASGI middleware: 413 at once when Content-Length is too large, else as soon as a longer body has come in.

    FastAPI's own limit answers in plain text; this one answers like every other refusal.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.largest = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counting `receive`, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        max_bytes = choose_limit(scope["path"], self.largest)
        try:
            check_announced(Headers(scope=scope), max_bytes)
        except ApiError as err:
            await build_response(err, scope["app"].state.host.version)(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            check_length(received, max_bytes)
            return message

        await self.app(scope, receive_counted, send)


def choose_limit(path: str, largest: int) -> int:
    """Return how many bytes a body may have: what is set for a batch, and MAX_ROW_BYTES at most for one row."""
    return largest if path == BATCH else min(largest, MAX_ROW_BYTES)


def check_announced(headers: Headers, max_bytes: int) -> None:
    """Raise when the length that the headers announce is too large.

    Raises
    ------
    ApiError : 413
    """
    announced = headers.get("content-length", "0")
    if announced.isdecimal():
        check_length(int(announced), max_bytes)


def check_length(length: int, max_bytes: int) -> None:
    """Raise when a body is too long.

    Raises
    ------
    ApiError : 413
    """
    if length > max_bytes:
        raise ApiError(413, f"The body is longer than {max_bytes:,} bytes. Send fewer rows at a time.")
