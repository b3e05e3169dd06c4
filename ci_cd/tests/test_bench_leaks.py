"""bench_leaks.py: what it calls growth."""

import os
import sys
import threading
from importlib import import_module

import pytest
from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "ci_cd/benchmarks"))
bench = import_module("bench_leaks")

MIB = 2**20
QUIET = [bench.Held((80 + place % 3) * MIB, 14 + place % 2, 7) for place in range(12)]


def test_nothing_grows_when_figures_only_vary_or_grow_at_first() -> None:
    warm = [bench.Held(40 * MIB, 5, 2)] * 4
    assert bench.find_growth(QUIET) == []
    assert bench.find_growth(warm + QUIET[4:]) == []


def test_what_grows_is_named() -> None:
    leaking = [bench.Held(one.memory_bytes + 3 * MIB * place, 14 + place, 7) for place, one in enumerate(QUIET)]
    memory, files = bench.find_growth(leaking)
    assert memory.startswith("memory grew from ")
    assert files == "files grew from 20 to 24"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_held_counts_files_and_threads_of_a_process() -> None:
    before = bench.read_held(os.getpid())
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    reader, writer = os.pipe()
    after = bench.read_held(os.getpid())
    release.set()
    thread.join()
    os.close(reader)
    os.close(writer)
    assert (after.files - before.files, after.threads - before.threads) == (2, 1)
    assert before.memory_bytes > MIB
