"""The interface by which SavedModels report to a server, and ask it to warm them up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from servingd.core.resources.placement import ReplicaReport
from servingd.core.servable import Servable
from servingd.core.types import Device, ServableId, VersionData


class SavedModelListener(Protocol):
    """What the loaders and the optimiser of SavedModels report, and ask for.

    All methods are called from several threads (load pool, `optimiser`, `run-watch`, threads that
    run calls), and none may wait for a load or an unload.
    """

    def graph_state_changed(self, servable_id: ServableId, state: str) -> None:
        """Note the state of a version's graph; called after each change of it.

        `plain`: it serves as it was exported. `optimising`: that, and an optimised one is being
        made. `optimised`: it serves an optimised one. `declined`: it serves the plain one for good.
        `damaged weights`: it serves an optimised one that could not be made again. Empty: the
        version is unloaded.
        """
        ...

    def warm_up(self, servable_id: ServableId, data: VersionData, servable: Servable) -> None:
        """Run a version's recorded requests on a session that is to replace the one that serves.

        Returns when all have run; raises the ServingError of one that fails. Called from the thread
        `optimiser` or the load pool, before the session gets its first call.
        """
        ...

    def replicas_changed(self, servable_id: ServableId, replicas: Sequence[ReplicaReport]) -> None:
        """Note where a version's replicas lie and how they are; none once it is unloaded."""
        ...

    def new_runs(self, servable_id: ServableId) -> dict[int, Any]:
        """Return an empty record of the runs under way in one session of a version, by thread."""
        ...

    def replica_failed(self, servable_id: ServableId, device: Device) -> None:
        """Note that a replica's device failed `FAILURES_IN_A_ROW` times: it may be relocated."""
        ...

    def load_attempted(self, path: str, seconds: float, succeeded: bool) -> None:
        """Count a load of the SavedModel under `path`, which took `seconds`."""
        ...


class NullListener:
    """Ignores everything; a base for listeners that want only some of it."""

    def graph_state_changed(self, servable_id: ServableId, state: str) -> None:
        """Ignore it."""

    def warm_up(self, servable_id: ServableId, data: VersionData, servable: Servable) -> None:
        """Run nothing."""

    def replicas_changed(self, servable_id: ServableId, replicas: Sequence[ReplicaReport]) -> None:
        """Ignore it."""

    def replica_failed(self, servable_id: ServableId, device: Device) -> None:
        """Ignore it."""

    def new_runs(self, servable_id: ServableId) -> dict[int, Any]:
        """Return a plain record."""
        return {}

    def load_attempted(self, path: str, seconds: float, succeeded: bool) -> None:
        """Ignore it."""


NO_LISTENER: SavedModelListener = NullListener()
"""For SavedModels that serve without a server: in tests and tools."""
