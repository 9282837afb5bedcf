"""The reply to a call that nobody waits for: its answer becomes a job's result."""

from __future__ import annotations

import time

from servingd.core.batching.queue import Priority
from servingd.errors import Code
from servingd.runtime.jobs import Job, JobStore, Result


class JobReply:
    """Keeps one answer in the store; see `Reply`."""

    __slots__ = ("_job", "_priority", "_store", "content_type", "deadline")

    alone = False

    def __init__(self, store: JobStore, job: Job, content_type: str, priority: Priority) -> None:
        self._store = store
        self._job = job
        self._priority = priority
        self.content_type = content_type
        """Of an answer that is no error."""
        self.deadline: float | None = job.deadline

    def alive(self) -> bool:
        """Return whether the job is still wanted."""
        job = self._job
        return job.result is None and not job.cancelled and time.monotonic() < job.deadline

    def priority(self) -> Priority:
        """Return the priority that the caller asked for, or a low one."""
        return self._priority

    def request_id(self) -> str:
        """Return the job's id."""
        return self._job.id

    def authorization(self) -> str:
        """Return nothing: jobs are no administrators' calls."""
        return ""

    def begin_batch(self) -> None:
        """Do nothing: nothing is sent."""

    def send(self, payload: bytes) -> bool:
        """Keep an answer."""
        result = Result(Code.OK, body=bytes(payload), content_type=self.content_type)
        return self._store.finish(self._job, result)

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        """Keep an error."""
        return self._store.finish(self._job, Result(code, message))

    def refuse_body(self, message: str) -> bool:
        """Keep the error that the body is too large."""
        return self.fail(Code.RESOURCE_EXHAUSTED, message)

    def expire(self) -> None:
        """Keep the time-out error, unless there is an answer."""
        self.fail(Code.DEADLINE_EXCEEDED, "the job took too long")
