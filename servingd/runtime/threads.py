"""Named threads with an owner: a pool of workers that is started and stopped, and never polled."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

Job: TypeAlias = Callable[[], None]
"""What a worker runs; an exception is logged, and ends nothing else."""

_log = logging.getLogger(__name__)


def join(threads: list[threading.Thread], timeout_s: float) -> list[str]:
    """Wait at most `timeout_s` for threads; return, and log, the names of those still running."""
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    stuck = [thread.name for thread in threads if thread.is_alive()]
    for name in stuck:
        _log.warning("thread %s did not end within %.1f s", name, timeout_s)
    return stuck


class WorkerPool:
    """A pool of `size` threads that run jobs in order of arrival.

    The queue has no bound of its own: its owner submits at most one job per version. The threads
    are daemons, so that a load that hangs in a file system cannot keep the process alive. A thread
    whose job hangs can be given up: another one replaces it, and it ends with its job.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._numbers = itertools.count()  # guarded by _lock
        self._running: dict[threading.Thread, Job] = {}  # guarded by _lock
        self._stopped = False  # guarded by _lock
        # Without the threads that were given up; guarded by _lock.
        self._threads = [self._new_thread() for _ in range(size)]

    def start(self) -> None:
        """Start the threads."""
        for thread in list(self._threads):
            thread.start()

    def submit(self, job: Job) -> None:
        """Enqueue a job. Thread-safe."""
        self._jobs.put(job)

    def give_up(self, job: Job) -> bool:
        """Replace the thread that runs this job by a new one. Thread-safe.

        Returns False if no thread runs it: the job is still queued, or has ended.
        """
        with self._lock:
            stuck = next((t for t, j in self._running.items() if j is job), None)
            if stuck is None or stuck not in self._threads:
                return False
            self._threads.remove(stuck)
            if self._stopped:
                return True
            stand_in = self._new_thread()
            self._threads.append(stand_in)
        stand_in.start()
        return True

    def stop(self, timeout_s: float) -> list[str]:
        """Finish the queued jobs; return the names of threads still running after `timeout_s`."""
        with self._lock:
            self._stopped = True
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        return join(threads, timeout_s)

    def _new_thread(self) -> threading.Thread:
        name = f"{self._name}-{next(self._numbers)}"
        return threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        """Run jobs until the stop, or until this thread is given up; the thread's main loop."""
        me = threading.current_thread()
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._running[me] = job
            try:
                job()
            except BaseException:  # a worker outlives its jobs, even those that exit
                _log.exception("a job of %s failed", me.name)
            del job  # else what the last job refers to lives until the next job arrives
            with self._lock:
                del self._running[me]
                if me not in self._threads:
                    return  # it was given up, and another thread has replaced it
