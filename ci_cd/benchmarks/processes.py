"""Run a command for a bounded time, and see who else was at work meanwhile."""

import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from environments import BenchError


def run_bounded(command: Sequence[str], folder: Path, limit_s: float) -> None:
    """Run a command in a folder; stop it, and what it started, after so many seconds.

    Raises
    ------
    BenchError : it failed or was stopped; with the last line it said
    """
    steering = ("PIPELINE_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"stopped after {limit_s:.0f} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if code:
        raise BenchError(f"exit code {code}: {lines[-1] if lines else 'it said nothing'}")


def read_cpu_s() -> tuple[float, float] | None:
    """Return how long all cores together have worked, for anybody and for our children that ended; None off Linux."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text(encoding="ascii").split()[1:9])
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK"), children.ru_utime + children.ru_stime


def find_others(before: tuple[float, float] | None, after: tuple[float, float] | None, seconds: float) -> float | None:
    """Return how many cores worked for somebody else between two answers of `read_cpu_s`, on average."""
    if before is None or after is None:
        return None
    everybody, ours = after[0] - before[0], after[1] - before[1]
    return max(0.0, (everybody - ours) / seconds)
