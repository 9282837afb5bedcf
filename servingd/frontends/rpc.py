"""The one table of RPC methods: bytes in, bytes out, the same for every carrier."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from servingd.core.interfaces import Lane, Lease, Models, States
from servingd.core.types import ModelSpec, Tensors, TensorSpec
from servingd.errors import (
    Code,
    InvalidArgument,
    ResourceExhausted,
    ServingError,
    as_serving_error,
)
from servingd.frontends.reply import Handler, Reply
from servingd.frontends.status_codes import grpc_message
from servingd.inference.metadata import SIGNATURE_DEF, model_metadata
from servingd.inference.predict import predict
from servingd.inference.status import model_status
from servingd.observability.requests import Cell, RequestMetrics
from servingd.wire import protos
from servingd.wire.request_templates import RequestTemplates, Template
from servingd.wire.signatures import signature_def_map
from servingd.wire.tensors import decode, encode_model_spec, encode_predict_response, type_name

if TYPE_CHECKING:
    from servingd.wire.protos import ModelSpec as ModelSpecMessage
    from servingd.wire.protos import TensorProto

_PREDICTION = "/tensorflow.serving.PredictionService/"
_MODEL = "/tensorflow.serving.ModelService/"

_new_tuple = tuple.__new__

_log = logging.getLogger(__name__)


class RpcMethods:
    """The methods of PredictionService and ModelService over what is served here."""

    def __init__(
        self, models: Models, states: States, metrics: RequestMetrics, max_request_bytes: int
    ) -> None:
        self._models = models
        self._states = states
        self._metrics = metrics
        self._max_request_bytes = max_request_bytes
        self._predict_request = protos.PredictRequest
        self._templates = RequestTemplates()

    def table(self) -> Mapping[str, Handler]:
        """Full method name to handler."""
        return {
            f"{_PREDICTION}Predict": self._predict,
            f"{_PREDICTION}GetModelMetadata": self._simple("GetModelMetadata", self._metadata),
            f"{_MODEL}GetModelStatus": self._simple("GetModelStatus", self._status),
        }

    def _predict(self, payload: bytes, reply: Reply) -> None:
        call = _Predict(reply, self._metrics)
        try:
            template = self._templates.find(payload)
            if template is not None:
                call.template, call.payload = template, payload
                call.spec, call.aliases = template.spec, template.aliases
                call.output_filter = template.output_filter
            else:
                self._read(payload, call)
            predict(self._models, call)
        except Exception as error:
            call.fail(_blame(error, "Predict"))

    def _read(self, payload: bytes, call: _Predict) -> None:
        """Parse a request that no template fits."""
        request = self._parse(self._predict_request, payload)
        if not request.HasField("model_spec"):
            raise InvalidArgument("Missing ModelSpec")
        call.spec = _model_spec(request.model_spec)
        call.tensors = call.aliases = request.inputs
        call.output_filter = request.output_filter
        self._templates.learn(payload, request, call.spec)

    def _simple(self, method: str, answer: Callable[[bytes], tuple[bytes, ModelSpec]]) -> Handler:
        """A handler of a method that is answered here and now."""

        def handle(payload: bytes, reply: Reply) -> None:
            started = time.perf_counter()
            model, version, code = "", 0, Code.OK
            try:
                content, spec = answer(payload)
                model, version = spec.name, spec.version or 0
                reply.send(content)
            except Exception as error:
                blamed = _blame(error, method)
                code = blamed.code
                reply.fail(code, grpc_message(blamed.message))
            self._metrics.record(model, version, "", method, code, time.perf_counter() - started)

        return handle

    def _metadata(self, payload: bytes) -> tuple[bytes, ModelSpec]:
        request = self._parse(protos.GetModelMetadataRequest, payload)
        spec = _model_spec(request.model_spec) if request.HasField("model_spec") else None
        servable, signatures = model_metadata(self._models, spec, request.metadata_field)
        response = protos.GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_DEF].Pack(signature_def_map(signatures))
        return response.SerializeToString(), ModelSpec(servable.name, servable.version)

    def _status(self, payload: bytes) -> tuple[bytes, ModelSpec]:
        request = self._parse(protos.GetModelStatusRequest, payload)
        spec = _model_spec(request.model_spec) if request.HasField("model_spec") else None
        response = protos.GetModelStatusResponse()
        for status in model_status(self._states, spec):
            entry = response.model_version_status.add(version=status.version, state=status.state)
            entry.status.error_code = status.code
            entry.status.error_message = status.message
        return response.SerializeToString(), ModelSpec(spec.name if spec else "")

    def _parse(self, kind: Any, payload: bytes) -> Any:
        if len(payload) > self._max_request_bytes:
            raise ResourceExhausted(
                f"Received message larger than max ({len(payload)} vs. {self._max_request_bytes})"
            )
        try:
            return kind.FromString(payload)
        except DecodeError as error:
            raise InvalidArgument(
                f"the request does not parse as {kind.DESCRIPTOR.full_name}: {error}"
            ) from error


class _Predict:
    """One Predict call: its request, its lease, and its way back; see `PredictCall`."""

    __slots__ = (
        "_metrics",
        "_reply",
        "_started",
        "aliases",
        "deadline",
        "lane",
        "lease",
        "output_filter",
        "payload",
        "spec",
        "template",
        "tensors",
    )

    def __init__(self, reply: Reply, metrics: RequestMetrics) -> None:
        self._started = time.perf_counter()
        self._reply = reply
        self._metrics = metrics
        self.lease: Lease | None = None
        self.lane: Lane | None = None
        self.deadline = reply.deadline
        self.spec: ModelSpec
        self.template: Template | None = None
        self.payload = b""
        self.tensors: Mapping[str, TensorProto] = {}
        self.aliases: Collection[str] = ()
        self.output_filter: Sequence[str] = ()

    def alive(self) -> bool:
        return self._reply.alive()

    def decode(self, alias: str, spec: TensorSpec) -> np.ndarray[Any, Any]:
        template = self.template
        if template is not None:
            array, came = template.array(self.payload), template.data_type
        else:
            tensor = self.tensors[alias]
            array, came = decode(tensor, alias), tensor.dtype
        if came != spec.data_type:
            raise _wrong_type(self.lane, alias, spec, came)
        return array

    def succeed(self, outputs: Tensors) -> None:
        lane, lease = self.lane, self.lease
        assert lane is not None  # it runs the call
        assert lease is not None  # the lane was found through it
        if self.output_filter:
            outputs = {alias: outputs[alias] for alias in self.output_filter}
        try:
            note = lane.notes.get("Predict") or self._make_note(lane, lease)
            payload = encode_predict_response(outputs, lane.signature.outputs, note[0])
        except Exception as error:
            self.fail(_blame(error, "Predict"))
            return
        self._reply.send(payload)
        self.lease = None
        lease.release()
        note[1].add(time.perf_counter() - self._started)

    def fail(self, error: ServingError) -> None:
        self._reply.fail(error.code, grpc_message(error.message))
        lease, self.lease = self.lease, None
        model, version = (lease.id.name, lease.id.version) if lease else ("", 0)
        if lease:
            lease.release()
        signature = self.lane.signature.name if self.lane else ""
        seconds = time.perf_counter() - self._started
        self._metrics.record(model, version, signature, "Predict", error.code, seconds)

    def _make_note(self, lane: Lane, lease: Lease) -> tuple[bytes, Cell]:
        """What every good answer of a lane needs: the ModelSpec to send, the cell to count in."""
        servable, signature = lease.id, lane.signature.name
        note = lane.notes["Predict"] = (
            encode_model_spec(servable.name, servable.version, signature),
            self._metrics.cell(servable.name, servable.version, signature, "Predict", Code.OK),
        )
        return note


def _model_spec(message: ModelSpecMessage) -> ModelSpec:
    version = label = None
    choice = message.WhichOneof("version_choice")
    if choice == "version":
        version = message.version.value
    elif choice is not None:
        label = message.version_label
    # Twice as fast as calling the class.
    return _new_tuple(ModelSpec, (message.name, version, label, message.signature_name))


def _wrong_type(lane: Lane | None, alias: str, spec: TensorSpec, came: int) -> InvalidArgument:
    """TensorFlow's text, in which an input is told by its place in the signature."""
    place = list(lane.signature.inputs).index(alias) if lane else 0
    return InvalidArgument(
        f"Expects arg[{place}] to be {type_name(spec.data_type)} but {type_name(came)} is provided"
    )


def _blame(error: Exception, method: str) -> ServingError:
    """The error to answer with; one that is our fault is logged with its traceback."""
    if not isinstance(error, ServingError):
        _log.exception("%s failed", method)
    return as_serving_error(error)
