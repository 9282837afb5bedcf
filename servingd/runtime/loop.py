"""A thread that runs what others put to it, one at a time, and timed jobs when they are due."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from servingd.runtime.threads import join

Job: TypeAlias = Callable[[], None]

_log = logging.getLogger(__name__)


class Loop:
    """Owns one thread. `put` and `put_after` from any thread; an exception ends its job only."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()  # guarded by _changed
        self._timers: list[tuple[float, int, Job]] = []  # guarded by _changed
        self._order = itertools.count()
        self._closed = False  # guarded by _changed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, job: Job) -> None:
        """Run a job after those that were put before."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def put_after(self, delay_s: float, job: Job) -> None:
        """Run a job in `delay_s` seconds."""
        with self._changed:
            heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), job))
            self._changed.notify()

    def stop(self, timeout_s: float) -> None:
        """Run what was put, drop what is not due, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        join([self._thread], timeout_s)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:  # whatever one causes, the others are run
                _log.exception("a job of %s failed", self._thread.name)
            del job

    def _next(self) -> Job | None:
        with self._changed:
            while True:
                now = time.monotonic()
                if self._timers and self._timers[0][0] <= now:
                    return heapq.heappop(self._timers)[2]
                if self._jobs:
                    return self._jobs.popleft()
                if self._closed:
                    return None
                self._changed.wait(self._timers[0][0] - now if self._timers else None)
