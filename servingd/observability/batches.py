"""Figures of queues: batches by reason and size, waiting times, refused and dropped calls."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from servingd.core.types import ServableId
from servingd.observability.requests import Histogram

ROW_EDGES: tuple[float, ...] = tuple(float(2**i) for i in range(14))
QUEUE_EDGES_S: tuple[float, ...] = tuple(100e-6 * 1.2**i for i in range(52))
"""TensorFlow Serving's bucket edges of `batching_session`."""


@dataclass(slots=True)
class QueueStats:
    """One signature's queue. Histograms are thread-safe; the queue's lock guards the rest."""

    servable: ServableId
    signature: str
    configured: bool = False
    """Whether it has batching parameters: TensorFlow Serving's families count only such queues."""
    queue_s: Histogram = field(default_factory=lambda: Histogram(QUEUE_EDGES_S))
    rows: Histogram = field(default_factory=lambda: Histogram(ROW_EDGES))
    dispatched: Counter[str] = field(default_factory=Counter)
    """The number of batches by the reason of their dispatch: `full`, `idle`, `timer` or `goal`."""
    refused: Counter[str] = field(default_factory=Counter)
    """The number of refused calls, by code."""
    dropped: int = 0
    """The number of calls that expired or were cancelled before they ran."""
    waiting_rows: int = 0
    input_rows: Histogram = field(default_factory=lambda: Histogram(ROW_EDGES))
    """Rows of each input tensor of each call that was merged by batching parameters."""
    padding: dict[int, Histogram] = field(default_factory=dict)
    """Padding rows, by the size of the batch."""


class BatchMetrics:
    """The figures of all open queues. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: dict[tuple[ServableId, str], QueueStats] = {}  # guarded by _lock

    def open(self, servable_id: ServableId, signature: str, configured: bool = False) -> QueueStats:
        """Return the figures of a new queue."""
        stats = QueueStats(servable_id, signature, configured)
        with self._lock:
            self._runners[servable_id, signature] = stats
        return stats

    def close(self, servable_id: ServableId) -> None:
        """Forget the figures of a version's queues."""
        with self._lock:
            for key in [key for key in self._runners if key[0] == servable_id]:
                del self._runners[key]

    def rows_in_use(self, model: str) -> dict[str, tuple[int, ...]]:
        """Return the batch sizes of a model by signature: those of at least 1 % of its batches.

        They are exact where batches are padded to allowed sizes, else powers of two.
        """
        found: dict[str, tuple[int, ...]] = {}
        for runner in self.runners():
            if runner.servable.name == model:
                sizes = _usual_sizes(runner)
                found[runner.signature] = tuple(sorted({*found.get(runner.signature, ()), *sizes}))
        return found

    def runners(self) -> list[QueueStats]:
        """Return the figures of the queues that have seen a call, in order."""
        with self._lock:
            found = sorted(self._runners.items())
        active = (stats for _, stats in found)
        return [s for s in active if s.dispatched or s.refused or s.waiting_rows]


def _usual_sizes(runner: QueueStats) -> list[int]:
    if runner.padding:
        return list(runner.padding.copy())
    rows = runner.rows.copy()
    counts = zip(ROW_EDGES, rows.buckets[1:], strict=True)  # a bucket includes its lower edge
    return [int(edge) for edge, count in counts if count * 100 >= max(1, rows.count)]
