"""Processes of one thread each that fit candidates side by side, and this process itself where rows are few."""

import queue
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

from joblib import cpu_count
from joblib.externals.loky import ProcessPoolExecutor
from sklearn.base import BaseEstimator

from data_ingestion.handoff import naming_errors
from models.candidates import Candidate, Problem
from models.fold_work import (
    FoldResult,
    FoldTable,
    fit_fold,
    fit_shared_fold,
    fit_shared_whole,
    fit_whole,
    share_table,
)

P = ParamSpec("P")
R = TypeVar("R")

MIN_ROWS_PROCESSES = 5_000  # below this, starting worker processes costs more than it saves
MEMORY_BYTES = 3_000_000_000  # what the copies of the table in all workers may take together
COPIES = 3  # of its part of the table that a worker holds while it fits


class Workers:
    """Fits candidates on folds, and on all rows; a context manager that stops its processes.

    Parameters
    ----------
    table : the train rows
    n_workers : how many processes; 1 fits in this one
    """

    def __init__(self, table: FoldTable, n_workers: int) -> None:
        self.n_workers = n_workers
        self._table = table
        self._folder = tempfile.TemporaryDirectory(prefix="train_model_")
        self._pool: ProcessPoolExecutor | None = None
        if n_workers > 1:
            with naming_errors(Path(self._folder.name)):
                share_table(table, Path(self._folder.name))
            self._pool = _start_pool(n_workers)

    def __enter__(self) -> "Workers":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the processes and remove their files."""
        if self._pool is not None:
            _stop_pool(self._pool)
        self._folder.cleanup()

    def name_file(self, trial: int) -> str:
        """Return where the estimator of a trial is kept."""
        return str(Path(self._folder.name) / f"trial_{trial}.pkl")

    def fit_fold(self, candidate: Candidate, problem: Problem, fold: int, path: str | None) -> "Future[FoldResult]":
        """Fit on one fold and judge by its other rows; see `fold_work.fit_fold`."""
        if self._pool is None:
            return _run_now(fit_fold, self._table, candidate, problem, fold, path)
        future: Future[FoldResult] = self._pool.submit(
            fit_shared_fold, self._folder.name, candidate, problem, fold, path
        )
        return future

    def fit_whole(self, candidate: Candidate, problem: Problem, iterations: int | None) -> "Future[BaseEstimator]":
        """Fit on all rows, on one thread; see `fold_work.fit_whole`."""
        if self._pool is None:
            return _run_now(fit_whole, self._table, candidate, problem, iterations, 1)
        future: Future[BaseEstimator] = self._pool.submit(
            fit_shared_whole, self._folder.name, candidate, problem, iterations
        )
        return future

    def fit_whole_here(self, candidate: Candidate, problem: Problem, iterations: int | None) -> BaseEstimator:
        """Fit on all rows in this process, on all cores where rows are many."""
        return fit_whole(self._table, candidate, problem, iterations, None)

    def drop_work(self) -> None:
        """Give up what is being done, and be ready for other work."""
        if self._pool is not None:
            _stop_pool(self._pool)
            self._pool = _start_pool(self.n_workers)


def count_workers(table: FoldTable) -> int:
    """Return how many processes pay and fit into memory."""
    if len(table.y) < MIN_ROWS_PROCESSES:
        return 1
    return max(min(int(cpu_count()), MEMORY_BYTES // (COPIES * table.values.nbytes)), 1)


def _start_pool(n_workers: int) -> ProcessPoolExecutor:
    with _ignore_interrupts():
        pool = ProcessPoolExecutor(max_workers=n_workers, timeout=None)
        pool.submit(int)  # starts all processes
    return pool


def _stop_pool(pool: ProcessPoolExecutor) -> None:
    """Stop the processes, whatever they are doing; loky does it with a tool of the system, which Ctrl-C would end."""
    # When it kills, loky forgets the work that waits, and its thread then fails on the ids that are still queued.
    with suppress(queue.Empty):
        while True:
            pool._work_ids.get_nowait()
    with _ignore_interrupts():
        pool.shutdown(kill_workers=True)


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Let processes started inside never see Ctrl-C, which is for this process to act on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run_now(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
    """Return a finished future of a call made at once."""
    future: Future[R] = Future()
    try:
        future.set_result(function(*args, **kwargs))
    except Exception as err:  # noqa: BLE001 - raised by whoever asks for the result, as a pool does it
        future.set_exception(err)
    return future
