"""What every inference call has in common: it leads to one signature of one ready version."""

from __future__ import annotations

from typing import Protocol

from servingd.core.interfaces import Completion, Lane, Lease
from servingd.core.types import ModelSpec, TensorSpec
from servingd.errors import InvalidArgument

DEFAULT_SIGNATURE = "serving_default"

PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


class InferenceCall(Completion, Protocol):
    """One call, as its wire presents it; it is completed by the servable.

    It owns the lease that it is given and releases it when its reply is sent, failed or dropped.
    """

    lease: Lease | None
    lane: Lane | None
    """What is being called, once it is known."""

    spec: ModelSpec


def wrong_shape(alias: str, shape: tuple[int, ...], spec: TensorSpec) -> InvalidArgument:
    """What is said of a tensor whose shape its signature does not take.

    TensorFlow Serving does not look, and a wrong one may compute nonsense.
    """
    wanted = "[...]" if spec.shape is None else shape_text(spec.shape)
    return InvalidArgument(
        f"input {alias}: expected a tensor of shape {wanted}, got {shape_text(shape)}"
    )


def shape_text(shape: tuple[int | None, ...]) -> str:
    """TensorFlow's spelling: `[2,3]`; a dimension that may vary is -1."""
    return f"[{','.join('-1' if size is None else str(size) for size in shape)}]"
