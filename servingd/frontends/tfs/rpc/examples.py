"""Classify, Regress and MultiInference over gRPC."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from servingd.core.types import Signature, Tensors
from servingd.errors import Code, InvalidArgument
from servingd.frontends.call import (
    Call,
    CallContext,
    Note,
    SignatureCall,
    late_code,
    to_serving_error,
)
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import Reply
from servingd.frontends.tfs.rpc.messages import model_spec
from servingd.inference.checks import CLASSIFY_METHOD, REGRESS_METHOD
from servingd.inference.examples import (
    Classification,
    classification,
    regression,
    results,
    run_examples,
)
from servingd.inference.multi_inference import Task, TaskOutputs, multi_inference
from servingd.wire import protos
from servingd.wire.examples import classification_result, regression_result, serialized_examples
from servingd.wire.records.prediction_logs import classification_response, regression_response


class ExamplesMethod:
    """The handler of PredictionService.Classify or Regress."""

    def __init__(
        self, context: CallContext, parser: MessageParser, kind: type[ClassifyCall | RegressCall]
    ) -> None:
        self._context = context
        self._parser = parser
        self._kind = kind

    def __call__(self, payload: bytes, reply: Reply) -> None:
        """Answer one call; see `Handler`."""
        context = self._context
        call = self._kind(reply, context)
        try:
            request = self._parser.parse(protos.ExamplesRequest, payload, call.request_name)
            if not request.HasField("model_spec"):
                raise InvalidArgument("Missing ModelSpec")
            call.payload, call.input = payload, request.input
            call.spec = model_spec(request.model_spec)
            run_examples(context.models, call, call.signature_method, context.checks)
        except Exception as error:
            call.fail(to_serving_error(error, call.method))


class _ExamplesCall(SignatureCall):
    """The common part of both kinds; see `inference.examples.ExamplesCall`."""

    signature_method: str
    request_name: str

    __slots__ = ("count", "input", "payload")

    def __init__(self, reply: Reply, context: CallContext) -> None:
        super().__init__(reply, context)
        self.payload = self.input = b""
        self.count = 0

    def examples(self) -> Sequence[bytes]:
        """Return the Examples, each serialised as the client sent it."""
        found = serialized_examples(self.input)
        self.ran_at = time.perf_counter()
        return found

    def log_request(self) -> bytes:
        """Return the request as it was received."""
        return self.payload


class ClassifyCall(_ExamplesCall):
    """One Classify call."""

    method = api = "Classify"
    log_kind = "classify_log"
    signature_method = CLASSIFY_METHOD
    request_name = "tensorflow.serving.ClassificationRequest"

    __slots__ = ()

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return a ClassificationResponse."""
        found = classification(signature, outputs, self.count)
        return classification_response(found.labels, found.scores, note.model_spec)


class RegressCall(_ExamplesCall):
    """One Regress call."""

    method = api = "Regress"
    log_kind = "regress_log"
    signature_method = REGRESS_METHOD
    request_name = "tensorflow.serving.RegressionRequest"

    __slots__ = ()

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return a RegressionResponse."""
        return regression_response(regression(signature, outputs, self.count), note.model_spec)


class MultiInferenceMethod:
    """The handler of PredictionService.MultiInference."""

    def __init__(self, context: CallContext, parser: MessageParser) -> None:
        self._context = context
        self._parser = parser

    def __call__(self, payload: bytes, reply: Reply) -> None:
        """Answer one call; see `Handler`."""
        context = self._context
        call = MultiInferenceCall(reply, context, payload)
        try:
            request = self._parser.parse(
                protos.MultiExamplesRequest, payload, "tensorflow.serving.MultiInferenceRequest"
            )
            call.input = request.input
            call.tasks = [Task(model_spec(t.model_spec), t.method_name) for t in request.tasks]
            if call.tasks:
                call.spec = call.tasks[0].spec
            multi_inference(context.models, call, context.checks)
        except Exception as error:
            call.fail(to_serving_error(error, call.method))


class MultiInferenceCall(Call):
    """One MultiInference call; see `inference.multi_inference.MultiInferenceCall`."""

    method = "MultiInference"

    __slots__ = ("_count", "input", "payload", "tasks")

    def __init__(self, reply: Reply, context: CallContext, payload: bytes) -> None:
        super().__init__(reply, context)
        self.payload = payload
        self.tasks: Sequence[Task] = ()
        self.input = b""
        self._count = 0

    def examples(self) -> Sequence[bytes]:
        """Return the Examples, each serialised as the client sent it."""
        found = serialized_examples(self.input)
        self._count = len(found)
        return found

    def finish(self, answers: Sequence[TaskOutputs]) -> None:
        """Send the results of all tasks."""
        assert self.handle is not None  # the tasks' runners were found through it
        servable = self.handle.id
        try:
            response = protos.MultiInferenceResponse()
            for task, (runner, outputs) in zip(self.tasks, answers, strict=True):
                result = response.results.add()
                found = results(runner.signature, task.method, outputs, self._count)
                _fill(result, found)
                result.model_spec.name = task.spec.name
                result.model_spec.version.value = servable.version
                result.model_spec.signature_name = runner.signature.name
            payload = response.SerializeToString()
            delivered = self._reply.send(payload)
        except Exception as error:
            self.fail(to_serving_error(error, self.method))
            return
        if not delivered:
            self._end(late_code(self._reply))
            return
        self._context.metrics.count_examples(servable.name, self._count)
        log = self._context.request_log
        if log is not None and log.samples(servable.name):
            log.write(servable, "multi_inference_log", self.payload, payload)
        self._end(Code.OK)


def _fill(result: Any, found: Classification | np.ndarray[Any, Any]) -> None:
    if isinstance(found, Classification):
        classification_result(found.labels, found.scores, result.classification_result)
    else:
        regression_result(found, result.regression_result)
