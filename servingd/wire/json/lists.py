"""Nested lists of one type, as arrays: without a Python loop per element, and without error texts.

The result is None for values that do not fit exactly; `values.py` reads those, or says what is
wrong with them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from servingd.core.types import DataType
from servingd.wire.tensors.types import numpy_dtype

Array: TypeAlias = np.ndarray[Any, Any]

MAX_RANK = 63
"""Dimensions of a value, at most; a batch has one more, and numpy has 64."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """How numbers of one type are read: the dtype of their array, and their JSON types."""

    code: str
    read: np.dtype[Any]
    dtype: np.dtype[Any]
    accepted: frozenset[type]


def _numbers(data_type: DataType, code: str, *accepted: type) -> _Numbers:
    return _Numbers(code, np.dtype(code), numpy_dtype(data_type), frozenset(accepted))


# Small integers are read as int32 and wrap around.
_NUMBERS = {
    DataType.FLOAT: _numbers(DataType.FLOAT, "f", int, float),
    DataType.DOUBLE: _numbers(DataType.DOUBLE, "d", int, float),
    DataType.HALF: _numbers(DataType.HALF, "d", int, float),
    DataType.BFLOAT16: _numbers(DataType.BFLOAT16, "d", int, float),
    DataType.INT32: _numbers(DataType.INT32, "i", int),
    DataType.INT16: _numbers(DataType.INT16, "i", int),
    DataType.INT8: _numbers(DataType.INT8, "i", int),
    DataType.UINT8: _numbers(DataType.UINT8, "i", int),
    DataType.INT64: _numbers(DataType.INT64, "q", int),
    DataType.UINT32: _numbers(DataType.UINT32, "I", int),
    DataType.UINT64: _numbers(DataType.UINT64, "Q", int),
}


def regular_array(values: list[Any], data_type: DataType) -> Array | None:
    """Return a nested list as an array; None unless it is regular, and `data_type` throughout."""
    flat = values
    shape: list[int] = []
    while flat and type(flat[0]) is list:
        size = len(flat[0])
        try:
            regular = set(map(len, flat)) == {size}
        except TypeError:
            return None
        if not regular or len(shape) == MAX_RANK:
            return None
        shape.append(size)
        flat = list(chain.from_iterable(flat))
    if not flat:
        return None
    found = flat_array(flat, data_type)
    return found.reshape(len(values), *shape) if found is not None and shape else found


def flat_array(values: list[Any], data_type: DataType) -> Array | None:
    """Return JSON values, at least one, as a flat array; strings are `str` or `bytes`."""
    types = set(map(type, values))
    form = _NUMBERS.get(data_type)
    if form is None:
        return _other_array(values, data_type, types)
    if not types <= form.accepted:
        return None
    try:
        numbers = np.frombuffer(array(form.code, values), form.read)
    except OverflowError:
        return None
    if form.read is form.dtype:
        return numbers
    with np.errstate(over="ignore"):  # what a half cannot hold is infinite, as for a float
        return numbers.astype(form.dtype, copy=False)


def _other_array(values: list[Any], data_type: DataType, types: set[type]) -> Array | None:
    if data_type is DataType.BOOL and types == {bool}:
        return np.array(values, np.bool_)
    if data_type is not DataType.STRING or not types <= {str, bytes}:
        return None
    strings = np.empty(len(values), object)
    strings[:] = values if types == {bytes} else [to_bytes(value) for value in values]
    return strings


def to_bytes(text: str | bytes) -> bytes:
    """Return the bytes of a string as they stood in the document."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
