"""PredictStreamed over gRPC: a PredictRequest, and a PredictResponse for each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from servingd.core.types import Signature, Tensors
from servingd.errors import InvalidArgument, ServingError
from servingd.frontends.call import CallContext, Note, to_serving_error
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import PartsReply
from servingd.frontends.streamed_call import StreamedCall
from servingd.frontends.tfs.rpc.messages import model_spec, parse_inputs
from servingd.inference.predict import bind_tensors, no_such_signature
from servingd.inference.predict_streamed import predict_streamed
from servingd.wire.tensors.encoding import encode_predict_response

if TYPE_CHECKING:
    from servingd.wire.protos import InputTensor, TensorProto


class PredictStreamedMethod:
    """The handler of PredictionStream.PredictStreamed."""

    def __init__(self, context: CallContext, parser: MessageParser) -> None:
        self._context = context
        self._parser = parser

    def __call__(self, payload: bytes, reply: PartsReply) -> None:
        """Begin to answer one call; see `PartsHandler`."""
        context = self._context
        call = PredictStreamedCall(reply, context)
        try:
            call.read(payload, self._parser)
            predict_streamed(context.models, call, context.checks)
        except Exception as error:
            call.fail(to_serving_error(error, call.method))
            call.close()


class PredictStreamedCall(StreamedCall):
    """One PredictStreamed call; see `inference.predict_streamed.PredictStreamedCall`."""

    method = "PredictStreamed"

    _inputs: Mapping[str, InputTensor | TensorProto]

    def read(self, payload: bytes, parser: MessageParser) -> None:
        """Parse the request. Raises ServingError."""
        request = parse_inputs(parser, payload)
        if not request.HasField("model_spec"):
            raise InvalidArgument("Missing ModelSpec")
        self.spec = model_spec(request.model_spec)
        self._inputs = request.inputs
        self.output_filter = tuple(request.output_filter)

    def bind(self, signature: Signature) -> Tensors:
        """Return the inputs, bound to the signature."""
        inputs = bind_tensors(signature, self._inputs)
        self._inputs = {}  # else the request is kept as long as the stream
        return inputs

    def no_such_signature(self, name: str) -> ServingError:
        """Return gRPC's error for a missing signature."""
        return no_such_signature(name)

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return a PredictResponse."""
        if self.output_filter:
            outputs = {alias: outputs[alias] for alias in self.output_filter}
        return encode_predict_response(
            outputs, signature.outputs, note.model_spec, as_content=self._context.as_content
        )
