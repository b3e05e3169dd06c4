"""What uvicorn alone can do: an ASGI app that answers a constant."""

from collections.abc import Awaitable, Callable, MutableMapping

Message = MutableMapping[str, object]
BODY = b'{"prediction":1.0}'
HEADERS = [(b"content-length", b"%d" % len(BODY)), (b"content-type", b"application/json")]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer every request alike."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
