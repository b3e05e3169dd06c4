"""The access log: one JSON object a request, a line each, on stdout; and the ids that tell requests apart.

Lines are gathered and written ten times a second, in pieces that a pipe takes whole: the lines of several workers do
not mix, and a reader that stalls holds up no request. What is lost to such a reader is counted and said.
"""

import asyncio
import json
import logging
import os
import select
import sys
import time
from itertools import count

from starlette.types import Scope

logger = logging.getLogger(__name__)

FLUSH_S = 0.1
FLUSH_CHARS = 65_536
KEPT_CHARS = 4_194_304  # for a reader that stalls
PIECE_BYTES = 4_096  # a pipe that is ready takes so many at once, whole (PIPE_BUF of Linux)
LAST_WAIT_MS = 1_000  # for a stalled reader when the server stops
MAX_PATH, MAX_METHOD, MAX_CLIENT = 200, 16, 64  # characters shown: a line is shorter than a piece
MAX_ID = 64
MAX_KNOWN = 1_000  # texts that are kept because they come again
MILLISECONDS = [f"{number:03d}" for number in range(1000)]
_ID_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"


# method, path, client, name of the key, version of the model
Who = tuple[str, str, str | None, str | None, str | None]


class RequestIds:
    """Makes ids that no other process makes: 16 random hexadecimal digits and a count. They are no secrets."""

    def __init__(self) -> None:
        self._lead = os.urandom(8).hex().encode() + b"-%x"
        self._numbers = count(1)

    def take(self, given: bytes | None) -> bytes:
        """Return the id that a client gave where it is short and plain, else a new one."""
        if given is not None and 0 < len(given) <= MAX_ID and not given.translate(None, _ID_BYTES):
            return given
        return self._lead % next(self._numbers)


class AccessLog:
    """Gathers lines, and writes them from the event loop."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._chars = 0  # of lines and rest
        self._rest = b""  # what the reader has not taken yet, whole lines
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._start = ""  # of the lines of this second
        self._known: dict[Who, str] = {}  # ends of lines
        self._descriptor: int | None = None
        self._poll: select.poll | None = None

    def open(self) -> None:
        """Write to what is stdout now; without one nothing is logged."""
        try:
            self._descriptor = sys.stdout.fileno()
        except (AttributeError, OSError, ValueError):  # a process without stdout, or with one that is no file
            return
        if hasattr(select, "poll"):  # not on Windows, where a stalled reader is waited for
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLOUT)

    def add(self, scope: Scope, request_id: bytes, status: int, seconds: float, sent: int) -> None:
        """Add the line of one request: neither its query nor a header or value of it.

        Parameters
        ----------
        scope : of ASGI; `key_name` and `model_version` are shown where they were noted there
        request_id : its id
        status : of the answer; 0 when the client went away before there was one
        seconds : it took
        sent : bytes of the answer's body
        """
        if self._descriptor is None:
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._start = second, time.strftime('{"time":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second))
        get = scope.get
        client = get("client")
        who = scope["method"], scope["path"], client and client[0], get("key_name"), get("model_version")
        ending = self._known.get(who) or self._describe(who)
        line = (
            f'{self._start}{MILLISECONDS[int((now - second) * 1000)]}Z","request_id":"{request_id.decode()}",'
            f'"status":{status},"duration_ms":{seconds * 1000:.3f},"bytes":{sent},{ending}'
        )
        if self._chars + len(line) > KEPT_CHARS:
            self._dropped += 1
            return
        self._lines.append(line)
        self._chars += len(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        elif self._chars > FLUSH_CHARS and not self._rest:
            self.flush()

    def _describe(self, who: Who) -> str:
        """Return the end of a line; it is kept where it may come again."""
        method, path, client, key, version = who
        named = {
            "method": method[:MAX_METHOD],
            "path": path[:MAX_PATH],
            "client": client and client[:MAX_CLIENT],
            "key": key,
            "model_version": version,
        }
        text = json.dumps(named, separators=(",", ":"))[1:] + "\n"  # escapes control characters: a line stays one line
        if len(path) <= MAX_PATH:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[who] = text
        return text

    def flush(self) -> None:
        """Write as much as the reader takes without waiting; what it does not take is tried again later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write(0)
        if self._rest:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def close(self) -> None:
        """Write the last lines; a reader that stalls is given a second."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write(LAST_WAIT_MS)
        self._descriptor = None

    def _write(self, wait_ms: int) -> None:
        if self._dropped and not self._rest:
            self._lines.append(f'{self._start}000Z","dropped_lines":{self._dropped}}}\n')
            self._dropped = 0
        data = self._rest + "".join(self._lines).encode()
        self._lines.clear()
        try:
            self._rest = self._write_pieces(data, wait_ms)
        except OSError as err:
            logger.error("the access log ends, for stdout cannot be written: %s", err)
            self._descriptor, self._rest = None, b""
        self._chars = len(self._rest)

    def _write_pieces(self, data: bytes, wait_ms: int) -> bytes:
        """Write whole lines while the reader takes them, and return the others."""
        start = 0
        while start < len(data) and self._descriptor is not None:
            if self._poll is not None and not self._poll.poll(wait_ms):
                break
            end = len(data) if len(data) - start <= PIECE_BYTES else data.rindex(b"\n", start, start + PIECE_BYTES) + 1
            start += os.write(self._descriptor, data[start:end])
        return data[start:]
