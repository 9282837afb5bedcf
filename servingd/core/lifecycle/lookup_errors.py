"""What an inference call is answered for a model or a version that is not there.

Calls for the status have texts of their own: `inference/status.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ModelSpec
from servingd.errors import NotFound, ServingError, Unavailable


def not_found(spec: ModelSpec) -> NotFound:
    """Return the error, with TensorFlow Serving's text, for a servable that is not aspired."""
    if spec.version is None:
        return NotFound(f"Servable not found for request: Latest({spec.name})")
    return NotFound(f"Servable not found for request: Specific({spec.name}, {spec.version})")


def lookup_error(
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
