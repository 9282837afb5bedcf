"""Models of other servers, for servables that are made of them: calls that are completed later."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import grpc

from servingd.client.grpc.api import (
    METADATA,
    PREDICT,
    SIGNATURES,
    fill,
    outputs_of,
    predict_request,
)
from servingd.client.grpc.transport import CONNECTION_OF_ITS_OWN, translate
from servingd.client.messages import shape_of
from servingd.core.call_protocols import Completion
from servingd.core.types import DataType, ModelSpec, Signature, Tensors, TensorSpec
from servingd.errors import NotFound, as_serving_error
from servingd.wire import protos

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
        fill(request.model_spec, spec)
        request.metadata_field.append(SIGNATURES)
        try:
            payload = self._channel(server).unary_unary(METADATA)(
                request.SerializeToString(), timeout=timeout_s
            )
        except grpc.RpcError as error:
            raise translate(error) from error
        answer = protos.GetModelMetadataResponse.FromString(payload)
        found = protos.SignatureDefMap.FromString(answer.metadata[SIGNATURES].value)
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
        timeout = _TIMEOUT_S if done.deadline is None else done.deadline - time.monotonic()
        future = (
            self._channel(server)
            .unary_unary(PREDICT)
            .future(
                predict_request(spec, inputs),
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
                self._channels[server] = [
                    grpc.insecure_channel(server, options=CONNECTION_OF_ITS_OWN)
                    for _ in range(_CONNECTIONS)
                ]
            return self._channels[server][next(self._turn) % _CONNECTIONS]


def _spec(info: Any) -> TensorSpec:
    return TensorSpec(DataType(info.dtype), shape_of(info), info.name)


def _complete(ended: Any, done: Completion) -> None:
    """Complete a call with what came back."""
    try:
        outputs = outputs_of(ended.result())
    except grpc.RpcError as error:
        done.fail(translate(error))
    except BaseException as error:
        done.fail(as_serving_error(error))
    else:
        done.succeed(outputs)
