"""Call a model server, with arrays in and out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from servingd.client.casting import fitted
from servingd.client.hints import retry_after_s
from servingd.core.lifecycle.states import PublicState
from servingd.core.types import DataType
from servingd.errors import InvalidArgument, NotFound, ServingError, error_from_code
from servingd.wire import protos
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.encoding import encode_as_content
from servingd.wire.tensors.types import data_type_of, numpy_dtype

PREDICT = "/tensorflow.serving.PredictionService/Predict"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_SIGNATURES = "signature_def"
_WRONG_TYPE = "Expects arg["
"""The beginning of TensorFlow's error for an input of a wrong dtype."""
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Client:
    """A connection to servingd, or to TensorFlow Serving. Thread-safe; close it when done."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options=UNLIMITED)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=UNLIMITED)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: int | None = None,
        signature: str = "",
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Run a model; `inputs` are arrays, or what `np.asarray` turns into arrays.

        If the server wants other dtypes, the inputs are cast and sent again, if no value changes.
        Raises the ServingError of the server's status, with its hint when to try again.
        """
        arrays = {alias: np.asarray(value) for alias, value in inputs.items()}
        request = protos.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        request.output_filter.extend(outputs)
        try:
            payload = self._call(PREDICT, with_inputs(request, arrays), timeout_s)
        except InvalidArgument as error:
            if _WRONG_TYPE not in error.message:
                raise
            types = self._types(request.model_spec, timeout_s)
            cast = {a: fitted(inputs[a], v, types.get(a, v.dtype)) for a, v in arrays.items()}
            if all(cast[alias] is array for alias, array in arrays.items()):
                raise
            payload = self._call(PREDICT, with_inputs(request, cast), timeout_s)
        answer = protos.PredictResponse.FromString(payload)
        return {alias: decode(tensor, alias) for alias, tensor in answer.outputs.items()}

    def status(self, model: str, timeout_s: float | None = None) -> dict[int, str]:
        """Return the states of a model's versions by name: `AVAILABLE`, `LOADING` and so on."""
        request = protos.GetModelStatusRequest()
        request.model_spec.name = model
        answer = protos.GetModelStatusResponse.FromString(
            self._call(_STATUS, request.SerializeToString(), timeout_s)
        )
        return {s.version: PublicState(s.state).name for s in answer.model_version_status}

    def inputs(
        self,
        model: str,
        *,
        version: int | None = None,
        signature: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, str]:
        """Return the inputs of a signature by name, each with its type's name, such as `FLOAT`."""
        spec = protos.PredictRequest().model_spec
        spec.name = model
        spec.signature_name = signature
        if version is not None:
            spec.version.value = version
        infos = self._input_infos(spec, timeout_s)
        return {alias: DataType(info.dtype).name for alias, info in sorted(infos.items())}

    def _types(self, spec: Any, timeout_s: float | None) -> dict[str, np.dtype[Any]]:
        """Return the dtypes of a signature's inputs, for types that numpy has."""
        types: dict[str, np.dtype[Any]] = {}
        for alias, info in self._input_infos(spec, timeout_s).items():
            with contextlib.suppress(ServingError, ValueError):
                types[alias] = numpy_dtype(DataType(info.dtype))
        return types

    def _input_infos(self, spec: Any, timeout_s: float | None) -> Mapping[str, Any]:
        request = protos.GetModelMetadataRequest()
        request.model_spec.CopyFrom(spec)
        request.metadata_field.append(_SIGNATURES)
        answer = protos.GetModelMetadataResponse.FromString(
            self._call(METADATA, request.SerializeToString(), timeout_s)
        )
        found = protos.SignatureDefMap.FromString(answer.metadata[_SIGNATURES].value)
        name = spec.signature_name or "serving_default"
        if name not in found.signature_def:
            there = ", ".join(sorted(found.signature_def)) or "none"
            raise NotFound(f"model {spec.name} has no signature {name}; there are: {there}")
        infos: Mapping[str, Any] = found.signature_def[name].inputs
        return infos

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: str, payload: bytes, timeout_s: float | None) -> bytes:
        try:
            answer: bytes = self._channel.unary_unary(method)(payload, timeout=timeout_s)
        except grpc.RpcError as error:
            raise translate(error) from error
        return answer


def translate(error: grpc.RpcError) -> ServingError:
    """Return the ServingError of a call's status, with the server's hint when to try again."""
    found = error_from_code(error.code().value[0], error.details() or "")
    found.retry_after_s = retry_after_s(error.trailing_metadata() or ())
    return found


def with_inputs(request: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Return the request's bytes with these inputs."""
    request.ClearField("inputs")
    for alias, array in arrays.items():
        content = encode_as_content(array, data_type_of(array.dtype))
        request.inputs[alias].MergeFromString(content)
    payload: bytes = request.SerializeToString()
    return payload
