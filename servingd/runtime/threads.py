"""Named threads with an owner: a pool of workers that is started, stopped and never polled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

Job: TypeAlias = Callable[[], None]

_log = logging.getLogger(__name__)


def join(threads: list[threading.Thread], timeout_s: float) -> list[str]:
    """Wait for threads until the time is up; return, and log, the names of those that go on."""
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    stuck = [thread.name for thread in threads if thread.is_alive()]
    for name in stuck:
        _log.warning("thread %s did not end within %.1f s", name, timeout_s)
    return stuck


class WorkerPool:
    """`size` threads that run jobs in order of arrival.

    The queue has no bound of its own: its owner submits at most one job per version. The threads
    are daemons, so that a load that hangs in a file system cannot keep the process alive.
    """

    def __init__(self, name: str, size: int) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True)
            for i in range(size)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; from any thread."""
        self._jobs.put(job)

    def stop(self, timeout_s: float) -> list[str]:
        """Let queued jobs finish; return the names of threads that would not end in time."""
        for _ in self._threads:
            self._jobs.put(None)
        return join(self._threads, timeout_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException:  # a worker outlives its jobs, even those that exit
                _log.exception("a job of %s failed", threading.current_thread().name)
            del job  # else the last job's captives live until the next one comes
