"""Keep jobs and their results in memory, for callers that ask for them later.

Nothing that was accepted is dropped before its time: a store that is full refuses new jobs. A job
has `age_s` seconds to end, and its result is kept for as long again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from servingd.errors import Code, NotFound, ResourceExhausted, ServingError
from servingd.runtime.loop import Loop

_OVERHEAD_BYTES = 4096
"""Bytes that a job counts besides its request and its result."""
_SWEEP_S = 0.1
"""Seconds between two looks at whose time is over, while there are jobs."""
_MOST_WAITING = 64
"""Calls that may wait for one job; further ones are told how it is now."""
_RETRY_AFTER_S = 5.0


class Result(NamedTuple):
    """How a job has ended."""

    code: Code
    message: str = ""
    """Why it has failed; empty if it has not."""
    body: bytes = b""
    content_type: str = ""


class Job:
    """One job. Its fields are guarded by the store's lock; they may be read without it."""

    __slots__ = ("cancelled", "deadline", "id", "result", "size", "waiters")

    def __init__(self, size: int, deadline: float) -> None:
        self.id = secrets.token_hex(16)
        self.size = size
        """Bytes that it counts now."""
        self.deadline = deadline
        """Monotonic seconds at which it has to be done; once it is, until when it is kept."""
        self.cancelled = False
        self.result: Result | None = None
        self.waiters: list[_Waiter] = []


class _Waiter(NamedTuple):
    """Who waits for a job, and until when."""

    until: float
    tell: Callable[[], None]


class JobView(NamedTuple):
    """How a job is at one moment."""

    id: str
    state: str
    """`pending`, `done` or `cancelled`."""
    result: Result | None = None


Tell: TypeAlias = Callable[[JobView | ServingError], None]
"""Takes how a job is, or why that cannot be said; once, on any thread."""


class Jobs(Protocol):
    """The jobs of a server, whichever of its processes has them."""

    def get(self, job_id: str, wait_s: float, tell: Tell) -> None:
        """Tell how a job is, once it is done or after `wait_s`. Raises NotFound, or tells it."""
        ...

    def cancel(self, job_id: str, tell: Tell) -> None:
        """Forget a job. Raises NotFound, or tells it."""
        ...


class JobStore:
    """All jobs of this process, by id; see `Jobs`. Thread-safe. Owns the thread `jobs`."""

    def __init__(self, max_bytes: int, age_s: float) -> None:
        self._max_bytes = max_bytes
        self._age_s = age_s
        self.everywhere: Jobs = self
        """The jobs of all processes that share the ports; set before the start."""
        self._loop = Loop("jobs")
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}  # guarded by _lock, as all below
        self._bytes = 0
        self._sweeps = False  # whether a sweep is to come
        self._ending = False

    def start(self) -> None:
        """Start the thread."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread."""
        self._loop.stop(1.0)

    def open(self, request_bytes: int) -> Job:
        """Return a new job. Raises ResourceExhausted if there is no room for its request."""
        size = request_bytes + _OVERHEAD_BYTES
        with self._lock:
            if self._bytes + size > self._max_bytes:
                error = ResourceExhausted(
                    f"there is no room for a job of {request_bytes} bytes: {len(self._jobs)} jobs "
                    f"take {self._bytes} of {self._max_bytes} bytes"
                )
                error.retry_after_s = _RETRY_AFTER_S
                raise error
            job = Job(size, time.monotonic() + self._age_s)
            begins, self._sweeps = not self._sweeps, True
            self._jobs[job.id] = job
            self._bytes += size
        if begins:
            self._loop.put_after(_SWEEP_S, self._sweep)
        return job

    def finish(self, job: Job, result: Result) -> bool:
        """Keep a job's result; return False if it has one, or is forgotten.

        A result for which there is no room becomes an error.
        """
        with self._lock:
            if job.result is not None or job.cancelled:
                return False
            others, size = self._bytes - job.size, len(result.body) + _OVERHEAD_BYTES
            if others + size > self._max_bytes:
                text = f"there is no room for the job's result of {len(result.body)} bytes"
                result, size = Result(Code.RESOURCE_EXHAUSTED, text), _OVERHEAD_BYTES
            self._bytes, job.size = others + size, size
            job.result = result
            job.deadline = time.monotonic() + self._age_s
            waiters, job.waiters = job.waiters, []
        _tell(waiters)
        return True

    def find(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id!r}: it never was, or its time is over")
        return job

    def get(self, job_id: str, wait_s: float, tell: Tell) -> None:
        """See `Jobs.get`."""
        job = self.find(job_id)
        self.when_done(job, wait_s, lambda: tell(view_of(job)))

    def cancel(self, job_id: str, tell: Tell) -> None:
        """See `Jobs.cancel`."""
        job = self.find(job_id)
        self.forget(job_id)
        tell(view_of(job))

    def when_done(self, job: Job, wait_s: float, tell: Callable[[], None]) -> None:
        """Call `tell` once: when the job is done or forgotten, or after a while, or here and now.

        It is called on any thread, and must not raise.
        """
        with self._lock:
            pending = job.result is None and not job.cancelled
            waits = pending and wait_s > 0 and not self._ending
            waits = waits and len(job.waiters) < _MOST_WAITING
            if waits:
                job.waiters.append(_Waiter(time.monotonic() + wait_s, tell))
        if not waits:
            tell()

    def forget(self, job_id: str) -> bool:
        """Remove a job, which is run no further; return False if there is none."""
        with self._lock:
            job = self._jobs.pop(job_id, None)
            if job is None:
                return False
            self._bytes -= job.size
            job.cancelled = True
            waiters, job.waiters = job.waiters, []
        _tell(waiters)
        return True

    def tell_all(self) -> None:
        """Let nobody wait any more: the server stops."""
        with self._lock:
            self._ending = True
        self._tell_waiting(float("inf"))

    @property
    def size(self) -> int:
        """The bytes that all jobs count now."""
        return self._bytes

    def _tell_waiting(self, now: float) -> None:
        """Tell those who have waited long enough."""
        due: list[_Waiter] = []
        with self._lock:
            for job in self._jobs.values():
                if job.waiters:
                    due += [waiter for waiter in job.waiters if waiter.until <= now]
                    job.waiters = [waiter for waiter in job.waiters if waiter.until > now]
        _tell(due)

    def _sweep(self) -> None:
        """End what has taken too long, drop what was kept long enough; while there are jobs."""
        now = time.monotonic()
        with self._lock:
            over = [job for job in self._jobs.values() if job.deadline <= now]
        for job in over:
            if job.result is not None:
                self.forget(job.id)
            else:
                self.finish(job, Result(Code.DEADLINE_EXCEEDED, "the job took too long"))
        self._tell_waiting(now)
        with self._lock:
            goes_on = self._sweeps = bool(self._jobs)
        if goes_on:
            self._loop.put_after(_SWEEP_S, self._sweep)


def view_of(job: Job) -> JobView:
    """Return how a job is now."""
    if job.cancelled:
        return JobView(job.id, "cancelled")
    result = job.result
    return JobView(job.id, "pending" if result is None else "done", result)


def _tell(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        waiter.tell()
