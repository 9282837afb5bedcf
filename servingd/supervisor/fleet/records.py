"""What is known of workers and versions, and what their owner carries out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from servingd.core.lifecycle.events import (
    Event,
    LoadFailed,
    LoadOverdue,
    StartLoad,
    VersionCommand,
)
from servingd.core.resources.footprints import Measured
from servingd.core.types import Device, ServableId
from servingd.errors import Cancelled

# What the owner carries out -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a command to a worker."""

    worker: int
    command: VersionCommand


@dataclass(frozen=True, slots=True)
class Report:
    """Report an event to the manager."""

    event: Event


@dataclass(frozen=True, slots=True)
class Open:
    """Let a worker open its ports: it serves all that is published."""

    worker: int


@dataclass(frozen=True, slots=True)
class LoadAgain:
    """Call `load_again` after a pause: a worker could not load what others serve."""

    worker: int
    id: ServableId
    after_s: float


Action: TypeAlias = Send | Report | Open | LoadAgain

# What is known ------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """How far a worker is."""

    JOINING = "joining"
    """It loads what the others serve; its ports are closed."""
    SERVING = "serving"
    LEAVING = "leaving"
    """It takes no new calls, and ends when its calls are answered."""


class Goal(enum.Enum):
    """What the manager wants of a version."""

    LOAD = "load"
    PUBLISH = "publish"
    QUIESCE = "quiesce"
    UNLOAD = "unload"


class Has(enum.Enum):
    """What one worker has of a version; a worker without an entry has nothing."""

    LOADING = "loading"
    LOADED = "loaded"
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    DRAINING = "draining"
    DRAINED = "drained"
    UNLOADING = "unloading"
    FAILED = "failed"
    """It could not load what others serve; it tries again."""


@dataclass(slots=True)
class Member:
    """One worker process."""

    key: int
    phase: Phase = Phase.JOINING
    has: dict[ServableId, Has] = field(default_factory=dict)
    failures: dict[ServableId, int] = field(default_factory=dict)
    cancelled: set[ServableId] = field(default_factory=set)
    """Loads that it was told to cancel. Their loaders stay cancelled, until they are discarded."""
    unusable: set[ServableId] = field(default_factory=set)
    """Versions that it unloads because it alone could not publish them; it tries them again."""


@dataclass(slots=True)
class Version:
    """One version that the manager has commanded to load."""

    start: StartLoad
    goal: Goal = Goal.LOAD
    proven: bool = False
    """Whether one worker has loaded it."""
    first: int | None = None
    """The worker that loads it alone."""
    told: bool = False
    """Whether the manager was told that the goal is reached, or that the load has failed."""
    failed: LoadFailed | LoadOverdue | None = None
    """Set: the load is being undone in all workers."""
    suspect: bool = False
    """Whether a worker died while it loaded it."""
    given_up: bool = False
    """Whether the manager was told that it cannot be served any more, and will take it away."""
    may_grow: bool = False
    growing: set[int] = field(default_factory=set)
    """The workers that know that they may let it grow."""
    measured: dict[int, Measured | None] = field(default_factory=dict)
    grown: dict[int, bool] = field(default_factory=dict)
    growth_told: bool = False
    moves: list[set[int]] = field(default_factory=list)
    """The workers that have yet to say that a replica was moved, for each move under way."""
    devices: tuple[Device, ...] = ()
    """The devices of its replicas, as the last one of those said."""


def cancelled(servable_id: ServableId) -> LoadFailed:
    """Return the event that ends an estimate or a load that was cancelled."""
    return LoadFailed(servable_id, Cancelled("Loading of servable cancelled"), retriable=False)
