"""A table that is read row group by row group, worked on by as many threads as there are cores, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Protocol, TypeVar

import pyarrow as pa

from data_ingestion.progress import show_progress

Result = TypeVar("Result")


class RowGroups(Protocol):
    """What `sealed_parquet.ParquetSource` is: rows in groups, read one group at a time."""

    @property
    def num_rows(self) -> int:
        """How many rows there are."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    @property
    def num_groups(self) -> int:
        """How many groups there are."""

    def read_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return one group."""


def find_starts(groups: RowGroups) -> list[int]:
    """Return the place of each group's first row among all rows."""
    starts, start = [], 0
    for number in range(groups.num_groups):
        starts.append(start)
        start += groups.read_group(number, []).num_rows
    return starts


def map_groups(
    groups: RowGroups,
    columns: Sequence[str],
    work: Callable[[int, pa.Table], Result],
    what: str,
    threads: int | None = None,
) -> Iterator[Result]:
    """Yield `work(start, table)` of each group in order, worked out ahead by a few threads.

    Parameters
    ----------
    groups : the rows
    columns : those to read
    work : takes the place of the group's first row and the group; runs in any thread, so it must not change anything
        that another group sees
    what : the work, in a word or two, for the progress bar
    threads : None means one per core
    """
    reading, threads = Lock(), threads or os.cpu_count() or 1
    waiting: deque[Future[Result]] = deque()

    def read_and_work(number: int, start: int) -> Result:
        with reading:  # the reader decodes the columns of one group in threads of its own
            table = groups.read_group(number, columns)
        return work(start, table)

    with ThreadPoolExecutor(threads) as pool, show_progress(what, groups.num_groups) as report:
        try:
            for number, start in enumerate(find_starts(groups)):
                waiting.append(pool.submit(read_and_work, number, start))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
                    report(number)
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
