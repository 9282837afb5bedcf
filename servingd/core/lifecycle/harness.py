"""What the manager remembers of each version, and what it shows of it.

Values only: `reconcile` decides, and nothing else changes a harness's state.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from servingd.core.lifecycle.policies import Snapshot
from servingd.core.lifecycle.states import HarnessState
from servingd.core.resources.placement import LoadRules
from servingd.core.resources.tracker import ResourceRequest
from servingd.core.types import (
    NO_BYTES,
    AspiredVersion,
    Placement,
    Resources,
    ServableId,
    VersionData,
)
from servingd.errors import Internal, ServingError


class Step(enum.Enum):
    """Where a version is within LOADING."""

    ESTIMATING = "estimating"
    WAITING = "waiting for memory"
    LOADING = "loading"
    PAUSED = "waiting for its next attempt"


UNDER_WAY = frozenset({Step.ESTIMATING, Step.LOADING})
"""A job runs, and its event will come."""


@dataclass(slots=True)
class Harness:
    """The manager's record of one version's one loader."""

    id: ServableId
    data: VersionData | None
    state: HarnessState = HarnessState.NEW
    aspired: bool = True
    cancelled: bool = False
    """Its load is no longer wanted. Never taken back: whoever wants the version again waits."""
    attempts: int = 0
    step: Step | None = None
    request: ResourceRequest | None = None
    """What it asks for, once its loader has said so."""
    refused: bool = False
    """It failed for want of memory: tried again when there is some."""
    note: str = ""
    """What was last explained of it."""
    error: ServingError | None = None
    """Why it is unloaded although it has never served."""


@dataclass(slots=True)
class Stream:
    """One model: what its source wants, and what there is."""

    aspired: dict[int, AspiredVersion] = field(default_factory=dict)
    harnesses: dict[int, Harness] = field(default_factory=dict)
    incomplete: Mapping[int, str] = field(default_factory=dict)

    def snapshots(self) -> list[Snapshot]:
        """The stream as policies see it.

        A version that is wanted again while its harness is on its way out counts as aspired: else
        the last sibling that serves would be given up for a version that nobody serves yet.
        """
        return [
            Snapshot(
                version,
                HarnessState.UNLOADING
                if h.cancelled and h.state is HarnessState.LOADING
                else h.state,
                version in self.aspired,
            )
            for version, h in sorted(self.harnesses.items())
        ]

    def flush(self) -> None:
        """Forget what has ended, and what failed and is not wanted."""
        for version, harness in list(self.harnesses.items()):
            if harness.state is HarnessState.DISABLED or (
                harness.state is HarnessState.ERROR and not harness.aspired
            ):
                del self.harnesses[version]

    def stale(self) -> list[Harness]:
        """Those that serve though nobody wants them: until others take their place."""
        return [
            harness
            for version, harness in sorted(self.harnesses.items())
            if harness.state is HarnessState.READY and version not in self.aspired
        ]


class Streams(dict[str, Stream]):
    """All models, by name."""

    def find(self, servable_id: ServableId) -> Harness | None:
        """Return a version's harness; None if it has none."""
        stream = self.get(servable_id.name)
        return stream.harnesses.get(servable_id.version) if stream else None

    def harness(self, servable_id: ServableId) -> Harness:
        """Return a version's harness. Raises Internal if it has none."""
        harness = self.find(servable_id)
        if harness is None:
            raise Internal(f"This servable is not being managed: {servable_id}")
        return harness

    def harnesses(self) -> list[Harness]:
        """Return every harness, by name and version."""
        return [
            stream.harnesses[version]
            for _, stream in sorted(self.items())
            for version in sorted(stream.harnesses)
        ]


@dataclass(frozen=True, slots=True)
class PlannedVersion:
    """What one version holds, and where."""

    id: ServableId
    state: HarnessState
    step: Step | None
    placement: Placement
    holds: Resources
    growth: Resources
    """What it may take besides, for a while; of all versions only the largest is reserved."""
    measured: bool
    """Whether that was measured; else it is an estimate."""
    note: str


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Who holds what, of how much. A limit of 0 is none."""

    limits: Resources = NO_BYTES
    rules: Mapping[str, LoadRules] = field(default_factory=dict)
    versions: tuple[PlannedVersion, ...] = ()


def same_files(harness: Harness, wanted: AspiredVersion) -> bool:
    """Whether a failed harness was made from what is aspired now; a new error is never news."""
    return wanted.error is not None or wanted.data is None or harness.data == wanted.data
