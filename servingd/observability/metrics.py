"""The metrics page: `text_format` writes the large families, prometheus-client the small ones."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ServableId
from servingd.observability.batch_families import batch_families, batching_session
from servingd.observability.batches import BatchMetrics
from servingd.observability.gauges import ReloadGauges, VersionGauges
from servingd.observability.placements import Placements
from servingd.observability.process import show_process
from servingd.observability.request_families import LoadTimes, request_families
from servingd.observability.requests import RequestMetrics
from servingd.observability.self_warm_up import SelfWarmUpMetrics
from servingd.observability.serving_families import ServingCounts, families
from servingd.observability.snapshots import MetricsSnapshot, snapshot_of
from servingd.observability.steps import StepMetrics
from servingd.observability.text_format import Family, first_value, write

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All metrics. Subscribe `on_state` to the state monitor."""

    def __init__(self) -> None:
        self.requests = RequestMetrics()
        self.counts = ServingCounts()
        self.batches = BatchMetrics()
        self.self_warm_up = SelfWarmUpMetrics()
        self.placements = Placements()
        self.steps = StepMetrics()
        self._loads = LoadTimes()
        self._registry = CollectorRegistry()
        self._registry.register(self.self_warm_up)
        self._registry.register(self.placements)
        self._registry.register(self.steps)
        self._versions = VersionGauges(self._registry)
        self.reloads = ReloadGauges(self._registry)
        self._lock = threading.Lock()
        self._configured: frozenset[str] | None = None  # guarded by _lock; None: not known yet
        # Guarded by _lock; False: the version has ended.
        self._live: dict[str, dict[int, bool]] = {}

    def on_state(self, state: ServableState) -> None:
        """Record a version's public state; remove the series of an unloaded version."""
        if state.state is PublicState.AVAILABLE:
            self.requests.revive(state.id)
        if state.state is PublicState.END:
            self.requests.retire(state.id)
            self.counts.forget(state.id)
            self.self_warm_up.forget(state.id)
            self.steps.forget(state.id)
        ended = state.state is PublicState.END
        gone = ended and state.error is None
        if gone:
            self._versions.forget_state(state.id.name, state.id.version)
        else:
            self._versions.set_state(state.id, state.state)
        with self._lock:
            versions = self._live.setdefault(state.id.name, {})
            versions[state.id.version] = not ended
            if gone:
                del versions[state.id.version]
            self._forget_removed(state.id.name)

    def configure(self, models: Iterable[str]) -> None:
        """Set the models that are served; the series of others are removed once they have ended."""
        with self._lock:
            before, self._configured = self._configured, frozenset(models)
            for name in {*self._live, *(before or ())}:
                self._forget_removed(name)

    def _forget_removed(self, name: str) -> None:
        """Remove the series of a model that is not served and whose versions have ended."""
        versions = self._live.get(name, {})
        if self._configured is None or name in self._configured or any(versions.values()):
            return
        for version in self._live.pop(name, {}):
            self._versions.forget_state(name, version)
        self._loads.forget(name)
        self.on_incomplete(name, {})
        self.requests.forget(name)
        self.counts.forget_model(name)

    def show_process(self) -> None:
        """Show this process's own figures as well; called once, by a server."""
        show_process(self._registry)

    def register(self, collector: Collector) -> None:
        """Show further families."""
        self._registry.register(collector)

    def on_graph_state(self, servable_id: ServableId, state: str) -> None:
        """Record the state of a SavedModel's graph; an empty state removes it."""
        self._versions.set_graph(servable_id, state)

    def on_incomplete(self, name: str, incomplete: Mapping[int, str]) -> None:
        """Record which versions of a model are not complete."""
        self._versions.set_incomplete(name, incomplete)

    def on_load(self, servable_id: ServableId, seconds: float, succeeded: bool) -> None:
        """Record one load attempt."""
        self._loads.record(servable_id, seconds, succeeded)

    def serving_values(self, names: Sequence[str]) -> dict[str, int]:
        """Return the metrics that HandleReloadConfig asks for, by TensorFlow Serving's names."""
        known = {family.raw_name: family for family in self._families()}
        return {name: first_value(known.get(name)) for name in names}

    def _families(self) -> list[Family]:
        found = families(self.requests, self.counts) + batching_session(self.batches)
        return sorted(found, key=lambda family: family.raw_name)

    def _own_families(self) -> list[Family]:
        requests, batches = request_families(self.requests), batch_families(self.batches)
        return [*requests, *batches, self._loads.family()]

    def snapshot(self) -> MetricsSnapshot:
        """Return all families as plain data, for another process to merge. Thread-safe."""
        return snapshot_of(self._own_families(), self._registry, self._families())

    def page(self) -> bytes:
        """Return all families as Prometheus text."""
        text = write(self._own_families()).encode(errors="replace")
        return text + generate_latest(self._registry) + self.serving_page()

    def serving_page(self) -> bytes:
        """Return TensorFlow Serving's families alone, as its own exporter writes them."""
        # A path need not be UTF-8.
        return write(self._families()).encode(errors="replace")
