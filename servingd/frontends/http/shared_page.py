"""A page that is slow to make: a worker makes it, once for all who wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from servingd.frontends.workers import Workers

_log = logging.getLogger(__name__)


class SharedPage:
    """A page with at most one queued job: requests that arrive meanwhile share its result."""

    def __init__(self, make: Callable[[], bytes], workers: Workers) -> None:
        self._make = make
        self._workers = workers
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[bytes | None], object]] = []  # guarded by _lock

    def ask(self, callback: Callable[[bytes | None], object]) -> None:
        """Pass the page, made after this call, to `callback`; returns at once. Thread-safe."""
        with self._lock:
            first = not self._callbacks
            self._callbacks.append(callback)
        if first:
            self._workers.submit(self._run)

    def _run(self) -> None:
        """Make the page and pass it to all callbacks; on the worker's thread."""
        with self._lock:  # requests from now on get a newer page
            callbacks, self._callbacks = self._callbacks, []
        page = None
        try:
            page = self._make()
        except BaseException:  # each callback must still be called
            _log.exception("a page could not be made")
        for callback in callbacks:
            callback(page)
