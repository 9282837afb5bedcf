"""What a load asks for, what is decided on it, and what a version holds."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from servingd.core.resources.footprints import Estimate, cost
from servingd.core.resources.totals import larger
from servingd.core.types import ANYWHERE, NO_BYTES, Device, Placement, Resources
from servingd.errors import ServingError


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What a load asks for: its loader's estimate, and the devices that exist."""

    estimate: Estimate
    devices: Mapping[Device, int]
    """The bytes of its own memory that may be used on each device; 0: no limit."""


class Verdict(enum.Enum):
    """Whether there is room for a load."""

    START = "start"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Admission:
    """The decision on a load, and what it would hold."""

    verdict: Verdict
    placement: Placement = ANYWHERE
    loading: Resources = NO_BYTES
    steady: Resources = NO_BYTES
    error: ServingError | None = None
    """The reason, if it is refused."""


class OptimisationReservation(enum.Enum):
    """Whether a version may be optimised."""

    NONE = "none"
    WAITS = "waits"
    ALLOWED = "allowed"


@dataclass(slots=True)
class Reservation:
    """The memory and devices that one version holds."""

    request: ResourceRequest
    placement: Placement
    holds: Resources
    """What is reserved for it now, without its growth."""
    steady: Resources
    growth: OptimisationReservation
    promised: bool = False
    """Whether it waits: it holds nothing yet, but nobody else gets what it waits for."""
    leaving: bool = False
    loaded: bool = False
    measured: bool = False
    grown: bool = False
    failed: set[Device] = field(default_factory=set)
    """The devices on which a replica of it has failed."""

    @property
    def extra(self) -> Resources:
        """What its growth takes in addition, if it is allowed."""
        if self.growth is not OptimisationReservation.ALLOWED:
            return NO_BYTES
        return cost(self.request.estimate.growth).total(self.placement.devices)

    @property
    def later(self) -> Resources:
        """What it will hold when its growth is over, whether it succeeds or not."""
        if self.growth is not OptimisationReservation.ALLOWED:
            return self.holds
        grown = cost(self.request.estimate.grown).total(self.placement.devices)
        return larger(self.holds, grown)
