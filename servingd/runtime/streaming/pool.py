"""The threads that take the steps of one version's streams."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque

from servingd.runtime.threads import Job

_IDLE_S = 5.0
"""Seconds after which a thread that has nothing to do ends."""

_log = logging.getLogger(__name__)


class StepPool:
    """Runs jobs in order of arrival, on at most `size` threads that are started as needed.

    The queue is bounded by its users: a stream has one job at a time, and streams are counted. The
    threads are daemons, so that a step that hangs cannot keep the process alive. Thread-safe.
    """

    def __init__(self, name: str, size: int, idle_s: float = _IDLE_S) -> None:
        self._name = name
        self._size = size
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._numbers = itertools.count()  # guarded by _changed, as all below
        self._jobs: deque[Job] = deque()
        self._threads = 0
        self._idle = 0  # threads that wait
        self._closed = False

    def submit(self, job: Job) -> None:
        """Run a job after those that were submitted before."""
        with self._changed:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
                return
            if self._threads >= self._size:
                return
            self._threads += 1
            name = f"{self._name}-{next(self._numbers)}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def close(self) -> None:
        """End the threads once the jobs that were submitted have run. Returns at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        """Run jobs until there have been none for a while; a thread's main function."""
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:  # a model's own code may even raise SystemExit
                _log.exception("a step of %s failed", self._name)
            del job  # else what it refers to lives until the next job arrives

    def _next(self) -> Job | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._jobs or self._closed, self._idle_s)
            self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads -= 1
            return None
