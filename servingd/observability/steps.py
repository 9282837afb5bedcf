"""Metrics of composites: how often, how long and with what outcome their steps run."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric

from servingd.core.types import ServableId
from servingd.errors import ServingError


class StepMetrics:
    """Counts by composite, version, step and code. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The number of steps, and their seconds; guarded by _lock.
        self._ended: dict[ServableId, dict[tuple[str, str], tuple[int, float]]] = {}

    def ended(
        self, servable_id: ServableId, step: str, seconds: float, error: ServingError | None
    ) -> None:
        """Count a step that has ended; on any thread."""
        key = (step, "OK" if error is None else error.code.name)
        with self._lock:
            steps = self._ended.setdefault(servable_id, {})
            count, total = steps.get(key, (0, 0.0))
            steps[key] = (count + 1, total + seconds)

    def forget(self, servable_id: ServableId) -> None:
        """Remove the series of an unloaded version."""
        with self._lock:
            self._ended.pop(servable_id, None)

    def collect(self) -> Iterable[Metric]:
        """Return the number of steps, and the seconds that they took."""
        labels = ("model", "version", "step", "code")
        steps = CounterMetricFamily(
            "servingd_steps", "Steps of composites that have ended.", labels=labels
        )
        seconds = CounterMetricFamily(
            "servingd_step_seconds", "Seconds that steps of composites took.", labels=labels
        )
        with self._lock:
            found = sorted((s, dict(of)) for s, of in self._ended.items())
        for servable_id, by_step in found:
            for (step, code), (count, total) in sorted(by_step.items()):
                values = (servable_id.name, str(servable_id.version), step, code)
                steps.add_metric(values, count)
                seconds.add_metric(values, total)
        return steps, seconds
