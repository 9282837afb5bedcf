"""Carry out the manager's commands about versions, in the process that answers calls.

Theory of operation. A command about a version returns at once. What is slow (estimates, loads,
moves of replicas, unloads) runs on the pools of `LoadJobs`, and its end is reported as an event. So
the manager need not know whether it commands one process or several.
"""

from __future__ import annotations

from collections.abc import Callable

from servingd.core.callbacks import nothing
from servingd.core.lifecycle.events import (
    CancelLoad,
    Discard,
    Drained,
    Event,
    EventSink,
    LetGrow,
    LoadOverdue,
    Publish,
    Quiesce,
    Relocate,
    StartEstimate,
    StartLoad,
    StartUnload,
    VersionCommand,
)
from servingd.core.lifecycle.labels import Labels
from servingd.core.servable import Dispatcher, Loader
from servingd.core.types import ServableId, VersionData
from servingd.runtime.versions.load_jobs import Live, LoadJobs, OnLoad
from servingd.runtime.versions.options import LoadOptions
from servingd.runtime.versions.serving_map import ServingMap


class Versions:
    """The loaders and servables of this process; see `runtime.manager.fleet.Fleet`.

    `handle` and `give_up` are called by one thread.
    """

    def __init__(
        self,
        make_loader: Callable[[ServableId, VersionData], Loader],
        serving_map: ServingMap,
        dispatcher: Dispatcher,
        options: LoadOptions | None = None,
        on_load: OnLoad = nothing,
    ) -> None:
        self._live: dict[ServableId, Live] = {}  # the commanding thread alone
        self._serving_map = serving_map
        self._jobs = LoadJobs(make_loader, dispatcher, options or LoadOptions(), on_load)
        self._events: EventSink

    def start(self, events: EventSink) -> None:
        """Start the pools; every event is put into `events`."""
        self._events = events
        self._jobs.start(events)

    def report(self, event: Event) -> None:
        """Report an event of a version that serves. Thread-safe; returns at once."""
        self._events.put(event)

    def stop_loads(self, timeout_s: float) -> list[str]:
        """End the threads that load; return the names of those still running at the end."""
        return self._jobs.stop_loads(timeout_s)

    def stop(self, timeout_s: float) -> list[str]:
        """End the threads that unload; return the names of those still running at the end."""
        return self._jobs.stop_unloads(timeout_s)

    def label(self, labels: Labels) -> None:
        """Replace all labels. Thread-safe."""
        self._serving_map.label(labels)

    def handle(self, command: VersionCommand) -> None:
        """Carry out a command; what is slow goes to a pool. An exception means that it failed."""
        live = self._live
        match command:
            case StartEstimate(servable_id, data):
                self._jobs.estimate(servable_id, data, live.setdefault(servable_id, Live()))
            case StartLoad(servable_id, data, placement):
                loading = live.setdefault(servable_id, Live())
                self._jobs.load(servable_id, data, loading, placement)
            case CancelLoad(servable_id):
                live[servable_id].cancel()
            case LetGrow(servable_id):
                loader = live[servable_id].loader
                assert loader is not None  # it has loaded
                loader.grow()
            case Relocate(servable_id, failed, to):
                self._jobs.relocate(servable_id, live[servable_id].loader, failed, to)
            case Publish(servable_id):
                servable = live[servable_id].servable
                assert servable is not None  # LoadSucceeded was handled before
                self._serving_map.publish(
                    servable_id, servable, self._drained, live[servable_id].runners
                )
            case Quiesce(servable_id):
                self._serving_map.withdraw(servable_id)
            case StartUnload(servable_id):
                self._jobs.unload(servable_id, live.pop(servable_id))
            case Discard(servable_id):
                live.pop(servable_id, None)

    def give_up(self, overdue: LoadOverdue) -> bool:
        """Give up an attempt to load that is overdue; return False if it has just ended."""
        live = self._live.get(overdue.id)
        return live is not None and self._jobs.give_up(live, overdue)

    def _drained(self, servable_id: ServableId) -> None:
        self._events.put(Drained(servable_id))
