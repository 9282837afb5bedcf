"""Log life-cycle states with TensorFlow Serving's texts, because operators grep for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from servingd.core.lifecycle.states import PublicState, ServableState

_LINES = {
    PublicState.START: "Approving load for servable version %s",
    PublicState.LOADING: "Loading servable version %s",
    PublicState.AVAILABLE: "Successfully loaded servable version %s",
    PublicState.UNLOADING: "Quiescing servable version %s",
    PublicState.END: "Done unloading servable version %s",
}

_log = logging.getLogger(__name__)


def log_state(state: ServableState) -> None:
    """Log one state; an error with its code and text."""
    if state.error is not None:
        _log.warning(
            "Encountered an error for servable version %s: %s: %s",
            state.id,
            state.error.code.name,
            state.error.message,
            extra={"code": state.error.code.name},
        )
    else:
        _log.info(_LINES[state.state], state.id)


def log_incomplete(name: str, incomplete: Mapping[int, str]) -> None:
    """Log a model's incomplete versions, each with the reason."""
    for version, reason in sorted(incomplete.items()):
        fields = {"model": name, "version": version}
        _log.warning(
            "version %d of model %s is incomplete: %s", version, name, reason, extra=fields
        )
