"""One inference call of any API: its handle, its times and its answer.

`Call` is what all have, `SignatureCall` what calls of one signature add.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from servingd.core.batching.queue import Priority
from servingd.core.call_protocols import Models, ServableHandle, SignatureRunner
from servingd.core.types import ModelSpec, ServableId, Signature, Tensors
from servingd.errors import Code, ServingError, as_serving_error
from servingd.frontends.reply import Reply
from servingd.inference.checks import NO_CHECKS, Checks
from servingd.observability.requests import Histogram, RequestMetrics
from servingd.runtime.first_calls import FirstCalls
from servingd.wire.tensors.encoding import encode_model_spec

_log = logging.getLogger(__name__)


class RequestLog(Protocol):
    """Writes a sample of the calls that succeed."""

    def samples(self, model: str) -> bool:
        """Return whether a call that has just succeeded is to be written. Thread-safe, cheap."""
        ...

    def write(self, servable_id: ServableId, kind: str, request: bytes, response: bytes) -> None:
        """Enqueue a record; `kind` is its field in PredictionLog. Never blocks; may drop it."""
        ...


@dataclass(frozen=True, slots=True)
class CallContext:
    """The objects of the server that every call needs."""

    models: Models
    metrics: RequestMetrics
    is_configured: Callable[[str], bool]
    """Returns whether a model of that name is configured, so that clients make no metric series."""
    request_log: RequestLog | None = None
    checks: Checks = NO_CHECKS
    """Checks that TensorFlow Serving does not make."""
    first_calls: FirstCalls | None = None
    """Holds calls until the first models have loaded; None: calls are not held."""
    as_content: bool = False
    """Whether output tensors are sent in `tensor_content`."""

    def metric_labels(
        self, handle: ServableHandle | None, spec: ModelSpec | None
    ) -> tuple[str, int]:
        """Return the model and version for the metrics of a failed call; empty if none is known."""
        if handle is not None:
            return handle.id.name, handle.id.version
        return (spec.name, 0) if spec is not None and self.is_configured(spec.name) else ("", 0)


class Note(NamedTuple):
    """What every answer of a signature needs: its serialised ModelSpec, and two histograms."""

    model_spec: bytes
    request: Histogram
    runtime: Histogram


class Call:
    """One call. It releases its handle when its reply is sent, failed or dropped."""

    method: ClassVar[str]
    """Its method in metrics: `Predict`; REST's methods are in lower case."""

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
        self.ran_at = self._started  # once its inputs are bound: then

    @property
    def alone(self) -> bool:
        """Whether its transport has no other call in hand."""
        return self._reply.alone

    def priority(self) -> Priority:
        """Return the priority that the caller asked for."""
        return self._reply.priority()

    def alive(self) -> bool:
        """Return whether somebody still waits for the answer."""
        return self._reply.alive()

    def begin_batch(self) -> Callable[[], None] | None:
        """Buffer this thread's responses; see `Completion.begin_batch`."""
        return self._reply.begin_batch()

    def fail(self, error: ServingError) -> None:
        """Send an error; release the handle and record the call."""
        code = error.code
        try:
            if not self._reply.fail(code, error.message, error.retry_after_s):
                code = late_code(self._reply, code)
        finally:  # the handle is released even if the reply fails
            self._end(code)

    def _end(self, code: Code) -> None:
        """Release the handle, and record the call under its outcome."""
        handle, self.handle = self.handle, None
        model, version = self._context.metric_labels(handle, getattr(self, "spec", None))
        if handle:
            handle.release()
        signature = self.runner.signature.name if self.runner else ""
        seconds = time.perf_counter() - self._started
        request_id = self._reply.request_id()
        self._context.metrics.record(
            model, version, signature, self.method, code, seconds, request_id
        )


class SignatureCall(Call):
    """A call of one signature: Predict, Classify or Regress.

    Each API has its own subclass, which reads requests (see `inference`) and encodes answers.
    """

    api: ClassVar[str]
    """Its API in the metrics of runs: `Predict`, `Classify` or `Regress`."""
    log_kind: ClassVar[str]
    """Its field in a PredictionLog."""

    __slots__ = ()

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return the answer's bytes. Raises ServingError if the outputs do not fit the request."""
        raise NotImplementedError

    def log_request(self) -> bytes:
        """Return the request as its gRPC message, for the request log."""
        raise NotImplementedError

    def log_response(self, outputs: Tensors, note: Note, payload: bytes) -> bytes:
        """Return the response as its gRPC message, for the request log."""
        return payload

    def succeed(self, outputs: Tensors) -> None:
        """Encode and send the outputs; release the handle and record the call."""
        finished = time.perf_counter()
        runner, handle = self.runner, self.handle
        assert runner is not None  # the runner called this method
        assert handle is not None  # the runner was found through it
        try:
            note = runner.notes.get(self.method) or self._make_note(runner, handle)
            payload = self.encode(outputs, runner.signature, note)
            delivered = self._reply.send(payload)
        except Exception as error:
            self.fail(to_serving_error(error, self.method))
            return
        if not delivered:
            self._end(late_code(self._reply))
            return
        log = self._context.request_log
        if log is not None and log.samples(handle.id.name):
            self._write_log(log, handle.id, outputs, note, payload)
        self.handle = None
        handle.release()
        note.runtime.add(finished - self.ran_at)
        note.request.add(time.perf_counter() - self._started)

    def _make_note(self, runner: SignatureRunner, handle: ServableHandle) -> Note:
        """Make the note of a runner, which all later calls of this method use."""
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
        """Write a record to the request log; an exception is only logged."""
        try:
            response = self.log_response(outputs, note, payload)
            log.write(servable_id, self.log_kind, self.log_request(), response)
        except Exception:  # the caller has its answer; only the record is lost
            _log.exception("a %s call of %s is not logged", self.method, servable_id)


def late_code(reply: Reply, code: Code = Code.CANCELLED) -> Code:
    """Return the code to record for a call that nobody waited for; `code` if its time is not up."""
    late = reply.deadline is not None and time.monotonic() >= reply.deadline
    return Code.DEADLINE_EXCEEDED if late else code


def to_serving_error(error: Exception, method: str) -> ServingError:
    """Return the error to answer with; log a fault of the server with its traceback."""
    if not isinstance(error, ServingError):
        _log.exception("%s failed", method)
    return as_serving_error(error)
