"""A table that is read row group by row group, worked on by as many threads as there are cores, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition
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
    threads = threads or os.cpu_count() or 1
    turn, following = Condition(), _Following()
    waiting: deque[Future[Result]] = deque()

    def read_and_work(number: int) -> Result:
        with turn:  # in order: only who has read all groups before knows where this one starts
            turn.wait_for(lambda: following.number == number)
            start = following.start
            try:
                table = groups.read_group(number, columns)  # its columns in threads of the reader's own
                following.start += table.num_rows
            finally:
                following.number += 1
                turn.notify_all()
        return work(start, table)

    with ThreadPoolExecutor(threads) as pool, show_progress(what, groups.num_groups) as report:
        try:
            for number in range(groups.num_groups):
                waiting.append(pool.submit(read_and_work, number))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
                    report(number)
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in reversed(waiting):  # or one that starts would wait for one that never does
                future.cancel()


@dataclass
class _Following:
    """The group to be read next, and the place of its first row."""

    number: int = 0
    start: int = 0
