"""Counts requests, rows, warnings and models in a microsecond or two a request, and shows them for all workers.

The numbers lie in slots that all workers of one server can read: see slots.py. exposition.py writes them down.
"""

import logging
import os
import time
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from app.metrics.shared_folder import list_folders, make_folder, sweep_leftovers
from app.metrics.slots import Slots

logger = logging.getLogger(__name__)

# Upper bounds in seconds. A row takes about a tenth of a millisecond, a full batch some of them.
BUCKETS = (
    *(0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075),
    *(0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
GAUGES = ("in_flight", "model", "pid", "started")  # what they say of a worker ends with it
COUNTERS = ("requests", "rows", "warnings", "loads")
WIDTHS = dict.fromkeys(GAUGES + COUNTERS, 1) | {"seconds": len(BUCKETS) + 2}  # the sum, the buckets, and all beyond


class RequestSlots(dict[tuple[str, int], tuple[int, int]]):
    """The slots of a path and a status: of the counter, and of the path's histogram."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    def __missing__(self, key: tuple[str, int]) -> tuple[int, int]:
        path, status = key
        found = self[key] = self.slots.find(("requests", path, str(status))), self.slots.find(("seconds", path))
        return found


class Metrics:
    """What one process counts. `enter`, `observe` and `leave` are for the thread of the event loop, the rest for any.

    Parameters
    ----------
    folder : METRICS_DIR; None finds a folder when there are other workers
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._lock = Lock()
        self._use(Slots(WIDTHS))

    def start(self) -> None:
        """Share the numbers with the other workers from now on; what was counted before is forgotten.

        To be called in the process that answers, before it does. Without other workers the process counts for itself,
        and so it does, with a warning, where no folder can be written.
        """
        folders = list_folders(self.folder)
        if folders is None:
            return
        for folder in folders:
            try:
                make_folder(folder, is_private=folder != self.folder)
                self._use(Slots(WIDTHS, folder))
            except OSError as err:
                logger.debug("no metrics in %s: %s", folder, err)
                continue
            if folder != self.folder:
                sweep_leftovers(folder.parent)
            return
        tried = ", ".join(map(str, folders)) or "temporary files"
        logger.warning("cannot write %s: /metrics shows one worker at a time. Set METRICS_DIR to a folder.", tried)

    def stop(self) -> None:
        """Leave the numbers to the other workers; this one lives no longer, as they see it."""
        self._slots.close()
        self._use(Slots(WIDTHS))

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Parameters
        ----------
        path : its route's template, or "other"; each one takes room for good
        """
        counter, histogram = self._requests[path, status]
        values = self._values
        values[counter] += 1.0
        values[histogram] += seconds
        values[histogram + 1 + bisect_left(BUCKETS, seconds)] += 1.0

    def enter(self) -> None:
        """Count a request that has begun."""
        self._values[self._in_flight] += 1.0

    def leave(self) -> None:
        """Count a request that has ended."""
        self._values[self._in_flight] -= 1.0

    def count_rows(self, answered: int, refused: int) -> None:
        """Count rows that were predicted, and rows that were refused."""
        with self._lock:
            self._values[self._answered] += answered
            self._values[self._refused] += refused

    def count_warnings(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Count rows by feature and warning: "missing", "unseen" or "out_of_range"."""
        slots = {key: self._slots.find(("warnings", *key)) for key in counts}
        with self._lock:
            for key, rows in counts.items():
                self._values[slots[key]] += rows

    def set_model(self, version: str | None) -> None:
        """Say which model this worker serves."""
        self._clear("model")
        if version is not None:
            self._values[self._slots.find(("model", version))] = 1.0

    def count_load(self, outcome: str) -> None:
        """Count a model that was loaded: "served" or "refused"."""
        with self._lock:
            self._values[self._slots.find(("loads", outcome))] += 1.0

    def render(self) -> tuple[bytes, str]:
        """Return what all workers counted, in Prometheus' text format, and its content type."""
        from app.metrics.exposition import (
            write_exposition,  # its library takes longer to import than the rest of a start
        )

        return write_exposition(self._slots.take_snapshots())

    def _use(self, slots: Slots) -> None:
        """Count in these slots, in which a worker that has died may have counted before."""
        self._slots = slots
        self._values = slots.values
        self._requests = RequestSlots(slots)
        self._in_flight = slots.find(("in_flight",))
        self._answered, self._refused = (slots.find(("rows", outcome)) for outcome in ("answered", "refused"))
        for outcome in ("served", "refused"):
            slots.find(("loads", outcome))  # shown from the start: an alert needs to see a counter leave 0
        for family in GAUGES:
            self._clear(family)
        self._values[slots.find(("pid",))] = os.getpid()
        self._values[slots.find(("started",))] = time.time()

    def _clear(self, family: str) -> None:
        for key in self._slots.list_names():
            if key[0] == family:
                self._values[self._slots.find(key)] = 0.0
