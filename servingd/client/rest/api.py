"""TensorFlow Serving's REST API, and servingd's own pages."""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from servingd.client.answers import ModelMetadata, Signature, TensorSpec, VersionStatus
from servingd.client.calls import Array, Call, Outdated
from servingd.client.examples import Feature, features_of
from servingd.client.inputs import about
from servingd.client.messages import metadata_of, versions_of
from servingd.core.readiness import PREDICTION_SERVICES
from servingd.core.types import DataType, ModelSpec
from servingd.errors import (
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ServingError,
    UnknownError,
    error_from_code,
)
from servingd.wire import protos
from servingd.wire.tensors.types import OBJECT, numpy_dtype

LINES = "application/x-ndjson"
_JSON = (("content-type", "application/json"),)
_NOT_READY = frozenset((503,))
_EXPIRED = "Timed out waiting for notification"
"""TensorFlow's text for a run that took too long."""

CODES: Mapping[int, Code] = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    412: Code.FAILED_PRECONDITION,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
"""The code that an HTTP status most likely stands for: several codes share one status."""


class RestApi:
    """See `Api`. Predict is asked by columns, so that any output can be answered."""

    needs_signature = True

    def predict(
        self, spec: ModelSpec, inputs: Mapping[str, Array], outputs: Sequence[str], is_stream: bool
    ) -> Call:
        """Return `:predict`; outputs are chosen when the answer is read."""
        columns = {}
        for name, array in inputs.items():
            try:
                columns[name] = _json_of(array)
            except (TypeError, ValueError) as error:
                raise about(name, f"input {name}: {error}") from error
        headers = (*_JSON, ("accept", LINES)) if is_stream else _JSON
        body = _dumped(spec, inputs=columns)
        return Call(_target(spec) + ":predict", body, headers=headers, is_stream=is_stream)

    def read_predict(
        self, answer: bytes, signature: Signature | None, outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Return `outputs` with the signature's dtypes. Raises Outdated, or a stream's error."""
        document = _loaded(answer)
        if "error" in document:
            text = str(document["error"])
            raise DeadlineExceeded(text) if text == _EXPIRED else UnknownError(text)
        if signature is None or "outputs" not in document:
            raise Internal("the server's answer has no outputs")
        columns = _columns(document["outputs"], signature.outputs)
        for name in outputs:
            if name not in columns:
                known = ", ".join(columns)
                raise about(name, f"there is no output {name}; there are: {known}")
        wanted = outputs or columns
        return {name: _array_of(columns[name], signature.outputs[name]) for name in wanted}

    def classify(self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]]) -> Call:
        """Return `:classify`."""
        return _examples_call(spec, "classify", examples)

    def read_classify(self, answer: bytes) -> list[list[tuple[str, float]]]:
        """Return `results`."""
        return [
            [(_text(label), float(score)) for label, score in row]
            for row in _loaded(answer)["results"]
        ]

    def regress(self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]]) -> Call:
        """Return `:regress`."""
        return _examples_call(spec, "regress", examples)

    def read_regress(self, answer: bytes) -> Array:
        """Return `results`."""
        return np.array(_loaded(answer)["results"], np.float32)

    def metadata(self, spec: ModelSpec) -> Call:
        """Return the page `metadata`."""
        return Call(_target(spec) + "/metadata", None, "GET")

    def read_metadata(self, answer: bytes) -> ModelMetadata:
        """Return its signatures."""
        document = _loaded(answer)
        signatures = protos.SignatureDefMap()
        _parse(document["metadata"]["signature_def"], signatures)
        spec = document["model_spec"]
        return metadata_of(spec["name"], int(spec.get("version") or 0), signatures)

    def status(self, spec: ModelSpec) -> Call:
        """Return the model's page."""
        return Call(_target(spec), None, "GET")

    def read_status(self, answer: bytes) -> list[VersionStatus]:
        """Return its versions."""
        found = protos.GetModelStatusResponse()
        _parse(_loaded(answer), found)
        return versions_of(found)

    def reload(self, models: Any) -> Call:
        """Raise FailedPrecondition: the REST API cannot."""
        raise FailedPrecondition(
            "reload goes by gRPC alone: use the server's gRPC port, grpc://HOST:8500 or what "
            "--port (or --admin_port) says"
        )

    def read_reload(self, answer: bytes) -> None:
        """Do nothing: there is no such call."""
        raise NotImplementedError

    def health(self, service: str) -> Call:
        """Return `/readyz`, or the page of the model that is named."""
        if service in ("", *PREDICTION_SERVICES):
            return Call("/readyz", None, "GET", also_answers=_NOT_READY)
        return self.status(ModelSpec(service))

    def read_health(self, answer: bytes, service: str) -> str:
        """Return `SERVING` or `NOT_SERVING`."""
        if service in ("", *PREDICTION_SERVICES):
            return "SERVING" if answer.strip() == b"ok" else "NOT_SERVING"
        available = any(one.state == "AVAILABLE" for one in self.read_status(answer))
        return "SERVING" if available else "NOT_SERVING"

    def page(self, path: str, body: Any, method: str | None) -> Call:
        """Return the call for a page, or for an action."""
        verb = (method or ("GET" if body is None else "POST")).upper()
        payload = None if body is None else json.dumps(body).encode()
        if payload is None and verb not in ("GET", "HEAD"):
            payload = b""
        headers = _JSON if body is not None else ()
        may_repeat = verb in ("GET", "HEAD")
        return Call("/" + path.lstrip("/"), payload, verb, headers, may_repeat=may_repeat)

    def read_page(self, answer: bytes) -> Any:
        """Return the JSON; the text of a page that is none, such as `/metrics`."""
        try:
            return json.loads(answer)
        except ValueError:
            return answer.decode(errors="replace")


def error_of(status: int, body: bytes) -> ServingError:
    """Return the error of an HTTP answer, with the server's text."""
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace").strip()[:1000]
    code = CODES.get(status, Code.INVALID_ARGUMENT if 400 <= status < 500 else Code.UNKNOWN)
    return error_from_code(code, text or f"the server answered with HTTP status {status}")


def _target(spec: ModelSpec) -> str:
    """Return the path of a model."""
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.version is not None:
        path += f"/versions/{spec.version}"
    if spec.label is not None:
        path += f"/labels/{quote(spec.label, safe='')}"
    return path


def _examples_call(spec: ModelSpec, verb: str, examples: Sequence[Mapping[str, Any]]) -> Call:
    rows = [
        {name: _json_of_feature(feature) for name, feature in one.items()}
        for one in features_of(examples)
    ]
    return Call(f"{_target(spec)}:{verb}", _dumped(spec, examples=rows), headers=_JSON)


def _dumped(spec: ModelSpec, **members: Any) -> bytes:
    if spec.signature_name:
        members["signature_name"] = spec.signature_name
    return json.dumps(members, separators=(",", ":")).encode()


def _loaded(answer: bytes) -> dict[str, Any]:
    """Return a JSON object; bytes of texts that are not UTF-8 are kept as surrogates."""
    try:
        document = json.loads(answer.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise Internal(f"the server's answer is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Internal("the server's answer is no JSON object")
    return document


def _parse(document: Any, message: Any) -> None:
    from google.protobuf import json_format

    try:
        json_format.ParseDict(
            document, message, ignore_unknown_fields=True, descriptor_pool=protos.POOL
        )
    except json_format.ParseError as error:
        raise Internal(f"the server's answer cannot be read: {error}") from error


# ---- values


def _json_of(array: Array) -> Any:
    """Return an array as nested lists. Raises TypeError or ValueError for what JSON has not."""
    if array.dtype.kind in "OSU":
        return _json_of_text(array.tolist())
    if array.dtype.kind == "c":
        raise TypeError("REST has no complex numbers: use the gRPC port")
    return (array.astype(np.float32) if array.dtype.kind == "V" else array).tolist()


def _json_of_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_of_text(inner) for inner in value]
    if isinstance(value, bytes):
        return {"b64": binascii.b2a_base64(value, newline=False).decode()}
    if isinstance(value, str):
        value.encode()  # raises ValueError for what is no text
        return value
    raise TypeError(f"expected texts or bytes, got {type(value).__name__}")


def _json_of_feature(feature: Feature) -> list[Any]:
    return _json_of_text(feature.values) if feature.kind == "bytes" else feature.values


def _columns(found: Any, specs: Mapping[str, TensorSpec]) -> Mapping[str, Any]:
    """Return outputs by name: the only output has none in the answer."""
    if len(specs) == 1:
        return {next(iter(specs)): found}
    if isinstance(found, dict) and found.keys() <= specs.keys():
        return found
    raise Outdated


def _array_of(value: Any, spec: TensorSpec) -> Array:
    """Return one output with the dtype of its spec. Raises Outdated if it is of another."""
    try:
        dtype = numpy_dtype(DataType[spec.dtype])
        if dtype == OBJECT:
            array = np.array(_bytes_of(value), OBJECT)
        else:
            array = np.array(value)
            if array.size and not _fits(array, value, dtype):
                raise Outdated
            array = np.array(value, dtype) if dtype.kind in "iu" else array.astype(dtype)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Outdated from error
    return array.reshape(_empty_shape(array, spec)) if array.size == 0 else array


def _fits(array: Array, value: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether numbers of JSON, and the array that numpy makes of them, can be of a dtype."""
    kind = array.dtype.kind
    if dtype.kind == "u" and kind == "f":  # numpy's for large integers beside small ones
        return all(type(number) is int for number in np.array(value, OBJECT).flat)
    return kind in {"i": "iu", "u": "iu", "b": "b"}.get(dtype.kind, "iuf")


def _empty_shape(array: Array, spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of an output without elements: its list does not say what lies behind."""
    wanted, told = spec.shape, tuple(array.shape)
    if wanted is None or len(wanted) <= array.ndim:
        return told
    shape = (*told, *(size or 0 for size in wanted[array.ndim :]))
    return shape if math.prod(shape) == 0 else told


def _bytes_of(value: Any) -> Any:
    """Return nested lists of texts, with bytes in their place."""
    if isinstance(value, list):
        return [_bytes_of(inner) for inner in value]
    if isinstance(value, dict):
        return binascii.a2b_base64(value["b64"])
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise Outdated


def _text(value: Any) -> str:
    """Return a label, which may have come as base64."""
    return _bytes_of(value).decode(errors="replace") if isinstance(value, dict) else str(value)
