"""PredictionLog records: written from messages that are serialised already, and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError

from servingd.core.types import ModelSpec, ServableId, Tensors, TensorSpec
from servingd.errors import InvalidArgument
from servingd.wire import protos
from servingd.wire.examples import classification_result, regression_result
from servingd.wire.tensors.encoding import encode
from servingd.wire.varints import read_varint32, varint

Array: TypeAlias = np.ndarray[Any, Any]

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
"""The file in a SavedModel with the requests to warm it up."""

_LENGTH_DELIMITED = 2
_LOG_METADATA, _REQUEST, _RESPONSE = 1, 1, 2
_MODEL_SPEC_OF_RESPONSE = 2
_HAVE_MODEL_SPEC = ("predict_log", "classify_log", "regress_log")
"""Kinds whose response has a field `model_spec`, always of the same number."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """The request of a PredictionLog: its kind (the field's name and number), and its bytes."""

    kind: str
    number: int
    content: bytes


def recorded_request(record: bytes) -> RecordedRequest | None:
    """Return the request of a serialised PredictionLog; None where it has no kind.

    The bytes are empty where the kind has many requests. Raises InvalidArgument where the record
    does not parse.
    """
    try:
        log = protos.PredictionLog.FromString(record)
    except DecodeError as error:
        raise InvalidArgument(f"it does not parse as {_log_name()}: {error}") from error
    kind = log.WhichOneof("log_type")
    if kind is None:
        return None
    request = getattr(log, kind).request
    content = request.SerializeToString() if hasattr(request, "SerializeToString") else b""
    return RecordedRequest(kind, _number(kind), content)


class Provenance(NamedTuple):
    """Where and when a request was recorded, and of how many it is a sample."""

    timestamp_s: int
    tags: tuple[str, ...]
    sampling_rate: float
    attributes: int = 0
    dc: str = ""


def prediction_log(
    servable_id: ServableId, kind: str, request: bytes, response: bytes, origin: Provenance
) -> bytes:
    """Return a serialised PredictionLog with a serialised request and response of `kind`."""
    metadata = protos.LogMetadata(timestamp_secs=origin.timestamp_s, dc=origin.dc)
    metadata.saved_model_tags.extend(origin.tags)
    metadata.sampling_config.sampling_rate = origin.sampling_rate
    metadata.sampling_config.attributes = origin.attributes
    if kind in _HAVE_MODEL_SPEC:
        metadata.model_spec.MergeFromString(_field(response, _MODEL_SPEC_OF_RESPONSE))
    metadata.model_spec.name = servable_id.name
    metadata.model_spec.version.value = servable_id.version
    described = metadata.SerializeToString()
    exchange = (
        _head(_REQUEST, len(request)),
        request,
        _head(_RESPONSE, len(response)),
        response,
    )
    return b"".join(
        (
            _head(_LOG_METADATA, len(described)),
            described,
            _head(_number(kind), sum(map(len, exchange))),
            *exchange,
        )
    )


def _log_name() -> str:
    name: str = protos.PredictionLog.DESCRIPTOR.full_name
    return name


def _number(kind: str) -> int:
    number: int = protos.PredictionLog.DESCRIPTOR.fields_by_name[kind].number
    return number


def _head(number: int, length: int) -> bytes:
    """Return the tag and the length that precede a field's bytes."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def _field(content: bytes, number: int) -> bytes:
    """Return the last field of a number in a message of messages; empty if there is none.

    Other fields are skipped by their length.
    """
    found, at = b"", 0
    try:
        while at < len(content):
            tag, at = read_varint32(content, at)
            if tag & 7 != _LENGTH_DELIMITED:
                break
            length, at = read_varint32(content, at)
            if tag >> 3 == number:
                found = content[at : at + length]
            at += length
    except ValueError:  # not one of ours
        pass
    return found


def predict_request(spec: ModelSpec, inputs: Tensors, specs: Mapping[str, TensorSpec]) -> bytes:
    """Return a serialised PredictRequest with these inputs."""
    request = protos.PredictRequest()
    _fill_spec(request.model_spec, spec)
    for alias, array in inputs.items():
        request.inputs[alias].MergeFromString(encode(array, specs[alias].data_type))
    content: bytes = request.SerializeToString()
    return content


def examples_request(spec: ModelSpec, examples: Sequence[bytes]) -> bytes:
    """Return a serialised ClassificationRequest or RegressionRequest with these Examples."""
    source = protos.SerializedInput()
    source.example_list.examples.extend(examples)
    request = protos.ExamplesRequest(input=source.SerializeToString())
    _fill_spec(request.model_spec, spec)
    content: bytes = request.SerializeToString()
    return content


def classification_response(labels: Array | None, scores: Array | None, model_spec: bytes) -> bytes:
    """Return a serialised ClassificationResponse; `model_spec` is from `encode_model_spec`."""
    response = protos.ClassificationResponse()
    classification_result(labels, scores, response.result)
    return _with_spec(response, model_spec)


def regression_response(values: Array, model_spec: bytes) -> bytes:
    """Return a serialised RegressionResponse; `model_spec` is from `encode_model_spec`."""
    response = protos.RegressionResponse()
    regression_result(values, response.result)
    return _with_spec(response, model_spec)


def _with_spec(response: Any, model_spec: bytes) -> bytes:
    response.model_spec.MergeFrom(protos.PredictResponse.FromString(model_spec).model_spec)
    content: bytes = response.SerializeToString()
    return content


def _fill_spec(message: Any, spec: ModelSpec) -> None:
    message.name = spec.name
    message.signature_name = spec.signature_name
    if spec.version is not None:
        message.version.value = spec.version
    elif spec.label is not None:
        message.version_label = spec.label
