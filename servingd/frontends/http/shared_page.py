"""A page that takes long to make: made by a worker, and once for all who wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

Callback: TypeAlias = Callable[["bytes | None"], object]
"""Takes the page; None if it could not be made. Called from the worker's thread."""

_log = logging.getLogger(__name__)


class Workers(Protocol):
    """Threads that run jobs in order of arrival."""

    def submit(self, job: Callable[[], None]) -> None:
        """Queue a job; from any thread."""
        ...


class SharedPage:
    """At most one job waits at a time: whoever asks while it does shares what it makes."""

    def __init__(self, make: Callable[[], bytes], workers: Workers) -> None:
        self._make = make
        self._workers = workers
        self._lock = threading.Lock()
        self._callbacks: list[Callback] = []  # guarded by _lock

    def ask(self, callback: Callback) -> None:
        """Have the page made, no older than this call, and given to `callback`; returns at once."""
        with self._lock:
            first = not self._callbacks
            self._callbacks.append(callback)
        if first:
            self._workers.submit(self._run)

    def _run(self) -> None:
        with self._lock:  # who asks from now on gets a newer one
            callbacks, self._callbacks = self._callbacks, []
        page = None
        try:
            page = self._make()
        except BaseException:  # each of them must still be answered
            _log.exception("a page could not be made")
        for callback in callbacks:
            callback(page)
