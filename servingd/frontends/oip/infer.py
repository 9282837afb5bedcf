"""A call of ModelInfer, whatever carried it: its parameters, its inputs, its outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from servingd.core.batching.queue import Priority
from servingd.core.lifecycle.versions import MAX_VERSION
from servingd.core.types import DataType, ModelSpec, Signature, Tensors, TensorSpec
from servingd.errors import InvalidArgument, NotFound, ServingError
from servingd.frontends.call import CallContext, SignatureCall
from servingd.frontends.reply import Reply
from servingd.inference.checks import DEFAULT_SIGNATURE
from servingd.inference.predict import predict
from servingd.wire.oip import NAMES, name_of
from servingd.wire.records.prediction_logs import predict_request
from servingd.wire.tensors.encoding import encode_predict_response

Array: TypeAlias = np.ndarray[Any, Any]

_NO_MEANING = ("sequence_id", "sequence_start", "sequence_end", "shared_memory_region")
"""Parameters that would change the answer, and that mean nothing here."""
_PRIORITIES = {0: Priority.NORMAL, 1: Priority.HIGH, 2: Priority.NORMAL}
"""By the protocol's number: 1 is the highest, 0 the server's own choice; others are low."""


class Input(NamedTuple):
    """One input as it was sent."""

    data_type: DataType
    shape: tuple[int, ...]
    read: Callable[[], Array]
    """Returns its elements; raises InvalidArgument."""


Output: TypeAlias = tuple[str, DataType, str, Array]
"""One output: its name, its type, that type's name, and its elements."""


class InferCall(SignatureCall):
    """One call; the subclasses of gRPC and HTTP read its request and encode its answer."""

    api = "Predict"
    log_kind = "predict_log"

    __slots__ = ("_bound", "_priority", "given", "output_filter", "request_name")

    def __init__(self, reply: Reply, context: CallContext) -> None:
        super().__init__(reply, context)
        self.given: Mapping[str, Input] = {}
        self.output_filter: Sequence[str] = ()
        self.request_name = ""
        """The caller's id of the request, which the answer repeats."""
        self._priority: Priority | None = None
        self._bound: Tensors = {}

    def start(self, name: str, version: str, parameters: Mapping[str, Any]) -> None:
        """Find the servable and run. Raises ServingError."""
        self.spec = spec_of(name, version, parameters)
        self._take(parameters)
        predict(self._context.models, self, self._context.checks)

    def _take(self, parameters: Mapping[str, Any]) -> None:
        """Take the deadline and the priority of the request."""
        timeout_us = _whole(parameters, "timeout")
        if timeout_us:
            own = time.monotonic() + timeout_us / 1e6
            self.deadline = own if self.deadline is None else min(self.deadline, own)
        if "priority" in parameters:
            self._priority = _PRIORITIES.get(_whole(parameters, "priority"), Priority.LOW)

    def priority(self) -> Priority:
        """Return the request's own priority, else its transport's."""
        return self._reply.priority() if self._priority is None else self._priority

    def alive(self) -> bool:
        """Return whether somebody still waits, by the request's own deadline too."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return not late and self._reply.alive()

    def bind(self, signature: Signature) -> Tensors:
        """Return the inputs in the signature's order. Raises InvalidArgument."""
        given = self.given
        inputs: dict[str, Array] = {}
        for alias, spec in signature.inputs.items():
            if alias in given:
                inputs[alias] = _read(alias, given[alias], spec)
            elif alias in signature.defaults:
                inputs[alias] = signature.defaults[alias]
            else:
                wanted = f"{len(signature.inputs)} inputs: {', '.join(signature.inputs)}"
                raise InvalidArgument(f"input '{alias}' is missing; the model expects {wanted}")
        for alias in given:
            if alias not in signature.inputs:
                known = ", ".join(signature.inputs) or "none"
                raise InvalidArgument(f"unexpected input '{alias}'; the model expects: {known}")
        self.given = {}
        self._bound = inputs
        self.ran_at = time.perf_counter()
        return inputs

    def no_such_signature(self, name: str) -> ServingError:
        """Return the error for a signature that there is not."""
        return NotFound(f"model '{self.spec.name}' has no signature '{name}'")

    def outputs_of(self, outputs: Tensors, signature: Signature) -> list[Output]:
        """Return the wanted outputs. Raises Unimplemented."""
        found = []
        for alias in self.output_filter or outputs:
            data_type = signature.outputs[alias].data_type
            name = name_of(data_type, f"output '{alias}'")
            found.append((alias, data_type, name, np.asarray(outputs[alias])))
        return found

    def log_request(self) -> bytes:
        """Return the equivalent PredictRequest."""
        assert self.runner is not None  # it has answered
        return predict_request(self.spec, self._bound, self.runner.signature.inputs)

    def log_response(self, outputs: Tensors, note: Any, payload: bytes) -> bytes:
        """Return the equivalent PredictResponse."""
        assert self.runner is not None  # it has answered
        return encode_predict_response(outputs, self.runner.signature.outputs, note.model_spec)


def spec_of(name: str, version: str, parameters: Mapping[str, Any]) -> ModelSpec:
    """Return what is asked for; a version that is no number is a label. Raises InvalidArgument.

    The parameter `signature_name` chooses a signature.
    """
    for parameter in _NO_MEANING:
        if parameters.get(parameter):
            raise InvalidArgument(f"parameter '{parameter}' is not supported here")
    signature = parameters.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(signature, str):
        raise InvalidArgument(f"parameter 'signature_name': expected a text, got {signature!r}")
    if not version:
        return ModelSpec(name, None, None, signature)
    if not (version.isascii() and version.isdigit()):
        return ModelSpec(name, None, version, signature)
    number = int(version) if len(version) <= 20 else MAX_VERSION + 1
    if number > MAX_VERSION:
        raise InvalidArgument(f"version: expected a number up to {MAX_VERSION}, got {version}")
    return ModelSpec(name, number, None, signature)


def refuse(parameters: Mapping[str, Any], what: str) -> None:
    """Raise InvalidArgument for a parameter of a tensor that would change the answer."""
    for name in ("shared_memory_region", "classification"):
        if parameters.get(name):
            raise InvalidArgument(f"{what}: parameter '{name}' is not supported here")


def _read(alias: str, given: Input, spec: TensorSpec) -> Array:
    if given.data_type is not spec.data_type:
        wanted = NAMES.get(spec.data_type, spec.data_type.name)
        raise InvalidArgument(
            f"input '{alias}' has datatype {NAMES[given.data_type]}, and the model expects {wanted}"
        )
    return given.read()


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or value < 0:
        raise InvalidArgument(f"parameter '{name}': expected a number of at least 0, got {value!r}")
    return value
