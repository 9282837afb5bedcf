"""Classify and Regress: Examples in, scores or values out.

A model of either kind takes one vector of serialised `tensorflow.Example`s. The checks, their order
and their texts are TensorFlow Serving's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from google.protobuf import text_format

from servingd.core.call_protocols import Models
from servingd.core.shapes import shape_text
from servingd.core.types import DataType, Signature, Tensors
from servingd.errors import InvalidArgument
from servingd.inference.checks import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    NO_CHECKS,
    REGRESS_METHOD,
    Checks,
    InferenceCall,
    check_served,
    check_shapes,
)
from servingd.wire.signatures import signature_def
from servingd.wire.tensors.types import type_name

_INPUTS, _OUTPUTS, _CLASSES, _SCORES = "inputs", "outputs", "classes", "scores"
_KINDS = {CLASSIFY_METHOD: "classification", REGRESS_METHOD: "regression"}


class ExamplesCall(InferenceCall, Protocol):
    """A Classify or Regress call."""

    count: int
    """The number of its examples, once they are read."""

    def examples(self) -> Sequence[bytes]:
        """Return its examples, each serialised. Raises InvalidArgument."""
        ...


@dataclass(frozen=True, slots=True)
class Classification:
    """Labels (`bytes`) and scores (float32), `[examples, classes]` each; None: not in the model."""

    labels: np.ndarray[Any, Any] | None
    scores: np.ndarray[Any, Any] | None


def run_examples(
    models: Models, call: ExamplesCall, method: str, checks: Checks = NO_CHECKS
) -> None:
    """Run one call, as `predict` does; `method` is the method name of the signature.

    The outputs are read by `classification` or `regression`.
    """
    spec = call.spec
    handle = call.handle = models.acquire(spec)
    name = spec.signature_name or DEFAULT_SIGNATURE
    runner = handle.runners.get(name)
    if runner is None:
        raise InvalidArgument(f"No signature was found with the name: {name}")
    call.runner = runner
    check_signature(runner.signature, method, checks)
    examples = call.examples()
    call.count = len(examples)
    runner.run(bind_examples(runner.signature, examples, checks), call)


def check_signature(signature: Signature, method: str, checks: Checks = NO_CHECKS) -> None:
    """Raise InvalidArgument unless a signature has the inputs and outputs of `method`."""
    kind = _KINDS[method]
    check_served(signature, signature.unserved)
    if checks.method_name and signature.method_name != method:
        raise InvalidArgument(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise InvalidArgument("Expected one input Tensor.")
    outputs = signature.outputs
    if method == CLASSIFY_METHOD and len(outputs) not in (1, 2):
        raise InvalidArgument(f"Expected one or two output Tensors, found {len(outputs)}")
    if method == REGRESS_METHOD and len(outputs) != 1:
        raise InvalidArgument("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise InvalidArgument(f"No {kind} inputs found in SignatureDef: {_dump(signature)}")
    if method == CLASSIFY_METHOD and not {_CLASSES, _SCORES} & outputs.keys():
        raise InvalidArgument(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {_dump(signature)}'
        )
    if method == REGRESS_METHOD and _OUTPUTS not in outputs:
        raise InvalidArgument(f"No regression outputs found in SignatureDef: {_dump(signature)}")


def bind_examples(
    signature: Signature, examples: Sequence[bytes], checks: Checks = NO_CHECKS
) -> Tensors:
    """Return the examples as the signature's one input, `[examples]`. Raises InvalidArgument."""
    if not examples:
        raise InvalidArgument("Input is empty.")
    (alias, spec), *_ = signature.inputs.items()
    if spec.data_type is not DataType.STRING:
        raise InvalidArgument(
            f"Expects arg[0] to be {type_name(spec.data_type)} but string is provided"
        )
    vector = np.empty(len(examples), object)
    vector[:] = examples
    inputs = {alias: vector}
    if checks.input_shapes:
        check_shapes(signature, inputs)
    return inputs


def classification(signature: Signature, outputs: Tensors, count: int) -> Classification:
    """Return the labels and scores of `count` examples.

    Raises InvalidArgument if the outputs have another shape or dtype.
    """
    labels = _per_class(signature, outputs, _CLASSES, DataType.STRING, count)
    scores = _per_class(signature, outputs, _SCORES, DataType.FLOAT, count)
    if labels is not None and scores is not None and labels.shape[1] != scores.shape[1]:
        raise InvalidArgument(
            "Tensors class and score should match in dim_size(1). Got "
            f"{labels.shape[1]} vs. {scores.shape[1]}"
        )
    return Classification(labels, scores)


def regression(signature: Signature, outputs: Tensors, count: int) -> np.ndarray[Any, Any]:
    """Return the values of `count` examples: float32, `[examples]`.

    Raises InvalidArgument if the outputs have another shape or dtype.
    """
    if _OUTPUTS not in outputs:
        name = signature.outputs[_OUTPUTS].tensor_name
        raise InvalidArgument(f"Could not find output tensor '{name}'")
    array = np.asarray(outputs[_OUTPUTS])
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise InvalidArgument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{shape_text(array.shape)}"
        )
    if array.shape[0] != count:
        raise InvalidArgument(
            f"Input batch size did not match output batch size: {count} vs. {array.shape[0]}"
        )
    _check_type(signature, _OUTPUTS, DataType.FLOAT, "Expected output Tensor of DT_FLOAT.  Got: ")
    return array.reshape(-1)


def _per_class(
    signature: Signature, outputs: Tensors, alias: str, data_type: DataType, count: int
) -> np.ndarray[Any, Any] | None:
    """Return an output as `[examples, classes]`; None if the signature does not have it."""
    if alias not in signature.outputs:
        return None
    array = np.asarray(outputs[alias])
    if array.ndim != 2:
        raise InvalidArgument(
            f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}"
        )
    _check_type(
        signature, alias, data_type, f"Expected {alias} Tensor of DT_{data_type.name}. Got: "
    )
    if array.shape[0] != count:
        raise InvalidArgument(
            f"Expected {alias} output batch size of {count}. Got: {array.shape[0]}"
        )
    return array


def _check_type(signature: Signature, alias: str, wanted: DataType, text: str) -> None:
    data_type = signature.outputs[alias].data_type
    if data_type is not wanted:
        raise InvalidArgument(f"{text}DT_{data_type.name}")


def _dump(signature: Signature) -> str:
    text: str = text_format.MessageToString(signature_def(signature))
    return text


def results(
    signature: Signature, method: str, outputs: Mapping[str, Any], count: int
) -> Classification | np.ndarray[Any, Any]:
    """Return the `classification` or the `regression`, as `method` asks for."""
    read = classification if method == CLASSIFY_METHOD else regression
    return read(signature, outputs, count)
