"""What happens to the manager, and what it wants done: small values, comparable and loggable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.resources.estimates import Estimate, Measured
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
    """What is said of models' loads, by name; replaces what was said before."""

    rules: Mapping[str, LoadRules]


@dataclass(frozen=True, slots=True)
class Estimated:
    """What a version will take, and the devices that there are, each with its limit (0: none)."""

    id: ServableId
    estimate: Estimate
    devices: Mapping[Device, int]


@dataclass(frozen=True, slots=True)
class LoadSucceeded:
    """A load attempt ended well: the servable exists and is warm."""

    id: ServableId
    measured: Measured | None = None
    """What it was seen to take, where that could be told."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """An attempt to estimate or to load failed. `retriable`: whether another one may help."""

    id: ServableId
    error: ServingError
    retriable: bool = True


@dataclass(frozen=True, slots=True)
class LoadOverdue:
    """An attempt to estimate or to load has taken too long. No event of it will come any more."""

    id: ServableId
    after_s: float


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """A version that has loaded could not be made known to lookups."""

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
    """A version with room to grow has (`grew`), or never will."""

    id: ServableId
    grew: bool


@dataclass(frozen=True, slots=True)
class ReplicaFailed:
    """A replica does not work on its device any more."""

    id: ServableId
    device: Device


@dataclass(frozen=True, slots=True)
class Relocated:
    """A replica that failed was moved, or freed, or neither; where all lie by now."""

    id: ServableId
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Unload everything and take no more statements from sources."""


Progress: TypeAlias = (
    Estimated | LoadSucceeded | LoadFailed | LoadOverdue | PublishFailed | Drained | Unloaded
)
"""What became of a job of one version, which its harness has waited for."""

Event: TypeAlias = (
    AspiredVersions | Configured | Progress | RetryDue | Grown | ReplicaFailed | Relocated | Stop
)

# Commands -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the world a public state."""

    state: ServableState


@dataclass(frozen=True, slots=True)
class ReportIncomplete:
    """Show which versions of a stream are on disk but not whole, each with its reason."""

    name: str
    incomplete: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Explain:
    """Tell operators what became of a load, and why."""

    id: ServableId
    text: str


@dataclass(frozen=True, slots=True)
class StartEstimate:
    """Ask the loader what it will take; answer Estimated or LoadFailed. The first makes it."""

    id: ServableId
    data: VersionData


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Run one load attempt; answer LoadSucceeded or LoadFailed. The first makes the loader."""

    id: ServableId
    data: VersionData
    placement: Placement = ANYWHERE


@dataclass(frozen=True, slots=True)
class CancelLoad:
    """The job under way is not wanted any more: let it end soon. Its event comes all the same."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class LetGrow:
    """There is room by now for what a version may become: tell its loader. Grown is the answer."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Relocate:
    """Load what failed on one device on another, or free it; answer Relocated."""

    id: ServableId
    failed: Device
    to: Device | None
    """None: it fits nowhere else."""


@dataclass(frozen=True, slots=True)
class ScheduleRetry:
    """Answer with RetryDue after a pause."""

    id: ServableId
    after_s: float


@dataclass(frozen=True, slots=True)
class CancelRetry:
    """Forget the scheduled RetryDue."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Publish:
    """Let lookups find the version."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Quiesce:
    """Take the version out of lookups; answer with Drained when nobody uses it."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class StartUnload:
    """Close the servable; answer with Unloaded."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class Discard:
    """Drop the loader of a version that never got loaded."""

    id: ServableId


Command: TypeAlias = (
    Announce
    | ReportIncomplete
    | Explain
    | StartEstimate
    | StartLoad
    | CancelLoad
    | LetGrow
    | Relocate
    | ScheduleRetry
    | CancelRetry
    | Publish
    | Quiesce
    | StartUnload
    | Discard
)


def announcement(
    servable_id: ServableId, state: PublicState, error: ServingError | None = None
) -> Announce:
    """The command that tells the world a public state."""
    return Announce(ServableState(servable_id, state, error))
