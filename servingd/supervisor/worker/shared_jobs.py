"""Jobs of all workers: whichever is asked for one asks the others, by way of the supervisor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from servingd.errors import Code, NotFound, ServingError
from servingd.runtime.jobs import JobStore, JobView, Result, Tell
from servingd.supervisor.link.messages import Answer, pack, unpack
from servingd.supervisor.link.questions import Questions


class SharedJobs:
    """See `runtime.jobs.Jobs`. Thread-safe."""

    def __init__(self, store: JobStore, questions: Questions) -> None:
        self._store = store
        self._questions = questions

    def get(self, job_id: str, wait_s: float, tell: Tell) -> None:
        """Tell how a job of any worker is."""
        try:
            self._store.get(job_id, wait_s, tell)
        except NotFound as error:
            self._ask("get", job_id, wait_s, error, tell)

    def cancel(self, job_id: str, tell: Tell) -> None:
        """Forget a job of any worker."""
        try:
            self._store.cancel(job_id, tell)
        except NotFound as error:
            self._ask("cancel", job_id, 0.0, error, tell)

    def _ask(
        self, what: str, job_id: str, wait_s: float, not_here: ServingError, tell: Tell
    ) -> None:
        """Ask the other workers; a job that none of them has is not found."""

        def answered(answer: Answer) -> None:
            if answer.error is not None:
                tell(answer.error)
            else:
                tell(_unpacked(answer.body) if answer.body else not_here)

        self._questions.ask("job", pack([what, job_id, wait_s]), answered)

    def answer(self, body: bytes, reply: Callable[[bytes], object]) -> None:
        """Answer another worker's question; with nothing where the job is not here."""
        what, job_id, wait_s = unpack(body)

        def tell(found: JobView | ServingError) -> None:
            reply(b"" if isinstance(found, ServingError) else _packed(found))

        try:
            if what == "cancel":
                self._store.cancel(job_id, tell)
            else:
                self._store.get(job_id, wait_s, tell)
        except NotFound:
            reply(b"")


def _packed(found: JobView) -> bytes:
    result: Any = found.result
    if found.result is not None:
        code, message, body, content_type = found.result
        result = [int(code), message, body, content_type]
    return pack([found.id, found.state, result])


def _unpacked(body: bytes) -> JobView:
    job_id, state, result = unpack(body)
    if result is None:
        return JobView(job_id, state)
    code, *rest = result
    return JobView(job_id, state, Result(Code(code), *rest))
