"""What all inference calls have in common: one signature of one ready version, and its checks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from servingd.core.call_protocols import Completion, ServableHandle, SignatureRunner
from servingd.core.shapes import misfit
from servingd.core.types import ModelSpec, Signature, Tensors
from servingd.errors import InvalidArgument, Unimplemented

DEFAULT_SIGNATURE = "serving_default"

PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


class Checks(NamedTuple):
    """Additional checks; TensorFlow Serving runs such calls unless a flag is set."""

    method_name: bool = False
    """Whether the signature's method name must match the call."""
    input_shapes: bool = False
    """Whether inputs must have the shapes of the signature."""


NO_CHECKS = Checks()


class InferenceCall(Completion, Protocol):
    """One call, as its API presents it; the servable completes it.

    It owns the handle that it is given, and releases it when its reply is sent, failed or dropped.
    """

    handle: ServableHandle | None
    runner: SignatureRunner | None
    """The runner of the signature, once it is known."""

    spec: ModelSpec


def check_served(signature: Signature, aliases: Iterable[str]) -> None:
    """Raise Unimplemented if one of these inputs or outputs cannot be fed or fetched."""
    for alias in aliases:
        if alias in signature.unserved:
            raise Unimplemented(
                f"signature {signature.name}, tensor {alias}: {signature.unserved[alias]}"
            )


def check_shapes(signature: Signature, inputs: Tensors) -> None:
    """Raise InvalidArgument if a tensor that the caller sent does not match its spec's shape."""
    sent = {a: array for a, array in inputs.items() if array is not signature.defaults.get(a)}
    reason = misfit(signature, sent)
    if reason:
        raise InvalidArgument(reason)
