"""Whether a call's tensors have the shapes that its signature names, and what is said if not.

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
"""What a wrong shape may lead to; other errors are told as they are."""


def fits(signature: Signature, inputs: Tensors) -> bool:
    """Whether every tensor has a shape that its signature takes."""
    specs = signature.inputs
    return all(specs[alias].takes(array.shape) for alias, array in inputs.items())


def misfit(signature: Signature, inputs: Tensors) -> str:
    """The inputs whose shapes the signature does not take, with both shapes; empty if none is."""
    return "; ".join(
        f"input {alias}: expected a tensor of shape {shape_text(spec.shape or ())}, "
        f"got {shape_text(array.shape)}"
        for alias, array in inputs.items()
        if not (spec := signature.inputs[alias]).takes(array.shape)
    )


def explained(error: ServingError, signature: Signature, inputs: Tensors) -> ServingError:
    """A failure of a run, with the shapes where they may be why."""
    reason = misfit(signature, inputs) if error.code in _OF_THE_CALL else ""
    if not reason:
        return error
    return error_from_code(error.code, f"{error.message} ({reason})")


def shape_text(shape: tuple[int | None, ...]) -> str:
    """TensorFlow's spelling: `[2,3]`; a dimension that may vary is -1."""
    return f"[{','.join('-1' if size is None else str(size) for size in shape)}]"
