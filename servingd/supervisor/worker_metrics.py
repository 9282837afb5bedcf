"""Metrics of the workers themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from servingd.supervisor.fleet.fleet import WorkerFleet

_STATES = ("starting", "joining", "serving", "leaving")


class WorkerMetrics(Collector):
    """Reads the fleet when somebody asks."""

    def __init__(self, fleet: WorkerFleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterable[Metric]:
        """Return the number of workers by state, their restarts, and their memory."""
        seen = self._fleet.crew.seen
        states = Counter(worker.state for worker in seen)
        workers = GaugeMetricFamily(
            "servingd_workers", "Worker processes by state.", labels=("state",)
        )
        for state in _STATES:
            workers.add_metric((state,), states[state])
        restarts = CounterMetricFamily(
            "servingd_worker_restarts",
            "Workers that were replaced, by the reason: a signal, oom, exit, silent or recycled.",
            labels=("reason",),
        )
        for reason, count in sorted(self._fleet.crew.restarts.copy().items()):
            restarts.add_metric((reason,), count)
        resident = GaugeMetricFamily(
            "servingd_worker_resident_bytes",
            "Resident memory of each worker at its last heartbeat.",
            labels=("worker",),
        )
        for worker in seen:
            resident.add_metric((str(worker.number),), worker.resident_bytes)
        unanswered = CounterMetricFamily(
            "servingd_worker_unanswered",
            "Questions about metrics and status that a worker did not answer within a second.",
            value=self._fleet.unanswered,
        )
        return workers, restarts, resident, unanswered
