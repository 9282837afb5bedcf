"""The Prometheus families of queues and batches: servingd's and TensorFlow Serving's."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from servingd.observability.batches import QUEUE_EDGES_S, ROW_EDGES, BatchMetrics
from servingd.observability.requests import Histogram
from servingd.observability.serving_families import Family, Labels, cumulative

_LABELS = ("model", "version", "signature")
_US = 1e6


class BatchCollector:
    """servingd's families, read from the queues' figures."""

    def __init__(self, batches: BatchMetrics) -> None:
        self._batches = batches

    def collect(self) -> Iterable[Metric]:
        """Return the families, with one series per signature that has queued a call."""
        dispatched = CounterMetricFamily(
            "servingd_batches", "Batches that ran, by why they left.", labels=(*_LABELS, "reason")
        )
        rows = HistogramMetricFamily("servingd_batch_rows", "Rows per batch.", labels=_LABELS)
        waits = HistogramMetricFamily(
            "servingd_queue_seconds", "Time that calls waited for their batch.", labels=_LABELS
        )
        waiting = GaugeMetricFamily("servingd_queue_rows", "Rows that wait.", labels=_LABELS)
        refused = CounterMetricFamily(
            "servingd_admission_refused",
            "Calls that were not let into a queue.",
            labels=(*_LABELS, "reason"),
        )
        dropped = CounterMetricFamily(
            "servingd_dropped_calls",
            "Calls that nobody waited for any more when their turn came.",
            labels=_LABELS,
        )
        for runner in self._batches.runners():
            labels = (runner.servable.name, str(runner.servable.version), runner.signature)
            for reason, count in sorted(runner.dispatched.copy().items()):
                dispatched.add_metric((*labels, reason), count)
            for reason, count in sorted(runner.refused.copy().items()):
                refused.add_metric((*labels, reason.lower()), count)
            for family, histogram in ((rows, runner.rows.copy()), (waits, runner.queue_s.copy())):
                family.add_metric(labels, list(cumulative(histogram)), histogram.total)
            waiting.add_metric(labels, runner.waiting_rows)
            dropped.add_metric(labels, runner.dropped)
        return dispatched, rows, waits, waiting, refused, dropped


def batching_session(batches: BatchMetrics) -> list[Family]:
    """Return TensorFlow Serving's families, of queues with batching parameters."""
    runners = [runner for runner in batches.runners() if runner.configured]
    queueing, sizes, inputs = Histogram(QUEUE_EDGES_S), Histogram(ROW_EDGES), Histogram(ROW_EDGES)
    padding: dict[int, Histogram] = {}
    for runner in runners:
        queueing.merge(runner.queue_s.copy())
        sizes.merge(runner.rows.copy())
        inputs.merge(runner.input_rows.copy())
        for rows, histogram in runner.padding.copy().items():
            padding.setdefault(rows, Histogram(ROW_EDGES)).merge(histogram.copy())
    padded: list[tuple[Labels, int | Histogram]] = [
        ((("execution_batch_size", str(rows)),), histogram)
        for rows, histogram in sorted(padding.items())
    ]

    def family(
        name: str, kind: str, rows: list[tuple[Labels, int | Histogram]], unit: float = 1.0
    ) -> Family:
        raw = f"/tensorflow/serving/batching_session/{name}"
        return Family(raw, kind, rows if runners else [], unit)

    return [
        family("queuing_latency", "histogram", [((("thread_pool_name", ""),), queueing)], _US),
        family("wrapped_run_count", "counter", [((), sizes.count)]),
        family("padding_size", "histogram", padded),
        family("input_batch_size", "histogram", [((), inputs)]),
        family("processed_batch_size", "histogram", [((), sizes)]),
    ]
