"""Answers single rows as soon as they have come, where uvicorn would make a task of each and come back to it later.

A row takes less time than a task and the round of the event loop that it would wait for. Requests are handled by
uvicorn's own code, step by step as always; a row only begins at once. Where it has to wait, a task goes on with it.
"""

from collections.abc import Coroutine, Generator
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.front.direct import PREDICT

Handling = Coroutine[Any, Any, None]


class EagerProtocol(HttpToolsProtocol):
    """A connection of uvicorn that begins with a single row in the moment in which the last of its body has come."""

    _rows: list[tuple[RequestResponseCycle, Any]] | None = None  # that come with the data, while it is parsed

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and answer a row that is there whole."""
        rows: list[tuple[RequestResponseCycle, Any]] = []
        self._rows = rows
        super().data_received(data)
        self._rows = None
        for cycle, app in rows:
            if cycle.more_body:
                super()._start_asgi_task(cycle, app)
            else:
                self._begin(cycle.run_asgi(app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Handle a request: a row once the data is parsed, everything else in a task."""
        is_row = cycle.scope["method"] == "POST" and cycle.scope["path"].endswith(PREDICT)
        if is_row and self._rows is not None:
            self._rows.append((cycle, app))
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, handling: Handling) -> None:
        try:
            awaited = handling.send(None)
        except StopIteration:
            return
        task = self.loop.create_task(Begun(handling, awaited))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Begun(Coroutine[Any, Any, None]):
    """A coroutine that has begun: whoever drives it hears first what it waits for, and then drives the rest."""

    def __init__(self, handling: Handling, awaited: object) -> None:
        self._rest = handling
        self._waits = iter([awaited])

    def send(self, value: Any) -> Any:
        """Go on after what was waited for."""
        for awaited in self._waits:
            return awaited
        return self._rest.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error, or because the task is cancelled."""
        return self._rest.throw(*error)

    def close(self) -> None:
        """End it."""
        self._rest.close()

    def __await__(self) -> Generator[Any, Any, None]:
        """Raise: it is for a task."""
        raise TypeError("only a task can go on with it")


def begin_rows_at_once(config: Config) -> None:
    """Let a server use this for the connections to come, where it would use uvicorn's own with httptools."""
    if config.http_protocol_class is HttpToolsProtocol and not config.reset_contextvars:
        config.http_protocol_class = EagerProtocol
