"""A progress bar on stderr for work that takes a while; silent where stderr is no terminal."""

import sys
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
