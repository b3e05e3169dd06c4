"""uvicorn's HTTP/1.1 with an end to what stands before a body, and with the one form of a refusal.

Its parser keeps a header until it is whole, and joins all that has come of it anew with every piece: a header of 64 MB
would hold up a worker for seconds.
"""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536  # of pieces of a request that bring its headers to no end, after the first

Client = tuple[str, int] | None
Refuse = Callable[[int, Client], bytes]


def limit_heads(kind: type[asyncio.Protocol], refuse: Refuse) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol by httptools with these limits; any other, which has its own, as it is.

    Parameters
    ----------
    kind : the protocol that uvicorn would use
    refuse : returns the whole answer for a status, and a client
    """
    if kind is not HttpToolsProtocol:
        return kind

    class LimitedProtocol(HttpToolsProtocol):
        _head_bytes = 0

        def data_received(self, data: bytes) -> None:
            HttpToolsProtocol.data_received(self, data)
            cycle = self.cycle
            if self.scope is not (cycle and cycle.scope):  # the request that comes has not all its headers yet
                self._count_head(len(data))
            elif self._head_bytes:
                self._head_bytes = 0

        def _count_head(self, length: int) -> None:
            # Of the first piece the most part may have been the end of a body.
            self._head_bytes += length if self._head_bytes else 1
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(431)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400)

        def _unsupported_upgrade_warning(self) -> None:
            """Say nothing: who asks for web sockets is answered as if it had not."""

        def _refuse(self, status: int) -> None:
            self.transport.write(refuse(status, self.client))
            self.transport.close()

    return LimitedProtocol
