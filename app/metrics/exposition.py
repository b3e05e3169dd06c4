"""Writes what the workers counted as Prometheus reads it."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import CollectorRegistry

from app.metrics.counters import BUCKETS, GAUGES
from app.metrics.slots import Key, Snapshot

BOUNDS = [*map(str, BUCKETS), "+Inf"]
PROC = Path("/proc")

COUNTERS = {
    "requests": ("model_api_requests", "Requests answered, by route and status.", ("path", "status")),
    "rows": ("model_api_rows", "Rows predicted, and rows refused.", ("outcome",)),
    "warnings": ("model_api_warnings", "Rows with a warning, by feature and kind.", ("feature", "warning")),
    "loads": ("model_api_model_loads", "Models loaded and served, or refused.", ("outcome",)),
}
SUMMED_GAUGES = {
    "in_flight": ("model_api_requests_in_flight", "Requests being answered now.", ()),
    "model": ("model_api_model_info", "Workers that serve a model, by its version.", ("model_version",)),
}


class WorkerCollector:
    """Turns snapshots into metric families, as the library asks for them."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self.snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        """Yield every metric: counters of all workers, gauges of those that live."""
        sums = add_up(self.snapshots)
        alive = [snapshot for snapshot in self.snapshots if snapshot.is_alive]
        for family, (name, help_text, labels) in COUNTERS.items():
            yield fill(CounterMetricFamily(name, help_text, labels=labels), sums[family])
        yield build_histogram(sums["seconds"])
        for family, (name, help_text, labels) in SUMMED_GAUGES.items():
            present = {key: values for key, values in sums[family].items() if values[0] or not labels}
            yield fill(GaugeMetricFamily(name, help_text, labels=labels), present)
        yield GaugeMetricFamily("model_api_workers", "Worker processes that are alive.", value=len(alive))
        yield from describe_processes(alive)


def write_exposition(snapshots: Sequence[Snapshot]) -> tuple[bytes, str]:
    """Return the metrics of all workers in the text format, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerCollector(snapshots))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def add_up(snapshots: Iterable[Snapshot]) -> dict[str, dict[Key, list[float]]]:
    """Return the values of all workers together, by family and labels; gauges of the living ones alone."""
    sums: dict[str, dict[Key, list[float]]] = defaultdict(dict)
    for snapshot in snapshots:
        for (family, *labels), values in snapshot.values.items():
            if snapshot.is_alive or family not in GAUGES:
                known = sums[family].get(tuple(labels))
                added = list(values) if known is None else [a + b for a, b in zip(known, values, strict=True)]
                sums[family][tuple(labels)] = added
    return sums


def fill(metric: CounterMetricFamily | GaugeMetricFamily, values: dict[Key, list[float]]) -> Metric:
    """Return the metric with a sample for each set of labels, in their order."""
    for labels, (value,) in sorted(values.items()):
        metric.add_metric(labels, value)
    return metric


def build_histogram(values: dict[Key, list[float]]) -> Metric:
    """Return the durations, in buckets that count all below their bound, as the format wants them."""
    metric = HistogramMetricFamily("model_api_request_seconds", "Time to answer, by route.", labels=("path",))
    for labels, (total, *counts) in sorted(values.items()):
        metric.add_metric(labels, list(zip(BOUNDS, accumulate(counts), strict=True)), sum_value=total)
    return metric


def describe_processes(alive: Iterable[Snapshot]) -> Iterator[Metric]:
    """Yield when each worker started, and the memory it takes where the system has /proc."""
    started = GaugeMetricFamily(
        "model_api_worker_start_time_seconds", "When a worker started, in Unix time.", labels=("worker",)
    )
    memory = GaugeMetricFamily("model_api_worker_memory_bytes", "Memory that a worker occupies.", labels=("worker",))
    for snapshot in alive:
        for value in snapshot.values.get(("started",), []):  # not there yet when the worker is just starting
            started.add_metric((snapshot.worker,), value)
        for pid in snapshot.values.get(("pid",), []):
            occupied = read_memory(int(pid))
            if occupied is not None:
                memory.add_metric((snapshot.worker,), occupied)
    yield started
    yield memory


def read_memory(pid: int) -> int | None:
    """Return the bytes that a process occupies; None where that cannot be read."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
