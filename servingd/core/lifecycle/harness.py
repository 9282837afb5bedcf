"""The manager's record of each version, and what operators are shown of it.

Values only: `reconcile` decides, and nothing else changes a harness's state.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from servingd.core.lifecycle.policies import Snapshot
from servingd.core.lifecycle.states import HarnessState
from servingd.core.resources.placement import LoadRules
from servingd.core.resources.reservations import ResourceRequest
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
    """The phase of a version within LOADING."""

    ESTIMATING = "estimating"
    WAITING = "waiting for memory"
    LOADING = "loading"
    PAUSED = "waiting for its next attempt"


UNDER_WAY = frozenset({Step.ESTIMATING, Step.LOADING})
"""The steps in which a job runs, so that its event will follow."""


@dataclass(slots=True)
class Harness:
    """The manager's record of one version and its loader."""

    id: ServableId
    data: VersionData | None
    state: HarnessState = HarnessState.NEW
    aspired: bool = True
    cancelled: bool = False
    """Whether its load was cancelled. Never reset: a version wanted again gets a new harness."""
    attempts: int = 0
    step: Step | None = None
    request: ResourceRequest | None = None
    """The resources that it asks for, once its loader has estimated them."""
    refused: bool = False
    """Whether it failed for lack of memory; it is tried again when some is given back."""
    note: str = ""
    """The last explanation given to operators."""
    error: ServingError | None = None
    """Why it is being unloaded: it could not be published, or processes die of it."""


@dataclass(slots=True)
class Stream:
    """One model: the versions that its source wants, and the harnesses that exist."""

    aspired: dict[int, AspiredVersion] = field(default_factory=dict)
    harnesses: dict[int, Harness] = field(default_factory=dict)
    incomplete: Mapping[int, str] = field(default_factory=dict)

    def snapshots(self) -> list[Snapshot]:
        """Return the versions as policies see them.

        A version that is wanted again while its harness is on its way out counts as aspired.
        Otherwise the last version that serves would be unloaded in favour of one that does not
        serve yet.
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
        """Forget the versions that have ended, and those that failed and are not wanted."""
        for version, harness in list(self.harnesses.items()):
            if harness.state is HarnessState.DISABLED or (
                harness.state is HarnessState.ERROR and not harness.aspired
            ):
                del self.harnesses[version]

    def stale(self) -> list[Harness]:
        """Return the versions that serve though they are not aspired, until others replace them."""
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
    """What optimising takes in addition, for a while; only the largest of all is reserved."""
    measured: bool
    """Whether `holds` was measured; else it is an estimate."""
    note: str


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What all versions hold, and the budgets. A limit of 0 means none."""

    limits: Resources = NO_BYTES
    rules: Mapping[str, LoadRules] = field(default_factory=dict)
    versions: tuple[PlannedVersion, ...] = ()


def same_files(harness: Harness, wanted: AspiredVersion) -> bool:
    """Return whether a failed harness was made from the same files that are aspired now.

    An aspired version that is an error counts as the same: it is no reason to try again.
    """
    return wanted.error is not None or wanted.data is None or harness.data == wanted.data
