"""Keeps a worker quick when more is asked than it can do: what is too much is refused at once, cheaply.

Light rows are answered inside the event loop, one after another: how many of them one round of the loop takes on is
how long each may wait, so that is what is bounded, widely for a burst and narrowly for a load that lasts. (uvicorn's
--limit-concurrency counts connections, idle ones too.) Heavy work runs in threads, a few at once. A batch is read, then
waits for its turn; it is turned away unread while enough others wait. So a slow client holds up nobody, and memory
stays bounded. Who is refused is told when to try again, and who does not heed that is kept waiting so long.
"""

import asyncio
from functools import lru_cache

from starlette.types import Message, Receive, Scope, Send

from app.errors import ApiError, build_refusal
from app.front.accepting import Acceptor

FEW = 4  # light rows in one round of the event loop, which then is short
LIGHT_DIGITS = 4  # of the Content-Length of a body that is surely light
WAITING_EACH = 8  # batches that may wait for each that runs
BODIES_KEPT = 4  # longest bodies that may be in memory at once
BURST, BURST_S = 8, 0.1  # how many times as much is taken on for so long
CALM_S = 2.0  # after which a burst may come again
LIGHT_EACH_S = 500  # refusals a second for each second that Retry-After says more
HEAVY_EACH_S = 50  # the same of batches, which are read past
MAX_RETRY_S = 10
KEPT_OPEN_S = 5  # uvicorn closes a connection without a request; who came back just then would find it closing
MAX_KNOWN = 20_000  # clients that were refused
MAX_HELD = 500  # clients that are kept waiting; each may have sent some 100 kB that nobody reads


class Admission:
    """Decides what a worker takes on.

    Parameters
    ----------
    max_pending : light rows in one round of the event loop under a load that lasts; of heavy ones, twice as many wait
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
        self._asked = 0  # light rows in this round of the loop
        self._room = BURST * max_pending  # for them
        self._over_since: float | None = None  # when rounds became too long
        self._over_until = 0.0  # when the last one was
        self.acceptor: Acceptor | None = None  # of the server, once it runs

    def has_room_for_light(self) -> bool:
        """Count a light row in this round of the event loop, and return whether there is room for it."""
        self._asked = asked = self._asked + 1
        if asked == 1:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._end_round, loop)  # comes after everything that is ready now
        return asked <= self._room

    def _end_round(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin another round, with less room when there was too much in all rounds of a while, until that is over."""
        asked, self._asked = self._asked, 0
        if asked > FEW and self.acceptor is not None:
            self.acceptor.accept(asked)
        if asked > self.max_pending:
            self._over_until = loop.time()
            self._over_since = self._over_since or self._over_until
            if self._over_until - self._over_since > BURST_S:
                self._room = self.max_pending
        elif self._room > self.max_pending:
            self._over_since = None
        elif loop.time() - self._over_until > CALM_S:
            self._over_since, self._room = None, BURST * self.max_pending

    def has_room_for_heavy(self, is_batch: bool) -> bool:
        """Return whether another heavy request may wait."""
        return self.waiting < (self.max_waiting if is_batch else 2 * self.max_pending)


class HeavyRequest:
    """One heavy request: its body counts while it is kept, and its last part is handed on when its turn has come.

    Parameters
    ----------
    admission : of the worker
    scope : of the request; gets `received`, the bytes that have come
    receive, send : from the server; the application gets those of this object
    is_batch : whether it is one
    """

    def __init__(self, admission: Admission, scope: Scope, receive: Receive, send: Send, is_batch: bool) -> None:
        self.admission = admission
        self.is_batch = is_batch
        self.is_refused = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._kept = 0
        self._has_turn = False

    async def receive(self) -> Message:
        """Receive; where there is no room, say that the client has gone, so that nothing is answered."""
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        length = len(message.get("body", b""))
        self._kept += length
        self._scope["received"] = self._kept
        self.admission.kept += length
        has_room = self.admission.kept <= self.admission.max_kept
        if has_room and not message.get("more_body", False):
            has_room = self.admission.has_room_for_heavy(self.is_batch)
            if has_room:
                await self._await_turn()
        if has_room:
            return message
        self.is_refused = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send; while the client takes a part of the answer, others have their turn."""
        if message["type"] == "http.response.body":
            self._give_up_turn()
        await self._send(message)
        if message.get("more_body", False):
            await self._await_turn()

    async def _await_turn(self) -> None:
        self.admission.waiting += 1
        try:
            await self.admission.turns.acquire()
        finally:
            self.admission.waiting -= 1
        self._has_turn = True

    def _give_up_turn(self) -> None:
        if self._has_turn:
            self.admission.turns.release()
        self._has_turn = False

    def leave(self) -> None:
        """Give back turn and memory."""
        self.admission.kept -= self._kept
        self._give_up_turn()


class Refused:
    """Whom we have told to try again later, and how much later: the more come, the later, for to refuse costs as well.

    Parameters
    ----------
    each_s : how many refusals a second make it a second later
    """

    def __init__(self, each_s: int) -> None:
        self.each_s = each_s
        self.held = 0
        self._until: dict[object, float] = {}
        self._second = self._count = self._last = 0  # the second now, and refusals in it and in the one before

    async def hold(self, client: object) -> int:
        """Return in how many seconds a client may try again; keep it waiting first when it was to wait and did not.

        Parameters
        ----------
        client : host and port, which is one connection
        """
        now = asyncio.get_running_loop().time()
        retry_s = self._choose_retry(int(now))
        until = self._until.get(client, now)
        if until > now and self.held < MAX_HELD:
            self.held += 1
            try:
                await asyncio.sleep(until - now)
            finally:
                self.held -= 1
        if len(self._until) >= MAX_KNOWN:
            self._until.clear()
        self._until[client] = max(now, until) + retry_s
        return retry_s

    def _choose_retry(self, second: int) -> int:
        if second != self._second:
            self._last = self._count if second == self._second + 1 else 0
            self._second, self._count = second, 0
        self._count += 1
        retry_s = min(1 + max(self._count, self._last) // self.each_s, MAX_RETRY_S)
        return retry_s if retry_s < KEPT_OPEN_S else max(retry_s, KEPT_OPEN_S + 2)


@lru_cache(maxsize=4)
def encode_overloaded(model_version: str | None) -> bytes:
    """Return the body of the refusal for what is too much."""
    message = "More is asked than can be answered now. Try again in a second."
    return bytes(build_refusal(ApiError(503, message, code="overloaded"), model_version).body)
