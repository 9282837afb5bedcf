"""What happened to calls in queues: why batches left, their sizes, how long calls waited."""

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
    """One signature's queue. Cells may be added to from any thread, the rest under its lock."""

    servable: ServableId
    signature: str
    configured: bool = False
    """Whether batching was asked for: TensorFlow Serving's families count only that."""
    queue_s: Histogram = field(default_factory=lambda: Histogram(QUEUE_EDGES_S))
    rows: Histogram = field(default_factory=lambda: Histogram(ROW_EDGES))
    dispatched: Counter[str] = field(default_factory=Counter)
    """Batches by why they left: `full`, `idle`, `timer` or `goal`."""
    refused: Counter[str] = field(default_factory=Counter)
    """Calls that were not let in, by code."""
    dropped: int = 0
    """Calls whose time was up, or whose client had gone, before they ran."""
    waiting_rows: int = 0
    input_rows: Histogram = field(default_factory=lambda: Histogram(ROW_EDGES))
    """Rows of each input tensor of each call that was merged by rule."""
    padding: dict[int, Histogram] = field(default_factory=dict)
    """Rows that only fill up, by the size of the batch."""


class BatchMetrics:
    """All queues that are open; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: dict[tuple[ServableId, str], QueueStats] = {}  # guarded by _lock

    def open(self, servable_id: ServableId, signature: str, configured: bool = False) -> QueueStats:
        """The figures of a queue that begins."""
        stats = QueueStats(servable_id, signature, configured)
        with self._lock:
            self._runners[servable_id, signature] = stats
        return stats

    def close(self, servable_id: ServableId) -> None:
        """A version's queues have ended."""
        with self._lock:
            for key in [key for key in self._runners if key[0] == servable_id]:
                del self._runners[key]

    def rows_in_use(self, model: str) -> dict[str, tuple[int, ...]]:
        """By signature of a model, the sizes of its batches: those that one in a hundred has.

        Where batches are filled up to allowed sizes, these are exact, else powers of two.
        """
        found: dict[str, tuple[int, ...]] = {}
        for runner in self.runners():
            if runner.servable.name == model:
                sizes = _usual(runner)
                found[runner.signature] = tuple(sorted({*found.get(runner.signature, ()), *sizes}))
        return found

    def runners(self) -> list[QueueStats]:
        """Those that have seen a call, in order."""
        with self._lock:
            found = sorted(self._runners.items())
        active = (stats for _, stats in found)
        return [s for s in active if s.dispatched or s.refused or s.waiting_rows]


def _usual(runner: QueueStats) -> list[int]:
    if runner.padding:
        return list(runner.padding.copy())
    rows = runner.rows.copy()
    counts = zip(ROW_EDGES, rows.buckets[1:], strict=True)  # a bucket begins with its lower edge
    return [int(edge) for edge, count in counts if count * 100 >= max(1, rows.count)]
