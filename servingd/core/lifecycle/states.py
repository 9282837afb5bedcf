"""The states of a version and the one table of legal transitions.

`HarnessState` is the manager's own; `PublicState` is what clients see, with TensorFlow
Serving's names and numbers. A transition that `TRANSITIONS` does not have is an error.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from servingd.core.types import ServableId
from servingd.errors import Internal, ServingError


class HarnessState(enum.Enum):
    """The manager's state of one version."""

    NEW = "new"
    LOADING = "loading"
    READY = "ready"
    QUIESCING = "quiescing"
    UNLOADING = "unloading"
    DISABLED = "disabled"
    ERROR = "error"


class PublicState(enum.IntEnum):
    """`ModelVersionStatus.State`, by number."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


_S = HarnessState

TRANSITIONS: Mapping[HarnessState, frozenset[HarnessState]] = {
    _S.NEW: frozenset({_S.LOADING, _S.DISABLED, _S.ERROR}),
    _S.LOADING: frozenset({_S.READY, _S.UNLOADING, _S.DISABLED, _S.ERROR}),
    _S.READY: frozenset({_S.QUIESCING, _S.UNLOADING}),
    _S.QUIESCING: frozenset({_S.UNLOADING}),
    _S.UNLOADING: frozenset({_S.DISABLED, _S.ERROR}),
    _S.DISABLED: frozenset(),
    _S.ERROR: frozenset(),
}

LEAVING = frozenset({HarnessState.QUIESCING, HarnessState.UNLOADING})
TERMINAL = frozenset({HarnessState.DISABLED, HarnessState.ERROR})


class IllegalTransition(Internal):
    """A transition that the table does not have; nothing was changed."""

    def __init__(self, current: HarnessState, target: HarnessState) -> None:
        super().__init__(
            f"Illegal request to transition from state {current.value} to {target.value}"
        )


def advance(current: HarnessState, target: HarnessState) -> HarnessState:
    """Return `target`. Raises IllegalTransition if the table does not allow the transition."""
    if target not in TRANSITIONS[current]:
        raise IllegalTransition(current, target)
    return target


@dataclass(frozen=True, slots=True)
class ServableState:
    """One version's public state at the moment of an announcement."""

    id: ServableId
    state: PublicState
    error: ServingError | None = None
