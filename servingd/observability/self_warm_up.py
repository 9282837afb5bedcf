"""What is kept of requests, and how many of these new versions have answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from servingd.core.types import ServableId


class SelfWarmUpMetrics:
    """Counts by version, as long as it is loaded. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: dict[ServableId, dict[str, int]] = {}  # guarded by _lock
        self.kept: Callable[[], Mapping[str, tuple[int, int]]] = dict
        """By model, how many requests are kept, and their bytes; set once, before the start."""

    def warmed(self, servable_id: ServableId, outcomes: Mapping[str, int]) -> None:
        """A version has been warmed with kept requests; of a second load, the counts add up."""
        with self._lock:
            known = self._outcomes.setdefault(servable_id, {})
            for outcome, count in outcomes.items():
                known[outcome] = known.get(outcome, 0) + count

    def forget(self, servable_id: ServableId) -> None:
        """A version is unloaded: its series go."""
        with self._lock:
            self._outcomes.pop(servable_id, None)

    def collect(self) -> Iterable[Metric]:
        """What new versions have answered, and what is kept for the next ones."""
        answered = CounterMetricFamily(
            "servingd_self_warm_up_requests",
            "Kept requests that a version was warmed with before it served, by outcome.",
            labels=("model", "version", "outcome"),
        )
        requests = GaugeMetricFamily(
            "servingd_kept_requests", "Requests that are kept in memory.", labels=("model",)
        )
        size = GaugeMetricFamily(
            "servingd_kept_request_bytes", "Memory that they take.", labels=("model",)
        )
        with self._lock:
            found = sorted((s, dict(of)) for s, of in self._outcomes.items())
        for servable_id, outcomes in found:
            for outcome, count in sorted(outcomes.items()):
                answered.add_metric((servable_id.name, str(servable_id.version), outcome), count)
        for model, (count, taken) in sorted(self.kept().items()):
            requests.add_metric((model,), count)
            size.add_metric((model,), taken)
        return answered, requests, size
