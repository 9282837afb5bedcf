"""Compare a call's tensors with the shapes of its signature, and explain failures by them.

TensorFlow runs whatever it is fed. So a shape that differs is no error by itself: it decides
whether a call may be merged with others, and explains what TensorFlow then refuses.
"""

from __future__ import annotations

from servingd.core.types import Signature, Tensors
from servingd.errors import Code, ServingError, error_from_code

_OF_THE_CALL = frozenset(
    (
        Code.INVALID_ARGUMENT,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
        Code.INTERNAL,
        Code.UNKNOWN,
    )
)
"""The error codes that a wrong shape may lead to; other errors are left as they are."""


def fits(signature: Signature, inputs: Tensors) -> bool:
    """Return whether every tensor has a shape that its signature takes."""
    specs = signature.inputs
    return all(specs[alias].takes(array.shape) for alias, array in inputs.items())


def misfit(signature: Signature, inputs: Tensors) -> str:
    """Return which inputs have a shape that the signature does not take; empty if none has."""
    return "; ".join(
        f"input {alias}: expected a tensor of shape {shape_text(spec.shape or ())}, "
        f"got {shape_text(array.shape)}"
        for alias, array in inputs.items()
        if not (spec := signature.inputs[alias]).takes(array.shape)
    )


def explained(error: ServingError, signature: Signature, inputs: Tensors) -> ServingError:
    """Return a run's error, with expected and actual shapes added where they may be the cause."""
    reason = misfit(signature, inputs) if error.code in _OF_THE_CALL else ""
    if not reason:
        return error
    return error_from_code(error.code, f"{error.message} ({reason})")


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Return a shape in TensorFlow's spelling: `[2,3]`; a dimension that may vary is -1."""
    return f"[{','.join('-1' if size is None else str(size) for size in shape)}]"
