"""Decide which directories are versions, which are aspired, and which one a ModelSpec means."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ModelSpec
from servingd.errors import NotFound, ServingError, Unavailable

MAX_VERSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Latest:
    """The `num_versions` largest numbers; 0 counts as 1, as in TensorFlow Serving."""

    num_versions: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Every version there is."""


@dataclass(frozen=True, slots=True)
class Specific:
    """Those of the listed versions that exist."""

    versions: tuple[int, ...]


VersionPolicy: TypeAlias = Latest | All | Specific


def parse_version(name: str) -> int | None:
    """Return the version that a directory name stands for; None if it is no version.

    A version is a decimal number of at most 63 bits; leading zeros are allowed.
    """
    if not (name.isascii() and name.isdigit()):
        return None
    version = int(name) if len(name) <= 64 else MAX_VERSION + 1
    return version if version <= MAX_VERSION else None


def versions_in(children: Iterable[str]) -> dict[int, str]:
    """Return directory names by version; of two spellings of one number the last in order wins."""
    found: dict[int, str] = {}
    for name in sorted(children):
        version = parse_version(name)
        if version is not None:
            found[version] = name
    return found


def aspired(present: Collection[int], policy: VersionPolicy) -> tuple[int, ...]:
    """Return the versions that should be loaded, newest first, of those present and complete."""
    newest_first = sorted(set(present), reverse=True)
    match policy:
        case Latest(num_versions):
            return tuple(newest_first[: max(1, num_versions)])
        case All():
            return tuple(newest_first)
        case Specific(versions):
            return tuple(v for v in newest_first if v in versions)


def not_found(spec: ModelSpec) -> NotFound:
    """Return the error, with TensorFlow Serving's text, for a servable that is not aspired."""
    if spec.version is None:
        return NotFound(f"Servable not found for request: Latest({spec.name})")
    return NotFound(f"Servable not found for request: Specific({spec.name}, {spec.version})")


def why_not_ready(
    spec: ModelSpec, configured: bool, states: Sequence[ServableState]
) -> ServingError:
    """Return the error of a call when no ready servable fits `spec`.

    NOT_FOUND if no such version is aspired, or it is on its way out; UNAVAILABLE while it may still
    load, with the load error if there is one. `states` are the last public states of the model's
    versions, newest version first.
    """
    if spec.version is not None:
        states = [s for s in states if s.id.version == spec.version]
    failed = next((s for s in states if s.state is PublicState.END and _failed(s)), None)
    gone = (PublicState.UNLOADING, PublicState.END)
    pending = next((s for s in states if s.state not in gone), None)
    if pending is not None:
        return Unavailable(f"Servable {pending.id} is not ready: its state is {pending.state.name}")
    if failed is not None and failed.error is not None:
        return Unavailable(
            f"Servable {failed.id} failed to load: {failed.error.code.name}: {failed.error.message}"
        )
    if configured and spec.version is None:
        return Unavailable(f"Model {spec.name} is configured, but no version of it is available")
    return not_found(spec)


def _failed(state: ServableState) -> bool:
    return state.error is not None and state.error.code.name != "CANCELLED"
