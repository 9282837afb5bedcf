"""The pages under `/servingd/v1/` for all workers together."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from servingd.core.resources.placement import ReplicaReport
from servingd.core.types import Device, ServableId
from servingd.errors import ServingError
from servingd.frontends.admin.status_pages import (
    Answer,
    ModelsToDescribe,
    StatusPages,
    describe_server,
)
from servingd.observability.placements import Placements
from servingd.supervisor.fleet.fleet import WorkerFleet
from servingd.supervisor.link.messages import PlacementsAre, decode, pack, unpack

_ANSWERS_S = 2.0


class FleetPages:
    """Asks all workers, and describes what they say as one. Its methods wait for the workers."""

    def __init__(
        self, control: ModelsToDescribe, fleet: WorkerFleet, placements: Placements
    ) -> None:
        self._control = control
        self._fleet = fleet
        self._placements = placements

    def page(self, path: str) -> Answer | None:
        """Return the page at a path; None if there is none."""
        pages = StatusPages(self._control, self._describe, self._explain, self._all_placements())
        return pages.page(path)

    def _describe(self) -> Mapping[str, Any]:
        workers = [
            {
                "worker": worker.number,
                "process": worker.process,
                "state": worker.state,
                "seconds": round(worker.seconds, 1),
                "resident_bytes": worker.resident_bytes,
            }
            for worker in self._fleet.crew.seen
        ]
        return {**describe_server(os.getpid()), "workers": workers}

    def _explain(self, name: str) -> Mapping[int, Sequence[Mapping[str, Any]]]:
        """Return the queues of a model in all workers, by version."""
        found: dict[int, list[Mapping[str, Any]]] = {}
        for key, body in sorted(self._gather("explain", pack(name)).items()):
            for version, queues in unpack(body).items():
                found.setdefault(version, []).extend({"worker": key, **queue} for queue in queues)
        return found

    def _all_placements(self) -> Placements:
        """Return the plan, with the replicas of all workers."""
        answers = [decode(body) for _, body in sorted(self._gather("placements", b"").items())]
        known: dict[Device, str] = {}
        in_use: dict[Device, int] = {}
        replicas: dict[ServableId, list[ReplicaReport]] = {}
        for answer in answers:
            assert isinstance(answer, PlacementsAre)
            known.update(answer.known)
            for device, amount in answer.in_use.items():
                in_use[device] = in_use.get(device, 0) + amount
            for servable_id, reports in answer.replicas:
                replicas.setdefault(servable_id, []).extend(reports)
        return _Merged(self._placements, known, in_use, replicas)

    def _gather(self, what: str, body: bytes) -> Mapping[int, bytes]:
        came, found = threading.Event(), dict[int, bytes]()

        def take(answers: Mapping[int, bytes], error: ServingError | None) -> None:
            found.update(answers)
            came.set()

        self._fleet.gather(what, body, take)
        came.wait(_ANSWERS_S)
        return found


class _Merged(Placements):
    """The placements of all workers, as `Placements` gives those of one."""

    def __init__(
        self,
        own: Placements,
        known: Mapping[Device, str],
        in_use: Mapping[Device, int],
        replicas: Mapping[ServableId, Sequence[ReplicaReport]],
    ) -> None:
        super().__init__()
        self.plan = own.plan
        self._known = known
        self._in_use = in_use
        for servable_id, reports in replicas.items():
            self.report(servable_id, reports)

    def known(self) -> Mapping[Device, str]:
        """Return the description of each device."""
        return self._known

    def in_use(self) -> Mapping[Device, int]:
        """Return the bytes in use on devices with their own memory."""
        return self._in_use
