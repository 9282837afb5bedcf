"""How many intra-op threads a session gets: measured, not guessed.

All cores make a lone call faster, if at all, at a cost: threads that wait for each other burn what
concurrent calls could have used. So they must pay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from servingd.core.types import Signature
from servingd.errors import ServingError
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.saved_model.session.warm_up import slowest_run_s

MIN_TUNED_CALL_S = 1e-3
"""Seconds. A model whose calls are shorter gains nothing from more threads."""

_MAX_TIME_RATIO = 0.7
"""More threads pay if a lone call takes at most this share of its time on one thread."""

_log = logging.getLogger(__name__)


def open_if_faster(
    current: RunningSession,
    open_wider: Callable[[], RunningSession],
    signatures: Mapping[str, Signature],
    safe_to_run: Mapping[str, bool],
) -> RunningSession | None:
    """Open a session on more threads; return it if that pays against `current`, else close it.

    `safe_to_run` says which signatures may be measured. Raises what TensorFlow does, but returns
    None for a ServingError of `open_wider`: the files may have gone since the model was loaded.
    """

    def time_s(session: RunningSession) -> float:
        return min(slowest_run_s(session, signatures, safe_to_run) for _ in range(2))

    if time_s(current) < MIN_TUNED_CALL_S:
        return None
    try:
        wider = open_wider()
    except ServingError as error:
        _log.info("a session stays on one thread: %s", error)
        return None
    try:
        one_s, all_s = time_s(current), time_s(wider)
    except BaseException:
        wider.close()
        raise
    if 0 < all_s < _MAX_TIME_RATIO * one_s:
        return wider
    _log.debug("a call takes %.4f s on one thread and %.4f on all: it stays on one", one_s, all_s)
    wider.close()
    return None
