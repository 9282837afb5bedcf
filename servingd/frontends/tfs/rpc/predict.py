"""Predict over gRPC."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from servingd.core.batching.merge import Form, FormedInputs, form_of
from servingd.core.types import Signature, Tensors, TensorSpec
from servingd.errors import InvalidArgument, ServingError
from servingd.frontends.call import CallContext, Note, SignatureCall, to_serving_error
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import Reply
from servingd.frontends.tfs.rpc.messages import model_spec, parse_inputs
from servingd.inference.predict import bind, bind_tensors, no_such_signature, predict, wrong_type
from servingd.wire.tensors.encoding import encode_predict_response
from servingd.wire.tensors.templates import RequestTemplates, Template

if TYPE_CHECKING:
    from servingd.wire.protos import InputTensor


class _Plan(NamedTuple):
    """How the requests of one template are bound to one signature."""

    signature: Signature
    aliases: tuple[str, ...]
    """The signature's inputs, in its order."""
    fields: tuple[str, ...]
    """Their fields in the template's record."""
    defaults: Tensors
    """The values of inputs that the requests leave out; these have no entry in `fields`."""
    form: Form


class PredictMethod:
    """The handler of PredictionService.Predict."""

    def __init__(self, context: CallContext, parser: MessageParser) -> None:
        self._context = context
        self._parser = parser
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
        request = parse_inputs(self._parser, payload)
        if not request.HasField("model_spec"):
            raise InvalidArgument("Missing ModelSpec")
        call.spec = model_spec(request.model_spec)
        call.tensors = call.aliases = request.inputs
        call.output_filter = request.output_filter
        self._templates.learn(payload, request, call.spec)


class PredictCall(SignatureCall):
    """One Predict call of a PredictRequest; see `inference.predict.PredictCall`."""

    method = api = "Predict"
    log_kind = "predict_log"

    __slots__ = ("aliases", "output_filter", "payload", "template", "tensors")

    def __init__(self, reply: Reply, context: CallContext) -> None:
        super().__init__(reply, context)
        self.template: Template | None = None
        self.payload = b""
        self.tensors: Mapping[str, InputTensor] = {}
        self.aliases: Collection[str] = ()
        self.output_filter: Sequence[str] = ()

    def bind(self, signature: Signature) -> Tensors:
        """Return the inputs, bound to the signature."""
        template = self.template
        if template is None:
            inputs: Tensors = bind_tensors(signature, self.tensors)
        else:
            plan: _Plan | None = template.plan
            if plan is None or plan.signature is not signature:
                plan = template.plan = self._plan(template, signature)
            array = template.only_array(self.payload)
            if array is None or plan.defaults:
                inputs = _bound(plan, template.record(self.payload))
            else:
                inputs = {plan.aliases[0]: array}
        self.ran_at = time.perf_counter()
        return inputs

    def _plan(self, template: Template, signature: Signature) -> _Plan:
        """Bind this call as any other, and record how. Raises ServingError if it is wrong."""
        record, fields = template.record(self.payload), template.fields

        def decode_field(alias: str, spec: TensorSpec) -> np.ndarray[Any, Any]:
            if template.data_types[alias] != spec.data_type:
                raise wrong_type(signature, alias, template.data_types[alias])
            return record[fields[alias]]

        inputs = bind(signature, template.aliases, decode_field)
        return _Plan(
            signature,
            tuple(inputs),
            tuple(fields[alias] for alias in inputs if alias in fields),
            {alias: array for alias, array in inputs.items() if alias not in fields},
            form_of(signature, inputs),
        )

    def no_such_signature(self, name: str) -> ServingError:
        """Return gRPC's error for a missing signature; REST has another text and code."""
        return no_such_signature(name)

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return a PredictResponse."""
        if self.output_filter:
            outputs = {alias: outputs[alias] for alias in self.output_filter}
        return encode_predict_response(
            outputs, signature.outputs, note.model_spec, as_content=self._context.as_content
        )

    def log_request(self) -> bytes:
        """Return the PredictRequest as it was received."""
        return self.payload


def _bound(plan: _Plan, record: np.ndarray[Any, Any]) -> FormedInputs:
    """Return the inputs of a request that fits the plan's template, in the signature's order."""
    arrays = map(record.__getitem__, plan.fields)
    if plan.defaults:
        given, defaults = arrays, plan.defaults
        inputs = FormedInputs(
            (alias, defaults[alias] if alias in defaults else next(given)) for alias in plan.aliases
        )
    else:
        inputs = FormedInputs(zip(plan.aliases, arrays, strict=True))
    inputs.form = plan.form
    return inputs
