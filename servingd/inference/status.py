"""GetModelStatus: the public states of a model's versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servingd.core.call_protocols import States
from servingd.core.lifecycle.states import PublicState
from servingd.core.types import ModelSpec
from servingd.errors import Code, InvalidArgument, NotFound


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version's public state; `code` is OK unless the version has an error."""

    version: int
    state: PublicState
    code: Code = Code.OK
    message: str = ""


def model_status(states: States, spec: ModelSpec | None) -> Sequence[VersionStatus]:
    """Return a model's versions, newest first, or the one that `spec` names; a label is ignored.

    They are those that are remembered (of ended ones the newest 10: `StateHistory`), and those that
    are on disk but not complete. Such a version is shown as START, with the reason: TensorFlow
    Serving has no state for it, so clients see a version that is not loaded yet. Raises
    InvalidArgument (no spec) or NotFound, with TensorFlow Serving's texts.
    """
    if spec is None:
        raise InvalidArgument("Missing ModelSpec")
    known = versions_of(states, spec.name)
    if spec.version is not None:
        known = [status for status in known if status.version == spec.version]
        if not known:
            raise NotFound(f"Could not find version {spec.version} of model {spec.name}")
    elif not known:
        reason = states.absent(spec.name)
        text = f": {reason}" if reason else ""
        raise NotFound(f"Could not find any versions of model {spec.name}{text}")
    return known


def versions_of(states: States, name: str) -> list[VersionStatus]:
    """Return a model's versions, newest first; empty if none is known."""
    found = {
        version: VersionStatus(
            version, PublicState.START, Code.UNAVAILABLE, f"incomplete: {reason}"
        )
        for version, reason in states.incomplete(name).items()
    }
    for state in states.of_model(name):
        error = state.error
        known = VersionStatus(
            state.id.version,
            state.state,
            error.code if error else Code.OK,
            error.message if error else "",
        )
        if state.state is not PublicState.END or known.version not in found:
            found[known.version] = known
    return [found[version] for version in sorted(found, reverse=True)]
