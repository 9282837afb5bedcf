"""The estimates that were asked for: one worker makes each, and another one if it dies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from servingd.core.lifecycle.events import (
    CancelLoad,
    Estimated,
    LoadFailed,
    LoadOverdue,
    StartEstimate,
)
from servingd.core.types import ServableId
from servingd.supervisor.fleet.costs import times
from servingd.supervisor.fleet.records import Action, Report, Send, cancelled


@dataclass(slots=True)
class _Estimating:
    """An estimate that was asked for."""

    start: StartEstimate
    worker: int | None = None
    cancelled: bool = False


class Estimates:
    """The estimates under way. Pure; a part of `FleetState`."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._under_way: dict[ServableId, _Estimating] = {}

    def __contains__(self, servable_id: ServableId) -> bool:
        return servable_id in self._under_way

    def begin(self, start: StartEstimate, worker: int | None) -> Iterator[Action]:
        """Ask a worker for an estimate; None: there is none yet."""
        self._under_way[start.id] = _Estimating(start)
        yield from self.send(worker)

    def send(self, worker: int | None) -> Iterator[Action]:
        """Let a worker estimate what none is asked to."""
        if worker is None:
            return
        for estimating in self._under_way.values():
            if estimating.worker is None:
                estimating.worker = worker
                yield Send(worker, estimating.start)

    def cancel(self, servable_id: ServableId) -> list[Action]:
        """Cancel an estimate; its event follows when no worker is at it any more."""
        estimating = self._under_way[servable_id]
        estimating.cancelled = True
        if estimating.worker is not None:
            return [Send(estimating.worker, CancelLoad(servable_id))]
        del self._under_way[servable_id]
        return [Report(cancelled(servable_id))]

    def discard(self, servable_id: ServableId) -> None:
        """Forget an estimate."""
        self._under_way.pop(servable_id, None)

    def died(self, worker: int) -> Iterator[Action]:
        """Take note that a worker is gone; report what it was told to cancel."""
        for servable_id, estimating in list(self._under_way.items()):
            if estimating.worker == worker:
                estimating.worker = None
                if estimating.cancelled:
                    del self._under_way[servable_id]
                    yield Report(cancelled(servable_id))

    def ended(self, worker: int, event: Estimated | LoadFailed | LoadOverdue) -> list[Action]:
        """Take the end of an estimate; report it for all workers."""
        if self._under_way[event.id].worker != worker:
            return []
        del self._under_way[event.id]
        if isinstance(event, Estimated):
            event = dataclasses.replace(event, estimate=times(event.estimate, self._workers))
        return [Report(event)]
