"""The Prometheus families of queues and batches: servingd's and TensorFlow Serving's."""

from __future__ import annotations

from servingd.observability.batches import QUEUE_EDGES_S, ROW_EDGES, BatchMetrics
from servingd.observability.requests import Histogram
from servingd.observability.text_format import Family, Labels

_US = 1e6


def batch_families(batches: BatchMetrics) -> list[Family]:
    """Return servingd's families, with one series per signature that has queued a call."""
    rows: list[tuple[Labels, int | Histogram]] = []
    waits, waiting, dropped = rows.copy(), rows.copy(), rows.copy()
    dispatched, refused = rows.copy(), rows.copy()
    for runner in batches.runners():
        model = ("model", runner.servable.name)
        rest = (("signature", runner.signature), ("version", str(runner.servable.version)))
        labels = (model, *rest)
        for reason, count in sorted(runner.dispatched.copy().items()):
            dispatched.append(((model, ("reason", reason), *rest), count))
        for reason, count in sorted(runner.refused.copy().items()):
            refused.append(((model, ("reason", reason.lower()), *rest), count))
        rows.append((labels, runner.rows.copy()))
        waits.append((labels, runner.queue_s.copy()))
        waiting.append((labels, runner.waiting_rows))
        dropped.append((labels, runner.dropped))
    return [
        Family(name, kind, found, help=text)
        for name, kind, found, text in (
            (
                "servingd_batches_total",
                "counter",
                dispatched,
                "Batches that ran, by the reason for their dispatch.",
            ),
            ("servingd_batch_rows", "histogram", rows, "Rows per batch."),
            (
                "servingd_queue_seconds",
                "histogram",
                waits,
                "Time that calls waited for their batch.",
            ),
            ("servingd_queue_rows", "gauge", waiting, "Rows waiting in the queue."),
            (
                "servingd_admission_refused_total",
                "counter",
                refused,
                "Calls that the queue refused, by status code.",
            ),
            (
                "servingd_dropped_calls_total",
                "counter",
                dropped,
                "Calls that had expired or were cancelled when their turn came.",
            ),
        )
    ]


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
