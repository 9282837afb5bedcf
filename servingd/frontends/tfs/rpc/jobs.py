"""Jobs over gRPC: a Predict call that is submitted, and its result later."""

from __future__ import annotations

from collections.abc import Callable

from servingd.core.batching.queue import Priority
from servingd.errors import Code, ServingError
from servingd.frontends.call import CallContext, to_serving_error
from servingd.frontends.job_reply import JobReply
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import Handler, Reply
from servingd.runtime.jobs import JobStore, JobView
from servingd.wire import protos

PROTOBUF = "application/x-protobuf"

MAX_WAIT_S = 60.0
"""Seconds that a caller may wait for the end of a job by one call."""


class JobMethods:
    """The handlers of servingd.JobService."""

    def __init__(
        self, context: CallContext, parser: MessageParser, store: JobStore, predict: Handler
    ) -> None:
        self._context = context
        self._parser = parser
        self._store = store
        self._jobs = store.everywhere
        self._predict = predict

    def submit(self, payload: bytes, reply: Reply) -> None:
        """Begin a Predict call whose reply is a job; answer with its id."""

        def begin() -> None:
            job = self._store.open(len(payload))
            # Low, unless the caller says otherwise: normal cannot be told from nothing said.
            asked = reply.priority()
            priority = Priority.LOW if asked is Priority.NORMAL else asked
            self._predict(payload, JobReply(self._store, job, PROTOBUF, priority))
            self._answer(reply, "Submit", protos.Job(id=job.id))

        self._guarded("Submit", reply, begin)

    def get(self, payload: bytes, reply: Reply) -> None:
        """Answer with a job, once it is done or the caller has waited long enough."""

        def begin() -> None:
            request = self._parser.parse(protos.JobRequest, payload)
            wait_s = min(max(request.wait_s, 0.0), MAX_WAIT_S)
            self._jobs.get(request.id, wait_s, lambda found: self._tell(reply, "Get", found))

        self._guarded("Get", reply, begin)

    def cancel(self, payload: bytes, reply: Reply) -> None:
        """Forget a job."""

        def begin() -> None:
            job_id = self._parser.parse(protos.JobRequest, payload).id
            self._jobs.cancel(job_id, lambda found: self._tell(reply, "Cancel", found))

        self._guarded("Cancel", reply, begin)

    def _guarded(self, method: str, reply: Reply, begin: Callable[[], None]) -> None:
        """Begin to answer; a failure is the answer."""
        try:
            begin()
        except Exception as error:
            self._fail(reply, method, to_serving_error(error, method))

    def _fail(self, reply: Reply, method: str, failure: ServingError) -> None:
        reply.fail(failure.code, failure.message, failure.retry_after_s)
        self._context.metrics.record(
            "", 0, "", f"{method}Job", failure.code, 0.0, reply.request_id()
        )

    def _tell(self, reply: Reply, method: str, found: JobView | ServingError) -> None:
        if isinstance(found, ServingError):
            self._fail(reply, method, found)
        else:
            self._answer(reply, method, _message(found))

    def _answer(self, reply: Reply, method: str, job: protos.Job) -> None:
        reply.send(job.SerializeToString())
        self._context.metrics.record("", 0, "", f"{method}Job", Code.OK, 0.0)


def _message(job: JobView) -> protos.Job:
    """Return a job as it is now; a forgotten one has no result."""
    result = job.result
    if result is None:
        return protos.Job(id=job.id)
    return protos.Job(
        id=job.id,
        done=True,
        code=int(result.code),
        message=result.message,
        response=result.body,
        content_type=result.content_type,
    )
