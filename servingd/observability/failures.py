"""Log calls that fail: model, method, code and number, never what they contained."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from servingd.errors import Code

EVERY_S = 10.0
"""Seconds between two lines for one model, method and code; `--log_level=debug` logs every call."""

_log = logging.getLogger(__name__)


class FailureLog:
    """Thread-safe. Models and methods must be known ones, so that clients cannot make it grow."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str, Code], tuple[float, int]] = {}  # guarded by _lock

    def note(self, model: str, method: str, code: Code, request_id: str = "") -> None:
        """Record a failed call, and log it if a line is due; `request_id` is the caller's."""
        fields = {"model": model, "method": method, "code": code.name, "request_id": request_id}
        which = f" (request {request_id})" if request_id else ""
        _log.debug(
            "%s of %s failed: %s%s",
            method,
            model or "no known model",
            code.name,
            which,
            extra=fields,
        )
        key = (model, method, code)
        now = self._now()
        with self._lock:
            said_at, more = self._since.get(key, (-EVERY_S, 0))
            due = now - said_at >= EVERY_S
            self._since[key] = (now, 0) if due else (said_at, more + 1)
        if due:
            others = f" (and {more} since the last such line)" if more else ""
            name = model or "a model that is not known"
            _log.info(
                "%s of %s failed: %s%s%s", method, name, code.name, which, others, extra=fields
            )
