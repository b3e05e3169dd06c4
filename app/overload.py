"""Keeps a worker quick when more is asked than it can do: what is too much is refused at once, cheaply.

Light rows are answered inside the event loop, one after another: how many of them one round of the loop takes on is
how long each may wait, so that is what is bounded. (uvicorn's --limit-concurrency counts connections, idle ones too.)
Heavy work runs in threads, a few at once. A batch is read, then waits for its turn; it is turned away unread while
enough others wait. So a slow client holds up nobody, and memory stays bounded.
"""

import asyncio
from functools import lru_cache

from starlette.types import Message, Receive

from app.errors import ApiError, build_refusal

LIGHT_DIGITS = 4  # of the Content-Length of a body that is surely light
WAITING_EACH = 8  # batches that may wait for each that runs
BODIES_KEPT = 16  # longest bodies that may be in memory at once


class Admission:
    """Decides what a worker takes on.

    Parameters
    ----------
    max_pending : light rows in one round of the event loop, and heavy single rows that wait
    max_batches : batches, and other heavy work, at once
    max_body_bytes : the longest body
    """

    def __init__(self, max_pending: int, max_batches: int, max_body_bytes: int) -> None:
        self.max_pending = max_pending
        self.max_waiting = WAITING_EACH * max_batches
        self.max_kept = BODIES_KEPT * max_body_bytes
        self.kept = 0  # bytes of bodies that are being read, or wait
        self.waiting = 0
        self.turns = asyncio.Semaphore(max_batches)
        self._taken = 0  # light rows in this round of the loop
        self._loop: asyncio.AbstractEventLoop | None = None

    def has_room_for_light(self) -> bool:
        """Take a light row into this round of the event loop, and return whether there was room."""
        if not self._taken or self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._start_round)  # comes after everything that is ready now
            self._taken = 0
        self._taken += 1
        return self._taken <= self.max_pending

    def _start_round(self) -> None:
        self._taken = 0

    def has_room_for_heavy(self, is_batch: bool) -> bool:
        """Return whether another heavy request may wait."""
        return self.waiting < (self.max_waiting if is_batch else max(self.max_pending, self.max_waiting))


class HeavyRequest:
    """One heavy request: its body counts while it is kept, and its last part is handed on when its turn has come.

    Parameters
    ----------
    admission : of the worker
    receive : from the server; the application gets the `receive` of this object
    is_batch : whether it is one
    """

    def __init__(self, admission: Admission, receive: Receive, is_batch: bool) -> None:
        self.admission = admission
        self.is_batch = is_batch
        self.is_refused = False
        self._receive = receive
        self._kept = 0
        self._has_turn = False

    async def receive(self) -> Message:
        """Receive; where there is no room, say that the client has gone, so that nothing is answered."""
        message = await self._receive()
        if message["type"] != "http.request" or self._has_turn:
            return message
        length = len(message.get("body", b""))
        self._kept += length
        self.admission.kept += length
        has_room = self.admission.kept <= self.admission.max_kept
        if has_room and not message.get("more_body", False):
            has_room = await self._await_turn()
        if has_room:
            return message
        self.is_refused = True
        return {"type": "http.disconnect"}

    async def _await_turn(self) -> bool:
        admission = self.admission
        if not admission.has_room_for_heavy(self.is_batch):
            return False
        admission.waiting += 1
        try:
            await admission.turns.acquire()
        finally:
            admission.waiting -= 1
        self._has_turn = True
        return True

    def leave(self) -> None:
        """Give back turn and memory."""
        self.admission.kept -= self._kept
        if self._has_turn:
            self.admission.turns.release()


@lru_cache(maxsize=4)
def encode_overloaded(model_version: str | None) -> bytes:
    """Return the body of the refusal for what is too much."""
    message = "More is asked than can be answered now. Try again in a second."
    return bytes(build_refusal(ApiError(503, message, code="overloaded"), model_version).body)
