"""Takes on new connections while there is much to do: uvloop takes one in each round of the event loop.

A round is long when many connections ask at once, and whoever is new, /health too, waits as many rounds as others are
in the queue before: a second and more when some hundred come together.
"""

import asyncio
import socket
from contextlib import suppress
from contextvars import Context

from uvicorn import Server


class Acceptor:
    """Takes connections from the queues of a server, beside the event loop.

    Parameters
    ----------
    server : of uvicorn
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, most: int) -> None:
        """Take so many connections at most from each queue that is open; to be called from the event loop.

        Nothing is done under asyncio, which takes all of them at once, nor for TLS.
        """
        loop = asyncio.get_running_loop()
        if self.server.config.is_ssl or not type(loop).__module__.startswith("uvloop"):
            return
        for one in self.server.servers:
            for queue in one.sockets:  # none once the server is closed
                listener = socket.socket(queue.family, queue.type, queue.proto, queue.fileno())
                try:
                    with suppress(OSError):  # nobody waits, or no more files can be opened, which uvloop can bear
                        for _ in range(most):
                            self._take_on(listener.accept()[0])
                finally:
                    listener.detach()  # it belongs to the event loop

    def _take_on(self, connection: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(connection), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with suppress(OSError):  # the client has gone already
            await asyncio.get_running_loop().connect_accepted_socket(self._build_protocol, connection)

    def _build_protocol(self) -> asyncio.Protocol:
        """Return what uvicorn's own `Server.startup` has for a connection."""
        kind = self.server.config.http_protocol_class
        return kind(  # type: ignore[call-arg]
            config=self.server.config, server_state=self.server.server_state, app_state=self.server.lifespan.state
        )
