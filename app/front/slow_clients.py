"""Cuts off clients that begin a request and do not end it, or that do not take their answer.

uvicorn waits for both without end. This looks at its connections about once a second, which costs a request nothing,
and closes them as their client might: the request that waits for its body then learns that the client has gone.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol, cast

from starlette.types import Scope
from uvicorn import Server

from app.front.wire import Client, Refuse

ROUND_S = 1.0  # at most, from one look to the next
RATE = 100_000  # bytes a second: long bodies get so much more time as has come of them
TAKEN_BITS = 18  # of the length of what is not taken yet: each 256 kB that are taken are worth another time-out


class Cycle(Protocol):
    """What uvicorn knows of a request and its answer."""

    scope: Scope
    more_body: bool
    response_started: bool
    response_complete: bool


class Flow(Protocol):
    """Whether uvicorn itself has stopped reading from a connection."""

    read_paused: bool


class Connection(Protocol):
    """What uvicorn's two HTTP/1.1 protocols, by httptools and by h11, have in common."""

    transport: asyncio.Transport
    client: Client
    flow: Flow
    cycle: Cycle | None
    scope: Scope | None
    timeout_keep_alive_task: asyncio.TimerHandle | None


Wait = tuple[str, int, int]  # what a connection is waited for, the request, and how far its answer has been taken


class SlowClients:
    """Watches the connections of a server.

    Parameters
    ----------
    server : of uvicorn
    read_timeout_s : in which a request has to be there whole; a long body has more time as long as it comes
    write_timeout_s : in which an answer, or the next 256 kB of it, have to be taken
    refuse_early : returns the whole answer to a request that has not all its headers, given its status and client
    encode_refusal : the same for one that waits for its body, given its id, None where it has none yet
    """

    def __init__(
        self,
        server: Server,
        read_timeout_s: float,
        write_timeout_s: float,
        refuse_early: Refuse,
        encode_refusal: Callable[[int, bytes | None], bytes],
    ) -> None:
        self.server = server
        self.limits = {"request": read_timeout_s, "body": read_timeout_s, "answer": write_timeout_s}
        self.refuse_early = refuse_early
        self.encode_refusal = encode_refusal
        self._waits: dict[Connection, tuple[Wait, float]] = {}

    async def watch(self) -> None:
        """Look for ever."""
        round_s = min(ROUND_S, min(self.limits.values()) / 4)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(round_s)
            self.look(loop.time())

    def look(self, now: float) -> None:
        """Cut off who has been waited for too long.

        Parameters
        ----------
        now : by the clock of the event loop
        """
        before, self._waits = self._waits, {}
        grace_s = self.server.config.timeout_graceful_shutdown
        most_s = grace_s / 2 if grace_s and self.server.should_exit else math.inf  # before uvicorn cancels all tasks
        for each in list(self.server.server_state.connections):
            if not hasattr(each, "cycle"):  # no HTTP: a web socket
                continue
            connection = cast(Connection, each)
            wait = find_wait(connection)
            if wait is None:
                continue
            last, since = before.get(connection, (None, now))
            if last != wait:
                since = now
            received = connection.cycle.scope.get("received", 0) if connection.cycle is not None else 0
            if now - since <= min(self.limits[wait[0]] + received / RATE, most_s):
                self._waits[connection] = wait, since
            else:
                self.cut_off(connection, wait)

    def cut_off(self, connection: Connection, wait: Wait) -> None:
        """Close a connection, with the answer 408 where a request has begun that is not answered yet."""
        if wait[0] == "answer":
            connection.transport.abort()
            return
        if wait[0] == "body" and connection.cycle is not None:
            scope = connection.cycle.scope
            scope["cut_off"] = 408  # for the access log
            connection.transport.write(self.encode_refusal(408, scope.get("request_id")))
        elif has_begun(connection):
            connection.transport.write(self.refuse_early(408, connection.client))
        connection.transport.close()


def find_wait(connection: Connection) -> Wait | None:
    """Return what a connection has to do next, "request", "body" or "answer"; None when it is not its turn."""
    cycle = connection.cycle
    size = connection.transport.get_write_buffer_size()
    if size:
        return "answer", id(cycle), size >> TAKEN_BITS
    if cycle is None:
        return "request", 0, 0
    if cycle.response_complete:
        # With the timer running the connection is idle, and uvicorn closes it; without, something has come since.
        return None if connection.timeout_keep_alive_task is not None else ("request", id(cycle), 0)
    is_reading = cycle.more_body and not cycle.response_started and not connection.flow.read_paused
    return ("body", id(cycle), 0) if is_reading else None


def has_begun(connection: Connection) -> bool:
    """Return whether a part of a request has come."""
    if connection.cycle is None:
        return connection.scope is not None
    return connection.scope is not connection.cycle.scope
