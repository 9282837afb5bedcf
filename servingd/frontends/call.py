"""One inference call on its way, whatever wire it came by: its handle, its time, its answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from servingd.core.batching.queue import Priority
from servingd.core.calls import Models, ServableHandle, SignatureRunner
from servingd.core.types import ModelSpec, ServableId, Signature, Tensors
from servingd.errors import Code, ServingError, as_serving_error
from servingd.frontends.reply import Reply
from servingd.inference.calls import NO_CHECKS, Checks
from servingd.observability.requests import Histogram, RequestMetrics
from servingd.runtime.first_calls import FirstCalls
from servingd.wire.tensors.encoding import encode_model_spec

_log = logging.getLogger(__name__)


class RequestLog(Protocol):
    """Where a sample of the calls that succeed is written to."""

    def samples(self, model: str) -> bool:
        """Whether the call that succeeds now is to be written; from any thread, cheap."""
        ...

    def write(self, servable_id: ServableId, kind: str, request: bytes, response: bytes) -> None:
        """Take a record: `kind` is its field in PredictionLog. Never waits; drops if it must."""
        ...


@dataclass(frozen=True, slots=True)
class CallContext:
    """What every call needs of the server."""

    models: Models
    metrics: RequestMetrics
    knows: Callable[[str], bool] = lambda name: False
    """Whether there is a model of that name: clients must not make series of metrics."""
    request_log: RequestLog | None = None
    checks: Checks = NO_CHECKS
    """What is asked of a call besides what TensorFlow Serving asks."""
    first_calls: FirstCalls | None = None
    """Where calls wait for the first models; None: nowhere."""
    as_content: bool = False
    """Whether tensors of answers travel in `tensor_content`."""

    def blamed(self, handle: ServableHandle | None, spec: ModelSpec | None) -> tuple[str, int]:
        """Which model and version a failed call is counted for; none if nobody serves it."""
        if handle is not None:
            return handle.id.name, handle.id.version
        return (spec.name, 0) if spec is not None and self.knows(spec.name) else ("", 0)


class Note(NamedTuple):
    """What each answer of a signature needs: the ModelSpec to send, and histograms to count in."""

    model_spec: bytes
    request: Histogram
    runtime: Histogram


class Call:
    """One call. It gives its handle back when its reply is sent, failed or dropped.

    A wire's own class says how requests are read (see `inference`) and answers encoded.
    """

    method: ClassVar[str]
    """What it is counted as: `Predict`; REST's are lower case."""
    api: ClassVar[str]
    """What its runs are counted as: `Predict`, `Classify` or `Regress`."""
    log_kind: ClassVar[str]
    """Its field in a PredictionLog."""

    __slots__ = (
        "_context",
        "_reply",
        "_started",
        "deadline",
        "handle",
        "ran_at",
        "runner",
        "spec",
    )

    def __init__(self, reply: Reply, context: CallContext) -> None:
        self._started = time.perf_counter()
        self._reply = reply
        self._context = context
        self.handle: ServableHandle | None = None
        self.runner: SignatureRunner | None = None
        self.deadline = reply.deadline
        self.spec: ModelSpec
        self.ran_at = self._started

    @property
    def alone(self) -> bool:
        """Whether its transport has no other call in hand."""
        return self._reply.alone

    def priority(self) -> Priority:
        """What the caller says of its importance."""
        return self._reply.priority()

    def alive(self) -> bool:
        """Whether anybody still waits."""
        return self._reply.alive()

    def begin_batch(self) -> Callable[[], None] | None:
        """Let this thread's answers to calls of the same transport go out together."""
        return self._reply.begin_batch()

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """The answer's bytes; raises a ServingError if the outputs are not what was asked for."""
        raise NotImplementedError

    def log_request(self) -> bytes:
        """The request as its gRPC message, for the request log."""
        raise NotImplementedError

    def log_response(self, outputs: Tensors, note: Note, payload: bytes) -> bytes:
        """The response as its gRPC message, for the request log."""
        return payload

    def succeed(self, outputs: Tensors) -> None:
        """Answer with the outputs."""
        finished = time.perf_counter()
        runner, handle = self.runner, self.handle
        assert runner is not None  # it runs the call
        assert handle is not None  # the runner was found through it
        try:
            note = runner.notes.get(self.method) or self._make_note(runner, handle)
            payload = self.encode(outputs, runner.signature, note)
            heard = self._reply.send(payload)
        except Exception as error:
            self.fail(to_serving_error(error, self.method))
            return
        if not heard:
            self._end(unheard(self._reply))
            return
        log = self._context.request_log
        if log is not None and log.samples(handle.id.name):
            self._write_log(log, handle.id, outputs, note, payload)
        self.handle = None
        handle.release()
        note.runtime.add(finished - self.ran_at)
        note.request.add(time.perf_counter() - self._started)

    def fail(self, error: ServingError) -> None:
        """Answer with a failure."""
        code = error.code
        try:
            if not self._reply.fail(code, error.message, error.retry_after_s):
                code = unheard(self._reply, code)
        finally:  # the handle comes back whatever becomes of the reply
            self._end(code)

    def _end(self, code: Code) -> None:
        """Give the handle back, and count a call that did not succeed."""
        handle, self.handle = self.handle, None
        model, version = self._context.blamed(handle, getattr(self, "spec", None))
        if handle:
            handle.release()
        signature = self.runner.signature.name if self.runner else ""
        seconds = time.perf_counter() - self._started
        self._context.metrics.record(model, version, signature, self.method, code, seconds)

    def _make_note(self, runner: SignatureRunner, handle: ServableHandle) -> Note:
        servable_id, signature = handle.id, runner.signature.name
        metrics = self._context.metrics
        note = runner.notes[self.method] = Note(
            encode_model_spec(servable_id.name, servable_id.version, signature),
            metrics.histogram(
                servable_id.name, servable_id.version, signature, self.method, Code.OK
            ),
            metrics.runtime_cell(servable_id.name, self.api),
        )
        return note

    def _write_log(
        self, log: RequestLog, servable_id: ServableId, outputs: Tensors, note: Note, payload: bytes
    ) -> None:
        try:
            response = self.log_response(outputs, note, payload)
            log.write(servable_id, self.log_kind, self.log_request(), response)
        except Exception:  # the caller has its answer: a record is not worth more than that
            _log.exception("a %s call of %s is not logged", self.method, servable_id)


def unheard(reply: Reply, code: Code = Code.CANCELLED) -> Code:
    """What a call is counted as whose outcome came too late; `code` if its time is not up."""
    late = reply.deadline is not None and time.monotonic() >= reply.deadline
    return Code.DEADLINE_EXCEEDED if late else code


def to_serving_error(error: Exception, method: str) -> ServingError:
    """The error to answer with; one that is our fault is logged with its traceback."""
    if not isinstance(error, ServingError):
        _log.exception("%s failed", method)
    return as_serving_error(error)
