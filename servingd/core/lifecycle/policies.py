"""Aspired-version policies: choose the next action, if any, from a model's snapshots.

Stateless and idempotent, by the tables of TensorFlow Serving's two policies. Only READY counts as
serving; only NEW can be loaded; the states between them count as neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from servingd.core.lifecycle.states import LEAVING, TERMINAL, HarnessState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One managed version, as a policy sees it."""

    version: int
    state: HarnessState
    aspired: bool


@dataclass(frozen=True, slots=True)
class Load:
    """Start loading this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Take this version out of service."""

    version: int


Action: TypeAlias = Load | Unload
Policy: TypeAlias = Callable[[Sequence[Snapshot]], Action | None]
"""Returns the next step for one model's versions; None if there is nothing to do."""


def availability_preserving(versions: Sequence[Snapshot]) -> Action | None:
    """Unload versions that are not aspired, but never the last version that still serves."""
    aspired = [v for v in versions if v.aspired]
    stale = [v.version for v in versions if not v.aspired and v.state is HarnessState.READY]
    a_wanted_one_serves = any(v.state is HarnessState.READY for v in aspired)
    if stale and (not aspired or a_wanted_one_serves or len(stale) > 1):
        return Unload(min(stale))
    return _load_highest(aspired)


def resource_preserving(versions: Sequence[Snapshot]) -> Action | None:
    """Unload all versions that are not aspired, and wait for it, before anything is loaded."""
    stale = [v for v in versions if not v.aspired and v.state not in TERMINAL]
    for v in stale:
        if v.state is HarnessState.READY:
            return Unload(v.version)
    if stale or any(v.state in LEAVING for v in versions):
        return None
    return _load_highest([v for v in versions if v.aspired])


def _load_highest(aspired: Sequence[Snapshot]) -> Load | None:
    fresh = [v.version for v in aspired if v.state is HarnessState.NEW]
    return Load(max(fresh)) if fresh else None


POLICIES: Mapping[str, Policy] = {
    # Where both do not fit, the manager unloads the old version first, whatever the policy says.
    "auto": availability_preserving,
    "availability_preserving": availability_preserving,
    "resource_preserving": resource_preserving,
}
