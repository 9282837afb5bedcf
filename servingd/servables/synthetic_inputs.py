"""Inputs made from a signature alone: to warm a session, to measure it, to compare two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from servingd.core.types import DataType, Signature, Tensors, TensorSpec
from servingd.wire.tensors.types import numpy_dtype

MAX_BYTES = 64 << 20
"""Bytes of one input, at most: a larger one is not made."""


def synthetic_inputs(signature: Signature, batch: int, seed: int = 0) -> Tensors | None:
    """Make inputs of `batch` rows where the first dimension may vary; 1 where another may.

    Floats lie in [0, 1), integers are 0 or 1, strings empty (an Example without features). None if
    that would be too large. A model may refuse them: that proves nothing.
    """
    rng = np.random.default_rng(seed)
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    for alias, spec in signature.inputs.items():
        shape = input_shape(spec, batch)
        if math.prod(shape) * 16 > MAX_BYTES:
            return None
        inputs[alias] = _values(spec.data_type, shape, rng)
    return inputs


def has_open_rows(signature: Signature) -> bool:
    """Return whether every input has a first dimension that a caller may choose."""
    return bool(signature.inputs) and all(
        spec.shape is None or (len(spec.shape) > 0 and spec.shape[0] is None)
        for spec in signature.inputs.values()
    )


def input_shape(spec: TensorSpec, rows: int, length: int = 1) -> tuple[int, ...]:
    """Return a shape that fits: `rows` for an open first dimension, `length` for other open ones.

    One dimension where even the rank is open.
    """
    if spec.shape is None:
        return (rows,)
    return tuple(
        (length if i else rows) if size is None else size for i, size in enumerate(spec.shape)
    )


def _values(
    data_type: DataType, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    if data_type is DataType.STRING:
        return np.full(shape, b"", object)
    dtype = numpy_dtype(data_type)
    if dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.random(shape).astype(dtype)
