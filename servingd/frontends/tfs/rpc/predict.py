"""Predict over gRPC."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from servingd.core.types import Signature, Tensors, TensorSpec
from servingd.errors import FailedPrecondition, InvalidArgument, ServingError
from servingd.frontends.call import Call, CallContext, Note, to_serving_error
from servingd.frontends.reply import Reply
from servingd.frontends.tfs.rpc.messages import MessageParser, model_spec
from servingd.inference.predict import bind, predict
from servingd.wire import protos
from servingd.wire.tensors.proto import decode, encode_predict_response, type_name
from servingd.wire.tensors.templates import RequestTemplates, Template

if TYPE_CHECKING:
    from servingd.wire.protos import TensorProto


class PredictMethod:
    """The handler of PredictionService.Predict."""

    def __init__(self, context: CallContext, parser: MessageParser) -> None:
        self._context = context
        self._parse = parser.parse
        self._message = protos.PredictRequest
        self._templates = RequestTemplates()

    def __call__(self, payload: bytes, reply: Reply) -> None:
        """Answer one call; see `Handler`."""
        context = self._context
        call = PredictCall(reply, context)
        call.payload = payload
        try:
            template = self._templates.find(payload)
            if template is not None:
                call.template = template
                call.spec, call.aliases = template.spec, template.aliases
                call.output_filter = template.output_filter
            else:
                self._read(payload, call)
            predict(context.models, call, context.checks)
        except Exception as error:
            call.fail(to_serving_error(error, call.method))

    def _read(self, payload: bytes, call: PredictCall) -> None:
        """Parse a request that no template fits."""
        request = self._parse(self._message, payload)
        if not request.HasField("model_spec"):
            raise InvalidArgument("Missing ModelSpec")
        call.spec = model_spec(request.model_spec)
        call.tensors = call.aliases = request.inputs
        call.output_filter = request.output_filter
        self._templates.learn(payload, request, call.spec)


class PredictCall(Call):
    """One Predict call of a PredictRequest; see `inference.predict.PredictCall`."""

    method = api = "Predict"
    log_kind = "predict_log"

    __slots__ = ("aliases", "output_filter", "payload", "template", "tensors")

    def __init__(self, reply: Reply, context: CallContext) -> None:
        super().__init__(reply, context)
        self.template: Template | None = None
        self.payload = b""
        self.tensors: Mapping[str, TensorProto] = {}
        self.aliases: Collection[str] = ()
        self.output_filter: Sequence[str] = ()

    def bind(self, signature: Signature) -> Tensors:
        """The inputs, bound to the signature."""
        inputs = bind(signature, self.aliases, self._decode)
        self.ran_at = time.perf_counter()
        return inputs

    def no_such_signature(self, name: str) -> ServingError:
        """The text and code of gRPC's callers; REST has others."""
        return FailedPrecondition(f'Serving signature key "{name}" not found.')

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """A PredictResponse."""
        if self.output_filter:
            outputs = {alias: outputs[alias] for alias in self.output_filter}
        return encode_predict_response(
            outputs, signature.outputs, note.model_spec, as_content=self._context.as_content
        )

    def log_request(self) -> bytes:
        """The PredictRequest as it came."""
        return self.payload

    def _decode(self, alias: str, spec: TensorSpec) -> np.ndarray[Any, Any]:
        template = self.template
        if template is not None:
            array, came = template.array(self.payload), template.data_type
        else:
            tensor = self.tensors[alias]
            array, came = decode(tensor, alias), tensor.dtype
        if came != spec.data_type:
            raise self._wrong_type(alias, spec, came)
        return array

    def _wrong_type(self, alias: str, spec: TensorSpec, came: int) -> InvalidArgument:
        """TensorFlow's text, in which an input is told by its place in the signature."""
        place = list(self.runner.signature.inputs).index(alias) if self.runner else 0
        return InvalidArgument(
            f"Expects arg[{place}] to be {type_name(spec.data_type)} "
            f"but {type_name(came)} is provided"
        )
