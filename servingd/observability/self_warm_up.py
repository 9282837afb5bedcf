"""Metrics of self-warming: kept requests, and how many of them new versions have run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from servingd.core.types import ServableId


class SelfWarmUpMetrics:
    """Counts by version, as long as it is loaded. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: dict[ServableId, dict[str, int]] = {}  # guarded by _lock
        self.kept: Callable[[], Mapping[str, tuple[int, int]]] = dict
        """Returns the number and bytes of kept requests, by model; set before the start."""

    def warmed(self, servable_id: ServableId, outcomes: Mapping[str, int]) -> None:
        """Record that a version has run kept requests; the counts of several loads add up."""
        with self._lock:
            known = self._outcomes.setdefault(servable_id, {})
            for outcome, count in outcomes.items():
                known[outcome] = known.get(outcome, 0) + count

    def forget(self, servable_id: ServableId) -> None:
        """Remove the series of an unloaded version."""
        with self._lock:
            self._outcomes.pop(servable_id, None)

    def collect(self) -> Iterable[Metric]:
        """Return the kept requests that versions have run, and those that are kept now."""
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
