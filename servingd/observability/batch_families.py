"""What queues and batches look like to Prometheus: our families, and TensorFlow Serving's."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from servingd.observability.batches import QUEUE_EDGES_S, ROW_EDGES, BatchMetrics
from servingd.observability.requests import Cell
from servingd.observability.serving_families import Family, Labels, cumulative

_LABELS = ("model", "version", "signature")
_US = 1e6


class BatchCollector:
    """Our families, read from the queues' figures."""

    def __init__(self, batches: BatchMetrics) -> None:
        self._batches = batches

    def collect(self) -> Iterable[Metric]:
        """One series per signature that has queued a call."""
        left = CounterMetricFamily(
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
        for lane in self._batches.lanes():
            labels = (lane.servable.name, str(lane.servable.version), lane.signature)
            for reason, count in sorted(lane.left.copy().items()):
                left.add_metric((*labels, reason), count)
            for reason, count in sorted(lane.refused.copy().items()):
                refused.add_metric((*labels, reason.lower()), count)
            for family, cell in ((rows, lane.rows.copy()), (waits, lane.queue_s.copy())):
                family.add_metric(labels, list(cumulative(cell)), cell.total)
            waiting.add_metric(labels, lane.waiting_rows)
            dropped.add_metric(labels, lane.dropped)
        return left, rows, waits, waiting, refused, dropped


def batching_session(batches: BatchMetrics) -> list[Family]:
    """TensorFlow Serving's families, of queues whose batching was asked for."""
    lanes = [lane for lane in batches.lanes() if lane.configured]
    queueing, sizes, inputs = Cell(QUEUE_EDGES_S), Cell(ROW_EDGES), Cell(ROW_EDGES)
    padding: dict[int, Cell] = {}
    for lane in lanes:
        queueing.merge(lane.queue_s.copy())
        sizes.merge(lane.rows.copy())
        inputs.merge(lane.input_rows.copy())
        for rows, cell in lane.padding.copy().items():
            padding.setdefault(rows, Cell(ROW_EDGES)).merge(cell.copy())
    padded: list[tuple[Labels, int | Cell]] = [
        ((("execution_batch_size", str(rows)),), cell) for rows, cell in sorted(padding.items())
    ]

    def family(
        name: str, kind: str, rows: list[tuple[Labels, int | Cell]], unit: float = 1.0
    ) -> Family:
        raw = f"/tensorflow/serving/batching_session/{name}"
        return Family(raw, kind, rows if lanes else [], unit)

    return [
        family("queuing_latency", "histogram", [((("thread_pool_name", ""),), queueing)], _US),
        family("wrapped_run_count", "counter", [((), sizes.count)]),
        family("padding_size", "histogram", padded),
        family("input_batch_size", "histogram", [((), inputs)]),
        family("processed_batch_size", "histogram", [((), sizes)]),
    ]
