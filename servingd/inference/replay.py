"""Replay recorded requests on one servable, to warm it up.

The use cases are those of real calls, checks and conversions included. Only the servable is fixed,
whatever model and version the record names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from servingd.core.call_protocols import (
    Completion,
    ServableHandle,
    SignatureRunner,
    StreamRunner,
)
from servingd.core.servable import Servable
from servingd.core.types import ModelSpec, ServableId, Signature, Tensors
from servingd.errors import (
    DeadlineExceeded,
    ServingError,
    Unimplemented,
    as_serving_error,
)
from servingd.inference.checks import CLASSIFY_METHOD, NO_CHECKS, REGRESS_METHOD, Checks
from servingd.inference.examples import results, run_examples
from servingd.inference.multi_inference import Task, TaskOutputs, multi_inference
from servingd.inference.predict import bind_tensors, no_such_signature, predict
from servingd.wire import protos
from servingd.wire.examples import serialized_examples
from servingd.wire.records.prediction_logs import RecordedRequest
from servingd.wire.tensors.encoding import encode_predict_response

_TIMEOUT_S = 600.0
"""Seconds that a servable which completes calls on another thread may take."""


def replay(servable: Servable, request: RecordedRequest, checks: Checks = NO_CHECKS) -> None:
    """Run one recorded request and drop its answer.

    Raises the ServingError that a caller would have got; Unimplemented for kinds that are not
    replayed. The texts are TensorFlow Serving's.
    """
    models = _OneServable(servable)
    content = request.content
    call: _Replay
    match request.kind:
        case "predict_log":
            call = _Predict(protos.PredictRequest.FromString(content))
            predict(models, call, checks)
        case "classify_log" | "regress_log":
            method = CLASSIFY_METHOD if request.kind == "classify_log" else REGRESS_METHOD
            call = _Examples(protos.ExamplesRequest.FromString(content), method)
            run_examples(models, call, method, checks)
        case "multi_inference_log":
            call = _MultiInference(protos.MultiExamplesRequest.FromString(content))
            multi_inference(models, call, checks)
        case _:
            raise Unimplemented(f"Unsupported log_type for warmup: {request.number}")
    call.wait()


class _DirectRunner:
    """Runs one signature in the calling thread; see `core.call_protocols.SignatureRunner`."""

    def __init__(self, servable: Servable, signature: Signature) -> None:
        self._servable = servable
        self.signature = signature
        self.notes: dict[str, Any] = {}

    def run(self, inputs: Tensors, done: Any) -> None:
        self._servable.run(self.signature, inputs, done)


class _OneServable:
    """A servable as `core.call_protocols.Models`, and as the handle on itself."""

    def __init__(self, servable: Servable) -> None:
        self.id = ServableId("", 0)
        self.metadata = servable.metadata
        self.runners: Mapping[str, SignatureRunner] = {
            name: _DirectRunner(servable, signature)
            for name, signature in servable.signatures.items()
        }
        self.streams: Mapping[str, StreamRunner] = {}  # recorded calls are answered whole

    def acquire(self, spec: ModelSpec) -> ServableHandle:
        return self

    def release(self) -> None:
        pass


class _Replay(Completion):
    """A call whose answer is encoded and dropped; the thread that runs it waits for its end."""

    def __init__(self) -> None:
        self.deadline: float | None = time.monotonic() + _TIMEOUT_S
        self.handle: ServableHandle | None = None
        self.runner: SignatureRunner | None = None
        self._over = threading.Event()
        self._error: ServingError | None = None

    def alive(self) -> bool:
        return self.deadline is None or time.monotonic() < self.deadline

    def succeed(self, outputs: Tensors) -> None:
        try:
            assert self.runner is not None  # the runner called this method
            self.encode(outputs, self.runner.signature)
        except Exception as error:
            self._error = as_serving_error(error)
        self._over.set()

    def fail(self, error: ServingError) -> None:
        self._error = error
        self._over.set()

    def encode(self, outputs: Tensors, signature: Signature) -> None:
        """Encode the outputs, as for a caller."""
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until the call has ended; raise its error if it failed."""
        if not self._over.wait(_TIMEOUT_S):
            raise DeadlineExceeded(f"a warm-up request was not answered within {_TIMEOUT_S:.0f} s")
        if self._error is not None:
            raise self._error


class _Predict(_Replay):
    """A recorded Predict request."""

    def __init__(self, request: protos.PredictRequest) -> None:
        super().__init__()
        self._tensors = request.inputs
        self.spec = _spec(request.model_spec)
        self.output_filter: Sequence[str] = request.output_filter

    def bind(self, signature: Signature) -> Tensors:
        return bind_tensors(signature, self._tensors)

    def no_such_signature(self, name: str) -> ServingError:
        return no_such_signature(name)

    def encode(self, outputs: Tensors, signature: Signature) -> None:
        wanted = {alias: outputs[alias] for alias in self.output_filter or outputs}
        encode_predict_response(wanted, signature.outputs, b"")


class _Examples(_Replay):
    """A recorded Classify or Regress request."""

    def __init__(self, request: protos.ExamplesRequest, method: str) -> None:
        super().__init__()
        self._input = request.input
        self._method = method
        self.spec = _spec(request.model_spec)
        self.count = 0

    def examples(self) -> Sequence[bytes]:
        return serialized_examples(self._input)

    def encode(self, outputs: Tensors, signature: Signature) -> None:
        results(signature, self._method, outputs, self.count)


class _MultiInference(_Replay):
    """A recorded MultiInference request."""

    def __init__(self, request: protos.MultiExamplesRequest) -> None:
        super().__init__()
        self._input = request.input
        self._count = 0
        self.tasks: Sequence[Task] = [
            Task(_spec(task.model_spec), task.method_name) for task in request.tasks
        ]

    def examples(self) -> Sequence[bytes]:
        found = serialized_examples(self._input)
        self._count = len(found)
        return found

    def finish(self, answers: Sequence[TaskOutputs]) -> None:
        try:
            for task, (runner, outputs) in zip(self.tasks, answers, strict=True):
                results(runner.signature, task.method, outputs, self._count)
        except Exception as error:
            self._error = as_serving_error(error)
        self._over.set()


def _spec(message: protos.ModelSpec) -> ModelSpec:
    return ModelSpec(message.name, signature_name=message.signature_name)
