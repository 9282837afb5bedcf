"""Gauges that change seldom: the state of each version, and of the configuration files."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge

from servingd.core.lifecycle.states import PublicState
from servingd.core.types import ServableId


class VersionGauges:
    """The public state of each version, the state of its graph, and which are incomplete."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._state = Gauge(
            "servingd_model_state",
            "State of a version: 10 start, 20 loading, 30 available, 40 unloading, 50 failed.",
            ("model", "version"),
            registry=registry,
        )
        self._graph = Gauge(
            "servingd_model_graph",
            "1 for the state of a version's graph: plain, optimising, optimised or declined.",
            ("model", "version", "state"),
            registry=registry,
        )
        self._incomplete = Gauge(
            "servingd_model_incomplete",
            "1 for a version that is on disk but not complete.",
            ("model", "version"),
            registry=registry,
        )
        self._graph_states: dict[ServableId, str] = {}
        self._incomplete_now: dict[str, frozenset[int]] = {}

    def set_state(self, servable_id: ServableId, state: PublicState) -> None:
        """Show a version's public state."""
        self._state.labels(servable_id.name, str(servable_id.version)).set(int(state))

    def forget_state(self, name: str, version: int) -> None:
        """Remove the public state of a version that has gone."""
        self._state.remove(name, str(version))

    def set_graph(self, servable_id: ServableId, state: str) -> None:
        """Show the state of a SavedModel's graph; an empty state removes it."""
        labels = (servable_id.name, str(servable_id.version))
        before = self._graph_states.pop(servable_id, "")
        if before:
            self._graph.remove(*labels, before)
        if state:
            self._graph_states[servable_id] = state
            self._graph.labels(*labels, state).set(1)

    def set_incomplete(self, name: str, incomplete: Iterable[int]) -> None:
        """Show which versions of a model are not complete."""
        versions = frozenset(incomplete)
        for version in self._incomplete_now.pop(name, frozenset()):
            self._incomplete.remove(name, str(version))
        if versions:
            self._incomplete_now[name] = versions
        for version in versions:
            self._incomplete.labels(name, str(version)).set(1)


class ReloadGauges:
    """How the last reading of the configuration files ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._succeeded = Gauge(
            "servingd_config_last_reload_successful",
            "1 if the configuration files were applied when last read, else 0.",
            registry=registry,
        )
        self._succeeded_at = Gauge(
            "servingd_config_last_reload_success_timestamp_seconds",
            "When the configuration files were last read and applied.",
            registry=registry,
        )
        self.ended(True)  # a server starts with the files just read

    def ended(self, succeeded: bool) -> None:
        """Show that the files were read again, and whether that succeeded."""
        self._succeeded.set(succeeded)
        if succeeded:
            self._succeeded_at.set_to_current_time()
