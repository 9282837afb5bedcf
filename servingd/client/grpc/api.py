"""TensorFlow Serving's gRPC API, gRPC's health service, and servingd's streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from servingd.client.answers import ModelMetadata, Signature, VersionStatus
from servingd.client.calls import Array, Call
from servingd.client.examples import Feature, features_of
from servingd.client.inputs import about
from servingd.client.messages import metadata_of, reload_request, versions_of
from servingd.core.types import DataType, ModelSpec
from servingd.errors import FailedPrecondition, ServingError, error_from_code
from servingd.wire import protos
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.encoding import encode, encode_as_content
from servingd.wire.tensors.types import data_type_of
from servingd.wire.varints import varint

if TYPE_CHECKING:
    from servingd.wire.protos import Input
    from servingd.wire.protos import ModelSpec as ModelSpecMessage

_PREDICTION = "/tensorflow.serving.PredictionService/"
_MODEL = "/tensorflow.serving.ModelService/"
PREDICT = _PREDICTION + "Predict"
METADATA = _PREDICTION + "GetModelMetadata"
_STREAM = "/servingd.PredictionStream/PredictStreamed"
_HEALTH = "/grpc.health.v1.Health/Check"
SIGNATURES = "signature_def"
_HEALTH_STATES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_INPUTS_TAG, _KEY_TAG, _VALUE_TAG = b"\x12", b"\x0a", b"\x12"


class GrpcApi:
    """See `Api`."""

    needs_signature = False

    def __init__(self, address: str) -> None:
        """`address` is named in errors."""
        self._address = address

    def predict(
        self, spec: ModelSpec, inputs: Mapping[str, Array], outputs: Sequence[str], is_stream: bool
    ) -> Call:
        """Return Predict, or PredictStreamed."""
        path = _STREAM if is_stream else PREDICT
        return Call(path, predict_request(spec, inputs, outputs), is_stream=is_stream)

    def read_predict(
        self, answer: bytes, signature: Signature | None, outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Return the outputs of a PredictResponse."""
        return outputs_of(answer)

    def classify(self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]]) -> Call:
        """Return Classify."""
        request = protos.ClassificationRequest()
        fill(request.model_spec, spec)
        _fill_examples(request.input, features_of(examples))
        return Call(_PREDICTION + "Classify", request.SerializeToString())

    def read_classify(self, answer: bytes) -> list[list[tuple[str, float]]]:
        """Return the classes of a ClassificationResponse."""
        result = protos.ClassificationResponse.FromString(answer).result
        return [[(one.label, one.score) for one in row.classes] for row in result.classifications]

    def regress(self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]]) -> Call:
        """Return Regress."""
        request = protos.RegressionRequest()
        fill(request.model_spec, spec)
        _fill_examples(request.input, features_of(examples))
        return Call(_PREDICTION + "Regress", request.SerializeToString())

    def read_regress(self, answer: bytes) -> Array:
        """Return the values of a RegressionResponse."""
        result = protos.RegressionResponse.FromString(answer).result
        return np.array([one.value for one in result.regressions], np.float32)

    def metadata(self, spec: ModelSpec) -> Call:
        """Return GetModelMetadata."""
        request = protos.GetModelMetadataRequest()
        fill(request.model_spec, spec._replace(signature_name=""))
        request.metadata_field.append(SIGNATURES)
        return Call(METADATA, request.SerializeToString())

    def read_metadata(self, answer: bytes) -> ModelMetadata:
        """Return the signatures of a GetModelMetadataResponse."""
        found = protos.GetModelMetadataResponse.FromString(answer)
        signatures = protos.SignatureDefMap.FromString(found.metadata[SIGNATURES].value)
        return metadata_of(found.model_spec.name, found.model_spec.version.value, signatures)

    def status(self, spec: ModelSpec) -> Call:
        """Return GetModelStatus."""
        request = protos.GetModelStatusRequest()
        fill(request.model_spec, spec)
        return Call(_MODEL + "GetModelStatus", request.SerializeToString())

    def read_status(self, answer: bytes) -> list[VersionStatus]:
        """Return the versions of a GetModelStatusResponse."""
        return versions_of(protos.GetModelStatusResponse.FromString(answer))

    def reload(self, models: Any) -> Call:
        """Return HandleReloadConfigRequest."""
        payload = reload_request(models).SerializeToString()
        return Call(_MODEL + "HandleReloadConfigRequest", payload, may_repeat=False)

    def read_reload(self, answer: bytes) -> None:
        """Raise the error of a ReloadConfigResponse."""
        status = protos.ReloadConfigResponse.FromString(answer).status
        if status.error_code:
            raise error_from_code(status.error_code, status.error_message)

    def health(self, service: str) -> Call:
        """Return Check of gRPC's health service, whose message is one text."""
        name = service.encode()
        return Call(_HEALTH, b"\x0a" + varint(len(name)) + name if name else b"")

    def read_health(self, answer: bytes, service: str) -> str:
        """Return the state of a HealthCheckResponse, whose message is one number."""
        number = answer[1] if len(answer) > 1 else 0
        return _HEALTH_STATES[number] if number < len(_HEALTH_STATES) else str(number)

    def page(self, path: str, body: Any, method: str | None) -> Call:
        """Raise FailedPrecondition: pages are at the HTTP port."""
        host = self._address.rpartition(":")[0].partition("://")[2] or "localhost"
        raise FailedPrecondition(
            f"{path} is at the server's HTTP port, and {self._address} is its gRPC port: use "
            f"http://{host}:8501, or what --rest_api_port says"
        )

    def read_page(self, answer: bytes) -> Any:
        """Return nothing: there are no pages."""
        raise NotImplementedError


def predict_request(
    spec: ModelSpec, inputs: Mapping[str, Array], outputs: Sequence[str] = ()
) -> bytes:
    """Return a serialised PredictRequest; each tensor goes into it in one copy.

    Raises InvalidArgument with the `field` that cannot be a tensor.
    """
    request = protos.PredictRequest()
    fill(request.model_spec, spec)
    request.output_filter.extend(outputs)
    parts = [request.SerializeToString()]
    for alias, array in inputs.items():
        try:
            data_type = data_type_of(array.dtype)
            # Not every reader takes strings from the content.
            written = encode if data_type is DataType.STRING else encode_as_content
            tensor = written(array, data_type)
        except ServingError as error:
            raise about(alias, f"input {alias}: {error.message}") from error
        key = alias.encode()
        head = _KEY_TAG + varint(len(key)) + key + _VALUE_TAG + varint(len(tensor))
        parts += (_INPUTS_TAG, varint(len(head) + len(tensor)), head, tensor)
    return b"".join(parts)


def outputs_of(answer: bytes) -> dict[str, Array]:
    """Return the outputs of a serialised PredictResponse."""
    response = protos.PredictResponse.FromString(answer)
    return {alias: decode(tensor, alias) for alias, tensor in response.outputs.items()}


def fill(message: ModelSpecMessage, spec: ModelSpec) -> None:
    """Write a spec into its message."""
    message.name = spec.name
    message.signature_name = spec.signature_name
    if spec.version is not None:
        message.version.value = spec.version
    if spec.label is not None:
        message.version_label = spec.label


def _fill_examples(message: Input, examples: Sequence[Mapping[str, Feature]]) -> None:
    for features in examples:
        added = message.example_list.examples.add().features.feature
        for name, feature in features.items():
            listed = getattr(added[name], f"{feature.kind}_list").value
            listed.extend(feature.values)
