"""How many threads a session's operations get: measured, not guessed.

All cores make a lone call faster, if at all, at a cost: threads that wait for each other burn what
concurrent calls could have used. So they must pay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from servingd.core.types import Signature
from servingd.errors import ServingError
from servingd.servables.saved_model.session.session import RunningSession, measure

WORTH_A_LOOK_S = 1e-3
"""A model whose calls are shorter gains nothing from more threads."""

_PAYS = 0.7
"""A lone call must take at most this share of its time on one thread."""

_log = logging.getLogger(__name__)


def better(
    narrow: RunningSession,
    open_wide: Callable[[], RunningSession],
    signatures: Mapping[str, Signature],
    warm: Mapping[str, bool],
) -> RunningSession | None:
    """A session on more threads if that pays against `narrow`; closed again, and None, if not."""
    if min(measure(narrow, signatures, warm) for _ in range(2)) < WORTH_A_LOOK_S:
        return None
    try:
        wide = open_wide()
    except ServingError as error:  # the files may have gone since the model was loaded
        _log.info("a session stays on one thread: %s", error)
        return None
    try:
        one, many = (
            min(measure(session, signatures, warm) for _ in range(2)) for session in (narrow, wide)
        )
    except BaseException:
        wide.close()
        raise
    if 0 < many < _PAYS * one:
        return wide
    _log.debug("a call takes %.4f s on one thread and %.4f on all: it stays on one", one, many)
    wide.close()
    return None
