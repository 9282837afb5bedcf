"""The methods of `inference.GRPCInferenceService`: bytes in, bytes out, for every transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from servingd.core.types import DataType, ModelSpec, Signature, Tensors
from servingd.errors import Code, InvalidArgument
from servingd.frontends.call import CallContext, Note, to_serving_error
from servingd.frontends.first_calls import waiting
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.oip.infer import InferCall, Input, Output, refuse, spec_of
from servingd.frontends.oip.models import ModelInformation
from servingd.frontends.oip.templates import Template, Templates
from servingd.frontends.reply import Handler, Reply
from servingd.inference.predict import predict
from servingd.wire import protos
from servingd.wire.oip import (
    ONLY_RAW,
    Array,
    checked_shape,
    read_list,
    read_raw,
    type_of,
    write_list,
    write_raw,
)
from servingd.wire.varints import varint

if TYPE_CHECKING:
    from servingd.wire.protos import InferTensorContents, ModelInferRequest

SERVICE = "/inference.GRPCInferenceService/"

_HEADS = "oip heads"
"""The key of the note, on a runner, that holds the heads of its answers."""
_MAX_HEADS = 64
_RAW_OUTPUT_TAG = b"\x32"
"""The field `raw_output_contents`, of bytes; in the order of the fields it is the last."""

_CONTENTS: Mapping[DataType, str] = {
    DataType.BOOL: "bool_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.FLOAT: "fp32_contents",
    DataType.DOUBLE: "fp64_contents",
    DataType.STRING: "bytes_contents",
}
"""The field of each type's elements; the others travel as bytes only."""


def oip_table(
    context: CallContext, information: ModelInformation, parser: MessageParser
) -> Mapping[str, Handler]:
    """Return the handlers, by full method name."""

    def answered(method: str, kind: Any, answer: Callable[[Any], Any]) -> Handler:
        return partial(_answer, context, method, lambda p: answer(parser.parse(kind, p)))

    pages: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
        "ServerLive": (protos.ServerLiveRequest, lambda r: protos.ServerLiveResponse(live=True)),
        "ServerReady": (
            protos.ServerReadyRequest,
            lambda r: protos.ServerReadyResponse(ready=information.is_ready()),
        ),
        "ModelReady": (
            protos.ModelReadyRequest,
            lambda r: protos.ModelReadyResponse(
                ready=information.model_is_ready(r.name, r.version)
            ),
        ),
        "ServerMetadata": (
            protos.ServerMetadataRequest,
            lambda r: protos.ServerMetadataResponse(**information.server()),
        ),
        "ModelMetadata": (
            protos.ModelMetadataRequest,
            lambda r: _metadata(information, r.name, r.version),
        ),
        "RepositoryIndex": (
            protos.RepositoryIndexRequest,
            lambda r: _index(information, r.ready),
        ),
    }
    infer = waiting(InferMethod(context, parser), InferRpc.method, context, _spec_in)
    table: dict[str, Handler] = {f"{SERVICE}ModelInfer": infer}
    for name, (kind, answer) in pages.items():
        table[f"{SERVICE}{name}"] = answered(name, kind, answer)
    return table


def _answer(
    context: CallContext,
    method: str,
    answer: Callable[[bytes], Any],
    payload: bytes,
    reply: Reply,
) -> None:
    """Send the message that `answer` returns, or its error, and record the call."""
    started, code = time.perf_counter(), Code.OK
    try:
        reply.send(answer(payload).SerializeToString())
    except Exception as error:
        failure = to_serving_error(error, method)
        code = failure.code
        reply.fail(code, failure.message)
    seconds = time.perf_counter() - started
    request_id = "" if code is Code.OK else reply.request_id()
    context.metrics.record("", 0, "", f"oip:{method}", code, seconds, request_id)


def _spec_in(payload: bytes) -> ModelSpec:
    request = protos.ModelMetadataRequest.FromString(payload)  # its first two fields are the same
    return spec_of(request.name, request.version, {})


class InferMethod:
    """The handler of ModelInfer."""

    def __init__(self, context: CallContext, parser: MessageParser) -> None:
        self._context = context
        self._parser = parser
        self._templates = Templates()

    def __call__(self, payload: bytes, reply: Reply) -> None:
        """Answer one call; see `Handler`."""
        call = InferRpc(reply, self._context)
        try:
            template = self._templates.find(payload)
            if template is not None:
                call.start_known(payload, template)
            else:
                request = self._parser.parse(protos.ModelInferRequest, payload)
                call.read(request)
                if not request.parameters:
                    self._templates.learn(payload, request, call.spec)
        except Exception as error:
            call.fail(to_serving_error(error, call.method))


class InferRpc(InferCall):
    """One call of ModelInfer."""

    method = "oip:ModelInfer"

    __slots__ = ("_payload", "_raw", "_template")

    _template: Template | None

    def start_known(self, payload: bytes, template: Template) -> None:
        """Run a request whose frame is known. Raises ServingError."""
        self._raw = True
        self._payload, self._template = payload, template
        self.spec, self.output_filter = template.spec, template.output_filter
        predict(self._context.models, self, self._context.checks)

    def bind(self, signature: Signature) -> Tensors:
        """Return the inputs in the signature's order. Raises InvalidArgument."""
        template = self._template
        if template is None:
            return super().bind(signature)
        inputs = template.bound(self._payload, signature)
        if inputs is None:
            self.given = template.given(self._payload)
            inputs = super().bind(signature)
            template.learn_signature(signature)
        self._bound = inputs
        self.ran_at = time.perf_counter()
        return inputs

    def read(self, request: ModelInferRequest) -> None:
        """Read a request and run it. Raises ServingError."""
        raw = request.raw_input_contents
        self._raw, self._template = bool(raw), None
        if raw and len(raw) != len(request.inputs):
            raise InvalidArgument(
                f"raw_input_contents: expected one for each of {len(request.inputs)} inputs, "
                f"got {len(raw)}"
            )
        self.request_name = request.id
        given: dict[str, Input] = {}
        for at, tensor in enumerate(request.inputs):
            name = tensor.name
            what = f"input '{name}'"
            if name in given:
                raise InvalidArgument(f"{what} is there twice")
            if tensor.parameters:
                refuse(_plain(tensor.parameters), what)
            data_type = type_of(tensor.datatype, what)
            shape = checked_shape(tensor.shape, what)
            if raw:
                read: Callable[[], Array] = partial(read_raw, data_type, shape, raw[at], what)
            else:
                read = partial(_read_contents, data_type, shape, tensor.contents, what)
            given[name] = Input(data_type, shape, read)
        self.given = given
        if request.outputs:
            for output in request.outputs:
                refuse(_plain(output.parameters), f"output '{output.name}'")
            self.output_filter = [output.name for output in request.outputs]
        parameters = _plain(request.parameters) if request.parameters else {}
        self.start(request.model_name, request.model_version, parameters)

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return a ModelInferResponse: with bytes if the request had them, or a type needs it."""
        found = self.outputs_of(outputs, signature)
        if self._raw or any(data_type in ONLY_RAW for _, data_type, _, _ in found):
            return self._raw_response(found)
        response = self._head(found)
        for tensor, (_, data_type, _, array) in zip(response.outputs, found, strict=True):
            field = getattr(tensor.contents, _CONTENTS[data_type])
            field.extend(write_list(array))
        content: bytes = response.SerializeToString()
        return content

    def _raw_response(self, found: Sequence[Output]) -> bytes:
        """Return a response: its head, which is kept per shapes, and the outputs' bytes."""
        assert self.runner is not None  # the call has run
        assert self.handle is not None
        heads: dict[Any, bytes] = self.runner.notes.setdefault(_HEADS, {})
        key = tuple((alias, array.shape) for alias, _, _, array in found)
        head = None if self.request_name else heads.get(key)
        if head is None:
            head = self._head(found).SerializeToString()
            if not self.request_name:
                if len(heads) >= _MAX_HEADS:
                    heads.clear()
                heads[key] = head
        parts = [head]
        for _, data_type, _, array in found:
            content = write_raw(array, data_type)
            parts += (_RAW_OUTPUT_TAG, varint(len(content)), content)
        return b"".join(parts)

    def _head(self, found: Sequence[Output]) -> Any:
        """Return a response without the outputs' elements."""
        handle = self.handle
        assert handle is not None  # the call has run
        response = protos.ModelInferResponse(
            model_name=handle.id.name, model_version=str(handle.id.version), id=self.request_name
        )
        for alias, _, name, array in found:
            response.outputs.add(name=alias, datatype=name, shape=array.shape)
        return response


def _read_contents(
    data_type: DataType, shape: tuple[int, ...], contents: InferTensorContents, what: str
) -> Array:
    if data_type in ONLY_RAW:
        raise InvalidArgument(f"{what}: its type is sent in raw_input_contents only")
    return read_list(data_type, shape, list(getattr(contents, _CONTENTS[data_type])), what)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as Python's values."""
    found = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[name] = getattr(parameter, choice) if choice else None
    return found


def _metadata(information: ModelInformation, name: str, version: str) -> Any:
    found = information.metadata(name, version)
    tensor = protos.ModelMetadataResponse.TensorMetadata
    return protos.ModelMetadataResponse(
        name=found.name,
        versions=found.versions,
        platform=found.platform,
        inputs=[tensor(**each._asdict()) for each in found.inputs],
        outputs=[tensor(**each._asdict()) for each in found.outputs],
    )


def _index(information: ModelInformation, only_ready: bool) -> Any:
    entry = protos.RepositoryIndexResponse.ModelIndex
    return protos.RepositoryIndexResponse(
        models=[entry(**each._asdict()) for each in information.index(only_ready)]
    )
