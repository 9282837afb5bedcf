"""Models of other servers, for servables that are made of them: calls that are completed later."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import grpc

from servingd.client.client import METADATA, PREDICT, UNLIMITED, translate, with_inputs
from servingd.core.call_protocols import Completion
from servingd.core.types import DataType, ModelSpec, Signature, Tensors, TensorSpec
from servingd.errors import NotFound, as_serving_error
from servingd.wire import protos
from servingd.wire.tensors.decoding import decode

_CONNECTIONS = 4
"""Connections to each server: the kernel shares them out to its workers."""
_PRIORITY = "x-servingd-priority"
_TIMEOUT_S = 60.0
"""Seconds for a call without a deadline."""


class RemoteModels:
    """A pool of connections to other servers; see `servables.parts.RemoteModels`."""

    def __init__(self) -> None:
        """Connect to nobody yet."""
        self._lock = threading.Lock()
        self._channels: dict[str, list[grpc.Channel]] = {}  # guarded by _lock
        self._turn = itertools.count()

    def signature(self, server: str, spec: ModelSpec, timeout_s: float) -> Signature:
        """Return a model's signature. Raises ServingError; waits at most `timeout_s`."""
        request = protos.GetModelMetadataRequest()
        _fill(request.model_spec, spec)
        request.metadata_field.append("signature_def")
        try:
            payload = self._channel(server).unary_unary(METADATA)(
                request.SerializeToString(), timeout=timeout_s
            )
        except grpc.RpcError as error:
            raise translate(error) from error
        answer = protos.GetModelMetadataResponse.FromString(payload)
        found = protos.SignatureDefMap.FromString(answer.metadata["signature_def"].value)
        if spec.signature_name not in found.signature_def:
            raise NotFound(f"model {spec.name} at {server} has no signature {spec.signature_name}")
        definition = found.signature_def[spec.signature_name]
        return Signature(
            spec.signature_name,
            {alias: _spec(info) for alias, info in sorted(definition.inputs.items())},
            {alias: _spec(info) for alias, info in sorted(definition.outputs.items())},
        )

    def run(self, server: str, spec: ModelSpec, inputs: Tensors, done: Completion) -> None:
        """Begin a Predict call; `done` is completed on a thread of gRPC's."""
        request = protos.PredictRequest()
        _fill(request.model_spec, spec)
        payload = with_inputs(request, inputs)
        timeout = _TIMEOUT_S if done.deadline is None else done.deadline - time.monotonic()
        future = (
            self._channel(server)
            .unary_unary(PREDICT)
            .future(
                payload,
                timeout=max(0.0, timeout),
                metadata=((_PRIORITY, done.priority().name.lower()),),
            )
        )
        future.add_done_callback(lambda ended: _complete(ended, done))

    def close(self) -> None:
        """Close all connections; calls under way fail with CANCELLED."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in itertools.chain.from_iterable(channels.values()):
            channel.close()

    def _channel(self, server: str) -> grpc.Channel:
        with self._lock:
            if server not in self._channels:
                options = (*UNLIMITED, ("grpc.use_local_subchannel_pool", 1))
                self._channels[server] = [
                    grpc.insecure_channel(server, options=options) for _ in range(_CONNECTIONS)
                ]
            return self._channels[server][next(self._turn) % _CONNECTIONS]


def _fill(message: Any, spec: ModelSpec) -> None:
    message.name = spec.name
    message.signature_name = spec.signature_name
    if spec.version is not None:
        message.version.value = spec.version
    if spec.label is not None:
        message.version_label = spec.label


def _spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else tuple(d.size if d.size >= 0 else None for d in shape.dim)
    return TensorSpec(DataType(info.dtype), dims, info.name)


def _complete(ended: Any, done: Completion) -> None:
    """Complete a call with what came back."""
    try:
        answer = protos.PredictResponse.FromString(ended.result())
        outputs = {alias: decode(tensor, alias) for alias, tensor in answer.outputs.items()}
    except grpc.RpcError as error:
        done.fail(translate(error))
    except BaseException as error:
        done.fail(as_serving_error(error))
    else:
        done.succeed(outputs)
