"""Calls to a model server, with arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from servingd.core.lifecycle import PublicState
from servingd.errors import ServingError, error_from_code
from servingd.wire import protos
from servingd.wire.tensors import data_type_of, decode, encode_as_content

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Client:
    """A connection to servingd, or to TensorFlow Serving. Thread-safe; close it when done."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options=_UNLIMITED)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=_UNLIMITED)

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
        """Run a model; `inputs` are arrays, or what `np.asarray` makes arrays of the right type.

        Raises the ServingError of the server's status.
        """
        request = protos.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for alias, value in inputs.items():
            array = np.asarray(value)
            content = encode_as_content(array, data_type_of(array.dtype))
            request.inputs[alias].MergeFromString(content)
        request.output_filter.extend(outputs)
        answer = protos.PredictResponse.FromString(
            self._call(_PREDICT, request.SerializeToString(), timeout_s)
        )
        return {alias: decode(tensor, alias) for alias, tensor in answer.outputs.items()}

    def status(self, model: str, timeout_s: float | None = None) -> dict[int, str]:
        """Version to state, by name: `AVAILABLE`, `LOADING` and so on."""
        request = protos.GetModelStatusRequest()
        request.model_spec.name = model
        answer = protos.GetModelStatusResponse.FromString(
            self._call(_STATUS, request.SerializeToString(), timeout_s)
        )
        return {s.version: PublicState(s.state).name for s in answer.model_version_status}

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
            raise _translate(error) from error
        return answer


def _translate(error: grpc.RpcError) -> ServingError:
    return error_from_code(error.code().value[0], error.details() or "")
