"""Predict, Classify and Regress over REST: JSON in and out, or the gRPC messages."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from servingd.core.types import ModelSpec, Signature, Tensors
from servingd.errors import InvalidArgument, ServingError
from servingd.frontends.call import CallContext, Note, SignatureCall, to_serving_error
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.tfs.rest.reply import PROTOBUF, AnyReply, RestReply
from servingd.frontends.tfs.rpc.examples import ClassifyCall, RegressCall
from servingd.frontends.tfs.rpc.messages import model_spec, parse_inputs
from servingd.frontends.tfs.rpc.predict import PredictCall
from servingd.inference.checks import CLASSIFY_METHOD, REGRESS_METHOD
from servingd.inference.examples import classification, regression, run_examples
from servingd.inference.predict import predict
from servingd.wire import protos
from servingd.wire.json.examples import read_examples
from servingd.wire.json.results import (
    encode_classifications,
    encode_predictions,
    encode_regressions,
)
from servingd.wire.json.tensors import PredictBody, read_predict
from servingd.wire.records.prediction_logs import (
    classification_response,
    examples_request,
    predict_request,
    regression_response,
)
from servingd.wire.tensors.encoding import encode_predict_response

_LARGE_BYTES = 32 << 10
"""Bytes of outputs above which a worker writes them: 8,000 floats take 0.3 ms, gzip as much."""

_TEXT_BYTES = 4
"""Bytes that an element counts at least: as text one of a byte is as long as one of four."""


class _JsonCall(SignatureCall):
    """A call whose answer is written as JSON."""

    __slots__ = ()

    def succeed(self, outputs: Tensors) -> None:
        """Send the outputs; on a worker if writing them would block the HTTP loop for long."""
        reply = self._reply
        if (
            _are_large(outputs)
            and isinstance(reply, RestReply)
            and reply.takes_away(lambda: SignatureCall.succeed(self, outputs))
        ):
            return
        SignatureCall.succeed(self, outputs)


class JsonPredict(_JsonCall):
    """One `:predict` call; see `inference.predict.PredictCall`."""

    method = "predict"
    api = "Predict"
    log_kind = "predict_log"
    output_filter: ClassVar[Sequence[str]] = ()

    __slots__ = ("_body", "_inputs")

    _body: PredictBody

    def start(self, spec: ModelSpec, body: bytes) -> None:
        """Read the body, then find the servable, so that errors in the body come first."""
        self.spec = spec
        read = self._body = read_predict(body)
        if read.signature_name:
            self.spec = spec._replace(signature_name=read.signature_name)
        context = self._context
        predict(context.models, self, context.checks)

    def bind(self, signature: Signature) -> Tensors:
        """Return the inputs of the body, bound to the signature."""
        inputs = self._inputs = self._body.inputs(signature)
        self._body.release()  # else the body is kept as long as the call waits
        self.ran_at = time.perf_counter()
        return inputs

    def no_such_signature(self, name: str) -> ServingError:
        """Return REST's error for a missing signature; gRPC has another text and code."""
        return InvalidArgument(f'Serving signature name: "{name}" not found in signature def')

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return `predictions` or `outputs`, in the request's format."""
        return encode_predictions(outputs, signature.outputs, self._body.columnar)

    def log_request(self) -> bytes:
        """Return the equivalent PredictRequest."""
        assert self.runner is not None  # it has answered
        return predict_request(self.spec, self._inputs, self.runner.signature.inputs)

    def log_response(self, outputs: Tensors, note: Note, payload: bytes) -> bytes:
        """Return the equivalent PredictResponse."""
        assert self.runner is not None  # it has answered
        return encode_predict_response(outputs, self.runner.signature.outputs, note.model_spec)


def _are_large(outputs: Tensors) -> bool:
    """Return whether writing outputs as JSON would take long."""
    size = 0
    value: Any
    for value in outputs.values():
        if isinstance(value, bytes):  # TensorFlow's form of a scalar string
            size += len(value)
            continue
        size += max(value.nbytes, _TEXT_BYTES * value.size)
        if value.dtype == object and size <= _LARGE_BYTES:
            size += sum(map(len, value.reshape(-1).tolist()))
    return size > _LARGE_BYTES


class _JsonExamples(_JsonCall):
    """The common part of `:classify` and `:regress`; see `inference.examples.ExamplesCall`."""

    signature_method: str

    __slots__ = ("_examples", "count")

    def start(self, spec: ModelSpec, body: bytes) -> None:
        """Read the examples, then find the servable."""
        self.spec = spec
        read = read_examples(body, self.method)
        self._examples: list[bytes] = read.examples
        self.count = 0
        self.spec = spec._replace(signature_name=read.signature_name)
        context = self._context
        run_examples(context.models, self, self.signature_method, context.checks)

    def examples(self) -> Sequence[bytes]:
        """Return the Examples, each serialised."""
        self.ran_at = time.perf_counter()
        return self._examples

    def log_request(self) -> bytes:
        """Return the equivalent gRPC request."""
        return examples_request(self.spec, self._examples)


class JsonClassify(_JsonExamples):
    """One `:classify` call."""

    method = "classify"
    api = "Classify"
    log_kind = "classify_log"
    signature_method = CLASSIFY_METHOD

    __slots__ = ()

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return the label and score of each class, per example."""
        found = classification(signature, outputs, self.count)
        return encode_classifications(found.labels, found.scores)

    def log_response(self, outputs: Tensors, note: Note, payload: bytes) -> bytes:
        """Return the equivalent ClassificationResponse."""
        assert self.runner is not None  # it has answered
        found = classification(self.runner.signature, outputs, self.count)
        return classification_response(found.labels, found.scores, note.model_spec)


class JsonRegress(_JsonExamples):
    """One `:regress` call."""

    method = "regress"
    api = "Regress"
    log_kind = "regress_log"
    signature_method = REGRESS_METHOD

    __slots__ = ()

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return the value of each example."""
        return encode_regressions(regression(signature, outputs, self.count))

    def log_response(self, outputs: Tensors, note: Note, payload: bytes) -> bytes:
        """Return the equivalent RegressionResponse."""
        assert self.runner is not None  # it has answered
        values = regression(self.runner.signature, outputs, self.count)
        return regression_response(values, note.model_spec)


class ProtoPredict(PredictCall):
    """One `:predict` call with a PredictRequest as its body."""

    method = "predict"

    __slots__ = ()

    def start(self, spec: ModelSpec, body: bytes, parser: MessageParser) -> None:
        """Parse the body, then find the servable."""
        self.spec, self.payload = spec, body
        request = parse_inputs(parser, body)
        self.spec = _merged(spec, request)
        self.tensors = self.aliases = request.inputs
        self.output_filter = request.output_filter
        predict(self._context.models, self, self._context.checks)


class ProtoClassify(ClassifyCall):
    """One `:classify` call with a ClassificationRequest as its body."""

    method = "classify"

    __slots__ = ()

    def start(self, spec: ModelSpec, body: bytes, parser: MessageParser) -> None:
        """Parse the body, then find the servable."""
        _start_examples(self, spec, body, parser)


class ProtoRegress(RegressCall):
    """One `:regress` call with a RegressionRequest as its body."""

    method = "regress"

    __slots__ = ()

    def start(self, spec: ModelSpec, body: bytes, parser: MessageParser) -> None:
        """Parse the body, then find the servable."""
        _start_examples(self, spec, body, parser)


def _start_examples(
    call: ProtoClassify | ProtoRegress, spec: ModelSpec, body: bytes, parser: MessageParser
) -> None:
    """Parse the body's Examples request, then find the servable."""
    call.spec, call.payload = spec, body
    request = parser.parse(protos.ExamplesRequest, body, call.request_name)
    call.spec, call.input = _merged(spec, request), request.input
    context = call._context
    run_examples(context.models, call, call.signature_method, context.checks)


def _merged(spec: ModelSpec, request: Any) -> ModelSpec:
    """Return the URL's spec with the signature and, if the URL has none, the version of the body.

    Raises InvalidArgument if they contradict each other.
    """
    body = model_spec(request.model_spec)
    if body.name and body.name != spec.name:
        raise InvalidArgument(
            f"model_spec.name: expected {spec.name!r}, as in the URL, or nothing, got {body.name!r}"
        )
    version, label = spec.version, spec.label
    if version is None and label is None:
        version, label = body.version, body.label
    elif (body.version, body.label) not in ((None, None), (version, label)):
        raise InvalidArgument(
            "model_spec: expected the version or label of the URL, or none, got "
            f"{body.version if body.label is None else body.label!r}"
        )
    return ModelSpec(spec.name, version, label, body.signature_name)


_JSON_CALLS: Mapping[str, type[JsonPredict | JsonClassify | JsonRegress]] = {
    "predict": JsonPredict,
    "classify": JsonClassify,
    "regress": JsonRegress,
}
_PROTO_CALLS: Mapping[str, type[ProtoPredict | ProtoClassify | ProtoRegress]] = {
    "predict": ProtoPredict,
    "classify": ProtoClassify,
    "regress": ProtoRegress,
}


def start_json(
    verb: str, spec: ModelSpec, body: bytes, reply: AnyReply, context: CallContext
) -> None:
    """Begin a call with a JSON body; it completes `reply` now or later."""
    call = _JSON_CALLS[verb](reply, context)
    try:
        call.start(spec, body)
    except Exception as error:
        call.fail(to_serving_error(error, call.method))


def start_proto(
    verb: str,
    spec: ModelSpec,
    body: bytes,
    reply: AnyReply,
    context: CallContext,
    parser: MessageParser,
) -> None:
    """Begin a call with a protobuf body; it completes `reply` now or later."""
    reply.content_type = PROTOBUF
    call = _PROTO_CALLS[verb](reply, context)
    try:
        call.start(spec, body, parser)
    except Exception as error:
        call.fail(to_serving_error(error, call.method))
