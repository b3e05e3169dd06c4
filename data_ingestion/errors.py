"""Expected failures: one line that says what is wrong and what to do, and an exit code that says of what sort."""

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("pyarrow", "numpy", "pandas", "sklearn", "joblib", "scipy", "mlflow", "matplotlib", "filelock", "rich")
EXIT_BAD_INPUT = 2  # a flag, a parameter, a source file or a hand-off is not as expected
EXIT_UNAVAILABLE = 69  # the tracking store does not answer (EX_UNAVAILABLE of sysexits.h)
EXIT_CANNOT_WRITE = 74  # the disk is full, or the folder cannot be written (EX_IOERR of sysexits.h)
EXIT_BUSY = 75  # another run holds this root (EX_TEMPFAIL)


class PipelineError(Exception):
    """An expected failure: one sentence what is wrong, one what to do. Shown without a traceback."""

    def __init__(self, message: str, exit_code: int = EXIT_BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def write_error(path: Path, err: OSError, temporary: Path | None = None) -> PipelineError:
    """Return the one-line error for a failed write of `path`."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(next(folder for folder in path.parents if folder.exists())).free
        needed = temporary.stat().st_size + 1 if temporary is not None and temporary.exists() else 1
        why = f"the disk is full ({free:,} bytes free, more than {needed:,} needed for this file)"
        repair = "Free some space"
    else:
        why = os.strerror(err.errno) if err.errno else str(err)
        repair = f"Make {path.parent} a folder that this user can write to"
    message = f"cannot write {path}: {why}. Every earlier file is still whole. {repair}, then run the command again."
    return PipelineError(message, EXIT_CANNOT_WRITE)


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Turn a failed write inside the block into the one-line error for `path`."""
    try:
        yield
    except OSError as err:
        raise write_error(path, err) from err


def check_present(path: Path, made_by: str) -> None:
    """Raise a one-line error naming the command to run when a hand-off is not there."""
    if not path.is_file():
        raise PipelineError(f"{path} is not there yet. Run: python {made_by}")


def damaged_error(path: Path, made_by: str) -> PipelineError:
    """Return the one-line error for a hand-off that fails its checks."""
    return PipelineError(f"{path} is damaged: its content is not what was written. Run again: python {made_by}")


def stale_error(path: Path, reason: str, made_by: str) -> PipelineError:
    """Return the one-line error for a hand-off that no longer matches what it was made from."""
    return PipelineError(f"{path} is out of date: {reason}. Run again: python {made_by}")


def to_line(text: str) -> str:
    """Return a text as one line that a terminal shows as it is, whatever a cell or a name in it holds."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def run_stage(main: Callable[[], int | None]) -> int:
    """Run a stage's `main` and return its exit code; an expected error becomes one line on stderr."""
    try:
        return main() or 0
    except PipelineError as err:
        print(f"error: {to_line(str(err))}", file=sys.stderr)
        return err.exit_code
    except ModuleNotFoundError as err:
        if err.name not in PACKAGES:
            raise
        python = "no such environment" if sys.prefix == sys.base_prefix else sys.prefix
        print(
            f"error: {err.name} is not installed here ({python}). Use .venv/bin/python, which make run makes, or: "
            "pip install --require-hashes -r requirements.txt",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("error: interrupted; every file is whole. Run the command again", file=sys.stderr)
        return 130
