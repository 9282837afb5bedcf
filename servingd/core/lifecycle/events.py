"""The manager's events and commands: small values, comparable and loggable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.resources.footprints import Estimate, Measured
from servingd.core.resources.placement import LoadRules
from servingd.core.types import (
    ANYWHERE,
    AspiredVersions,
    Device,
    Placement,
    ServableId,
    VersionData,
)
from servingd.errors import ServingError

# Events -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configured:
    """The load rules of all models, by name; they replace the earlier ones."""

    rules: Mapping[str, LoadRules]


@dataclass(frozen=True, slots=True)
class Estimated:
    """A loader's estimate, and the devices that exist, each with its limit in bytes (0: none)."""

    id: ServableId
    estimate: Estimate
    devices: Mapping[Device, int]


@dataclass(frozen=True, slots=True)
class LoadSucceeded:
    """A load attempt succeeded: the servable exists and is warm."""

    id: ServableId
    measured: Measured | None = None
    """What it was measured to take; None where it could not be measured."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """An attempt to estimate or to load failed. `retriable`: whether another one may help."""

    id: ServableId
    error: ServingError
    retriable: bool = True


@dataclass(frozen=True, slots=True)
class LoadOverdue:
    """An attempt to estimate or to load has taken too long. No other event of it will follow."""

    id: ServableId
    after_s: float


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """A version that has loaded could not be entered into the serving map."""

    id: ServableId
    error: ServingError


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The pause after a failed attempt is over."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Drained:
    """The last handle of a quiescing version has been returned."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The servable has been closed and its loader dropped."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Grown:
    """A version's growth is over: it was optimised (`grew`), or never will be."""

    id: ServableId
    grew: bool


@dataclass(frozen=True, slots=True)
class ReplicaFailed:
    """A replica does not work on its device any more."""

    id: ServableId
    device: Device


@dataclass(frozen=True, slots=True)
class Relocated:
    """A failed replica was moved, or freed, or neither; `devices` are those of all replicas."""

    id: ServableId
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Crashed:
    """The processes that run a version die of it: it must not be served any more."""

    id: ServableId
    error: ServingError


@dataclass(frozen=True, slots=True)
class Stop:
    """Unload everything and ignore further aspired versions."""


Progress: TypeAlias = (
    Estimated | LoadSucceeded | LoadFailed | LoadOverdue | PublishFailed | Drained | Unloaded
)
"""The end of a job of one version, for which its harness has waited."""

Event: TypeAlias = (
    AspiredVersions
    | Configured
    | Progress
    | RetryDue
    | Grown
    | ReplicaFailed
    | Relocated
    | Crashed
    | Stop
)


class EventSink(Protocol):
    """Whoever takes events. Thread-safe."""

    def put(self, event: Event) -> None:
        """Take an event."""
        ...

    def put_after(self, event: Event, delay_s: float) -> None:
        """Take an event in `delay_s` seconds."""
        ...

    def cancel(self, event: Event) -> None:
        """Drop an event that is not due yet."""
        ...


# Commands -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announce:
    """Publish a version's public state."""

    state: ServableState


@dataclass(frozen=True, slots=True)
class ReportIncomplete:
    """Show which versions of a model are on disk but not complete, each with the reason."""

    name: str
    incomplete: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Explain:
    """Tell operators what was decided about a load, and why."""

    id: ServableId
    text: str


@dataclass(frozen=True, slots=True)
class StartEstimate:
    """Ask the loader for its estimate. Answered by Estimated or LoadFailed.

    The first of StartEstimate and StartLoad makes the loader.
    """

    id: ServableId
    data: VersionData


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Run one load attempt. Answered by LoadSucceeded or LoadFailed.

    The first of StartEstimate and StartLoad makes the loader.
    """

    id: ServableId
    data: VersionData
    placement: Placement = ANYWHERE


@dataclass(frozen=True, slots=True)
class CancelLoad:
    """Ask the job under way to end soon. Its event follows nevertheless."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class LetGrow:
    """Tell a version's loader that there is room for its growth. Answered by Grown."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Relocate:
    """Move the replica on a failed device to another one, or free it. Answered by Relocated."""

    id: ServableId
    failed: Device
    to: Device | None
    """None: it fits on no other device."""


@dataclass(frozen=True, slots=True)
class ScheduleRetry:
    """Answer with RetryDue after a pause in seconds."""

    id: ServableId
    after_s: float


@dataclass(frozen=True, slots=True)
class CancelRetry:
    """Cancel the scheduled RetryDue."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Publish:
    """Enter the version into the serving map."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Quiesce:
    """Take the version out of the serving map. Answered by Drained when no handle is left."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class StartUnload:
    """Close the servable. Answered by Unloaded."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Discard:
    """Drop the loader of a version that was never loaded."""

    id: ServableId


VersionCommand: TypeAlias = (
    StartEstimate
    | StartLoad
    | CancelLoad
    | LetGrow
    | Relocate
    | Publish
    | Quiesce
    | StartUnload
    | Discard
)
"""What is done with a version where calls are answered."""

Command: TypeAlias = (
    Announce | ReportIncomplete | Explain | ScheduleRetry | CancelRetry | VersionCommand
)


def announcement(
    servable_id: ServableId, state: PublicState, error: ServingError | None = None
) -> Announce:
    """Return the command that publishes a public state."""
    return Announce(ServableState(servable_id, state, error))
