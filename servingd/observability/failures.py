"""A line in the log for calls that fail: which model, what kind, how many. Never what they held."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from servingd.errors import Code

EVERY_S = 10.0
"""A line for each model, method and code at most so often; `--log_level=debug` has all of them."""

_log = logging.getLogger(__name__)


class FailureLog:
    """From any thread. Models and methods must be known ones: clients make no entries."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str, Code], tuple[float, int]] = {}  # guarded by _lock

    def note(self, model: str, method: str, code: Code) -> None:
        """A call has failed."""
        _log.debug("%s of %s failed: %s", method, model or "no known model", code.name)
        key = (model, method, code)
        now = self._now()
        with self._lock:
            said_at, more = self._since.get(key, (-EVERY_S, 0))
            due = now - said_at >= EVERY_S
            self._since[key] = (now, 0) if due else (said_at, more + 1)
        if due:
            others = f" (and {more} since the last such line)" if more else ""
            name = model or "a model that is not known"
            _log.info("%s of %s failed: %s%s", method, name, code.name, others)
