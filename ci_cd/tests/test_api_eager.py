"""A row is answered as soon as it is there, in its turn, and as whole as by uvicorn alone."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from running_server import ROW, Running, run_server, write_light_model
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from app.front.eager import EagerProtocol, begin_rows_at_once

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
POST = HEAD % len(ROW) + ROW
OK = b"HTTP/1.1 200 OK\r\n"


class Wire(asyncio.Transport):
    """What a connection writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        """Do nothing: nothing is read here."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        return self.is_closed


async def wait_for(error: type[Exception] | None) -> None:
    """Wait for a moment, and raise the error if there is one."""
    loop = asyncio.get_running_loop()
    waits = loop.create_future()
    loop.call_later(0.01, *((waits.set_exception, error()) if error else (waits.set_result, None)))
    await waits


async def answer(receive: Receive, send: Send) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def talk(
    app: Callable[[Scope, Receive, Send], Awaitable[None]], *pieces: bytes, wait_s: float = 0.0
) -> tuple[list[bytes], bool]:
    """Return what is written at once after each piece of data, and after a while; and whether the server closes."""
    config = Config(app=app, http="httptools", lifespan="off")
    config.load()
    begin_rows_at_once(config)
    state, wire, written = ServerState(), Wire(), []
    connection = config.http_protocol_class(config=config, server_state=state, app_state={})
    assert isinstance(connection, EagerProtocol)
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
        written.append(wire.written)
    await asyncio.sleep(wait_s)
    while state.tasks:
        await asyncio.sleep(0.001)
    return [*written, wire.written], wire.is_closed


def test_row_is_answered_before_the_event_loop_goes_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(receive, send)

    (first, second, last), _ = asyncio.run(talk(app, POST, POST))
    assert first.startswith(OK)
    assert first.endswith(ROW)
    assert second == last == 2 * first


def test_row_in_pieces_waits_for_its_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, is_more = b"", True
        while is_more:
            message = await receive()
            body, is_more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    written, _ = asyncio.run(talk(app, POST[:20], POST[20:-5], POST[-5:]))
    assert written[:2] == [b"", b""]
    assert written[-1].endswith(ROW)


@pytest.mark.parametrize("error", [None, ValueError])
def test_row_that_has_to_wait_goes_on_and_those_behind_it_wait_too(error: type[Exception] | None) -> None:
    tasks = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.current_task())
        if len(tasks) == 1:
            await wait_for(error)
            tasks.append(asyncio.current_task())
        await answer(receive, send)

    (at_once, last), is_closed = asyncio.run(talk(app, POST + POST, wait_s=0.05))
    assert at_once == b""
    if error:
        assert last.startswith(b"HTTP/1.1 500 ")
        assert is_closed
    else:
        assert last.count(OK) == 2
        assert len(set(tasks)) == 3  # what waits goes on in a task of its own, which time-outs and threads need
        assert not is_closed


def test_cancelled_row_ends() -> None:
    ended = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(True)
            raise

    async def cancel() -> None:
        config = Config(app=app, http="httptools", lifespan="off")
        config.load()
        state = ServerState()
        connection = EagerProtocol(config=config, server_state=state, app_state={})
        connection.connection_made(Wire())
        connection.data_received(POST)
        (task,) = state.tasks
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(cancel())
    assert ended == [True]


def read_answers(server: Running, data: bytes, count: int) -> list[tuple[int, dict]]:
    """Send data at once, and return status and body of the answers in their order."""
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(data)
        found = []
        for _ in range(count):
            status, length = int(answers.readline().split()[1]), 0
            while (line := answers.readline()) != b"\r\n":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            found.append((status, json.loads(answers.read(length))))
        return found


def test_requests_that_come_together_are_answered_in_their_order(tmp_path: Path) -> None:
    write_light_model(tmp_path)
    bad, health = HEAD % 2 + b"[]", b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    with run_server(tmp_path) as server:
        found = read_answers(server, POST + health + POST + bad + health + POST, 6)
        assert [status for status, _ in found] == [200, 200, 200, 422, 200, 200]
        assert ["prediction" in body for _, body in found] == [True, False, True, False, False, True]
