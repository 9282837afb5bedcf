"""Tensors of the Open Inference Protocol: the names of its types, and bytes as they travel.

Elements are little-endian and row by row. An element of BYTES is its length in four bytes, then
itself. There are no complex numbers in the protocol.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from servingd.core.types import DataType
from servingd.errors import InvalidArgument, Unimplemented
from servingd.wire.tensors.types import OBJECT, numpy_dtype

Array: TypeAlias = np.ndarray[Any, Any]

_LENGTH = struct.Struct("<I")
_MOST_DIMENSIONS = 32
_MOST = 2**48
"""Elements of a tensor, at most; also if some of its sizes are 0."""

NAMES: Mapping[DataType, str] = {
    DataType.BOOL: "BOOL",
    DataType.UINT8: "UINT8",
    DataType.UINT16: "UINT16",
    DataType.UINT32: "UINT32",
    DataType.UINT64: "UINT64",
    DataType.INT8: "INT8",
    DataType.INT16: "INT16",
    DataType.INT32: "INT32",
    DataType.INT64: "INT64",
    DataType.HALF: "FP16",
    DataType.BFLOAT16: "BF16",
    DataType.FLOAT: "FP32",
    DataType.DOUBLE: "FP64",
    DataType.STRING: "BYTES",
}
"""The protocol's name of each type that it has."""

TYPES: Mapping[str, DataType] = {name: data_type for data_type, name in NAMES.items()}

ONLY_RAW = frozenset({DataType.HALF, DataType.BFLOAT16})
"""Types that travel as bytes only."""


def name_of(data_type: DataType, what: str) -> str:
    """Return the protocol's name of a type. Raises Unimplemented; `what` has it."""
    name = NAMES.get(data_type)
    if name is None:
        raise Unimplemented(f"{what} is of type {data_type.name}, which the protocol does not have")
    return name


def type_of(name: str, what: str) -> DataType:
    """Return the type of a name. Raises InvalidArgument; `what` has it."""
    data_type = TYPES.get(name)
    if data_type is None:
        known = ", ".join(TYPES)
        raise InvalidArgument(f"{what}: expected a datatype among {known}, got {name!r}")
    return data_type


def checked_shape(shape: Sequence[int], what: str) -> tuple[int, ...]:
    """Return a shape. Raises InvalidArgument for one that no tensor can have."""
    sizes = tuple(shape)
    if len(sizes) > _MOST_DIMENSIONS or math.prod(size for size in sizes if size > 0) > _MOST:
        raise InvalidArgument(f"{what}: its shape is larger than any tensor")
    if any(size < 0 for size in sizes):
        raise InvalidArgument(f"{what}: expected a shape without negative sizes, got {list(sizes)}")
    return sizes


def read_raw(data_type: DataType, shape: tuple[int, ...], content: bytes, what: str) -> Array:
    """Return the array in some bytes; read-only. Raises InvalidArgument if they do not fit."""
    count = math.prod(shape)
    if data_type is DataType.STRING:
        return _objects(_split(content, count, what), shape)
    dtype = numpy_dtype(data_type)
    if len(content) != count * dtype.itemsize:
        raise InvalidArgument(
            f"{what}: expected {count * dtype.itemsize} bytes for {NAMES[data_type]} "
            f"{list(shape)}, got {len(content)}"
        )
    if data_type is DataType.BOOL:  # any byte but 0 is true, also to TensorFlow
        truth: Array = np.frombuffer(content, np.uint8) != 0
        return truth.reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape)


def write_raw(array: Any, data_type: DataType) -> bytes:
    """Return an array's bytes; `array` is as a servable returns it."""
    if data_type is DataType.STRING:
        flat = np.asarray(array, OBJECT).reshape(-1).tolist()
        parts: list[bytes] = []
        for element in flat:
            text = element.encode() if isinstance(element, str) else bytes(element)
            parts += (_LENGTH.pack(len(text)), text)
        return b"".join(parts)
    return np.ascontiguousarray(array, numpy_dtype(data_type)).tobytes()


def read_list(data_type: DataType, shape: tuple[int, ...], values: Any, what: str) -> Array:
    """Return the array of a list: flat, or nested as the shape is. Raises InvalidArgument."""
    if data_type in ONLY_RAW:
        raise InvalidArgument(f"{what}: {NAMES[data_type]} is sent as bytes only")
    try:
        if data_type is DataType.STRING:
            flat = _flat(values)
            array = _objects([_as_bytes(element) for element in flat], (len(flat),))
        else:
            array = _numbers(values, data_type)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"{what}: expected {NAMES[data_type]}: {error}") from None
    if array.size != math.prod(shape):
        raise InvalidArgument(
            f"{what}: expected {math.prod(shape)} elements for shape {list(shape)}, "
            f"got {array.size}"
        )
    return array.reshape(shape)


def write_list(array: Any) -> list[Any]:
    """Return an array's elements, flat; bytes stay bytes."""
    flat: list[Any] = np.asarray(array).reshape(-1).tolist()
    return flat


def _numbers(values: Any, data_type: DataType) -> Array:
    """Return numbers or truth values as an array. Raises ValueError where one does not fit."""
    dtype = numpy_dtype(data_type)
    found = np.asarray(values)
    if found.size == 0:
        return found.astype(dtype)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if dtype.kind in "iu" and found.dtype.kind in "fO":
        return _whole_numbers(values, found, dtype)
    if found.dtype.kind not in kinds:
        raise ValueError(f"got {found.dtype}")
    with np.errstate(over="ignore"):
        array = found.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(array, found):
        raise ValueError("a number does not fit")
    return array


def _whole_numbers(values: Any, found: Array, dtype: np.dtype[Any]) -> Array:
    """Return whole numbers of which some need all 64 bits: numpy takes them for fractions."""
    elements = _flat(values)
    if any(type(element) is not int for element in elements):
        raise ValueError(f"got {found.dtype}")
    return np.array(elements, dtype)


def _split(content: bytes, count: int, what: str) -> list[bytes]:
    """Return the elements of BYTES. Raises InvalidArgument if they are not `count`."""
    found, at = [], 0
    while at < len(content):
        end = at + _LENGTH.size
        stop = end + _LENGTH.unpack_from(content, at)[0] if end <= len(content) else end + 1
        if stop > len(content):
            raise InvalidArgument(f"{what}: its bytes end within an element")
        found.append(content[end:stop])
        at = stop
    if len(found) != count:
        raise InvalidArgument(f"{what}: expected {count} elements of BYTES, got {len(found)}")
    return found


def _objects(elements: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(elements), OBJECT)
    array[:] = elements
    return array.reshape(shape)


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [element for value in values for element in _flat(value)]


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise ValueError(f"got {type(value).__name__}")
