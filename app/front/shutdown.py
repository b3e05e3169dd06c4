"""Stops the server without losing a request, and with exit code 0.

On SIGTERM, first /ready answers 503 and every answer closes its connection, so that nobody sends more; SHUTDOWN_DELAY_S
later, when the load balancer has noticed, no more connections are accepted; then uvicorn ends what is under way.
uvicorn alone closes connections at once, requests on their way included, and raises the signal again: exit code 143.
"""

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from uvicorn import Server

logger = logging.getLogger(__name__)

ARRIVAL_S = 0.25  # for requests on connections that are open already


class Shutdown:
    """Whether the server is stopping, and the steps to it.

    Parameters
    ----------
    delay_s : from the signal to the last connection that is accepted
    """

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.is_stopping = False

    @contextmanager
    def handle_signals(self, server: Server | None) -> Iterator[None]:
        """Answer SIGTERM inside the block, which is run by the event loop of the server, in our way.

        Parameters
        ----------
        server : that runs; None leaves signals alone
        """
        if server is None:
            yield
            return
        loop = asyncio.get_running_loop()

        def stop(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.stop, server)

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def stop(self, server: Server) -> None:
        """Begin to stop; when asked again, do not wait any longer."""
        delay_s = 0.0 if self.is_stopping else self.delay_s
        logger.info("stopping in %g s", delay_s)
        self.is_stopping = True
        asyncio.get_running_loop().call_later(delay_s, self._close, server)

    def _close(self, server: Server) -> None:
        for listener in server.servers:
            listener.close()
        asyncio.get_running_loop().call_later(ARRIVAL_S, self._exit, server)

    def _exit(self, server: Server) -> None:
        server.should_exit = True


def find_server() -> Server | None:
    """Return the uvicorn server whose event loop calls, alone or as one of several workers; None under another."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return None  # Windows has no SIGTERM that a process can answer; only the main thread may handle signals
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return owner if isinstance(owner, Server) else None
