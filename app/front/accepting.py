"""Takes on new connections while there is much to do: uvloop takes one in each round of the event loop.

A round is long when many connections ask at once, and whoever is new, /health too, waits as many rounds as others are
in the queue before: a second and more when some hundred come together.
"""

import asyncio
import os
import socket
from contextlib import suppress

from uvicorn import Server


class Acceptor:
    """Takes connections from the queues of a server, beside the event loop.

    Parameters
    ----------
    server : of uvicorn
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._listeners: list[socket.socket] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    def accept(self, most: int) -> None:
        """Take so many connections at most from each queue; none when the server is about to stop."""
        if self.server.should_exit:
            self.close()
            return
        if self._listeners is None:
            self._listeners = self._find_listeners()
        for listener in self._listeners:
            with suppress(OSError):  # nobody waits, or no more files can be opened, for which uvloop has its ways
                for _ in range(most):
                    self._connect(listener.accept()[0])

    def close(self) -> None:
        """Take no more: the queues are closed when nobody else has them open."""
        for listener in self._listeners or ():
            listener.close()
        self._listeners = []

    def _find_listeners(self) -> list[socket.socket]:
        """Return the sockets that clients connect to, which the event loop may close while these stay open."""
        loop, config = asyncio.get_running_loop(), self.server.config
        if not type(loop).__module__.startswith("uvloop") or config.is_ssl:  # asyncio takes all of them at once
            return []
        listeners = [socket.socket(fileno=os.dup(each.fileno())) for one in self.server.servers for each in one.sockets]
        for listener in listeners:
            listener.setblocking(False)
        return listeners

    def _connect(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        task: asyncio.Task[object] = loop.create_task(loop.connect_accepted_socket(self._build_protocol, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _build_protocol(self) -> asyncio.Protocol:
        """Return what uvicorn's own `Server.startup` has for a connection."""
        kind = self.server.config.http_protocol_class
        return kind(  # type: ignore[call-arg]
            config=self.server.config, server_state=self.server.server_state, app_state=self.server.lifespan.state
        )
