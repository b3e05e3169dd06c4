"""A progress bar on stderr for work that takes a while; silent where stderr is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def show_progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of finished steps.

    Parameters
    ----------
    what : the work, in a word or two
    total : all steps; None where nobody can count them, and the bar only shows that work goes on
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def show_transfer(what: str, total_bytes: int) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes the bytes and the rows read so far; shows MB, MB/s, rows and the time left.

    Parameters
    ----------
    what : the work, in a word or two
    total_bytes : how much there is to read
    """
    if not sys.stderr.isatty():
        yield lambda done, rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task(what, total=total_bytes, rows=0)
        yield lambda done, rows: progress.update(task, completed=done, rows=rows)


@contextmanager
def show_trials(total: int, deadline: float | None) -> Iterator[Callable[[int, str, float], None]]:
    """Yield a function that takes the finished trials, the best one's name and its score; shows the time left too.

    Parameters
    ----------
    total : trials at most
    deadline : `time.monotonic()` at which the search ends at the latest; None sets no time
    """
    if not sys.stderr.isatty():
        yield lambda done, best, score: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("trying candidates"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task("", total=total)

        def show(done: int, best: str, score: float) -> None:
            left = "" if deadline is None else f", {max(deadline - time.monotonic(), 0):.0f} s left"
            progress.update(task, completed=done, description=f"best: {best} {score:,.4f}{left}")

        yield show
