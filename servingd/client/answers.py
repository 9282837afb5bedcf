"""What calls about models return: plain values, without numpy and protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature."""

    dtype: str
    """The type's name, as TensorFlow has it without `DT_`: `FLOAT`, `INT64`, `STRING`."""
    shape: tuple[int | None, ...] | None
    """None for a dimension that may vary; None itself where the rank is unknown."""
    name: str = ""
    """The server's own name for it, such as `serving_default_x:0`."""

    def __str__(self) -> str:
        """Return such as `FLOAT [?, 28, 28]`."""
        if self.shape is None:
            return f"{self.dtype} of any shape"
        return f"{self.dtype} {shown_shape(self.shape)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a model."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method: str = "tensorflow/serving/predict"
    """What it is for: predict, classify or regress, with `tensorflow/serving/` before it."""


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The signatures of a model's version, by name; the usual one is `serving_default`."""

    name: str
    version: int
    signatures: Mapping[str, Signature]


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The state of one version."""

    version: int
    state: str
    """`START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`."""
    error_code: str = "OK"
    """The name of a status code, such as `NOT_FOUND`."""
    error_message: str = ""


def shown_shape(shape: tuple[int | None, ...]) -> str:
    """Return a shape for error texts: `[?, 28]`."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
