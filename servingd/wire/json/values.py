"""Any JSON value as a tensor, element by element, with TensorFlow Serving's error texts."""

from __future__ import annotations

import binascii
import re
from typing import Any

import numpy as np

from servingd.core.types import DataType
from servingd.errors import InvalidArgument, ServingError, Unimplemented
from servingd.wire.json.lists import MAX_RANK, Array, flat_array, to_bytes
from servingd.wire.json.text import dump_value
from servingd.wire.tensors.types import numpy_dtype, type_name

_B64 = "b64"

_BASE64 = re.compile(r"([A-Za-z0-9+/]*)(=*)")
_SPACE = dict.fromkeys(map(ord, " \t\n\v\f\r"))
# The padding by what the length is, modulo 4; one character alone is no byte.
_PADDINGS: dict[int, tuple[str, ...]] = {0: ("",), 2: ("", "=="), 3: ("", "=")}

_TYPE_NAMES = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}
_INT32 = range(-(2**31), 2**31)
_INTEGERS = {
    DataType.INT32: _INT32,
    DataType.INT16: _INT32,
    DataType.INT8: _INT32,
    DataType.UINT8: _INT32,
    DataType.INT64: range(-(2**63), 2**63),
    DataType.UINT32: range(2**32),
    DataType.UINT64: range(2**64),
}
_FLOATS = (DataType.FLOAT, DataType.DOUBLE, DataType.HALF, DataType.BFLOAT16)


def json_type(value: Any) -> str:
    """Return TensorFlow Serving's name of a value's type."""
    if type(value) is bool:
        return "True" if value else "False"
    return _TYPE_NAMES[type(value)]


def is_base64(value: Any) -> bool:
    """Return whether `value` is an object that stands for bytes: `{"b64": ...}`."""
    return type(value) is dict and len(value) == 1 and type(value.get(_B64)) is str


def decode_base64(value: dict[str, Any]) -> bytes:
    """Return the bytes of an object that `is_base64`; padding is optional, white space ignored.

    Raises:
        InvalidArgument: it is not of the standard alphabet, or its padding is wrong.
    """
    found = _BASE64.fullmatch(value[_B64].translate(_SPACE))
    if found:
        text, padding = found.groups()
        paddings = _PADDINGS.get(len(text) % 4, ())
        if padding in paddings:
            return binascii.a2b_base64(text + paddings[-1])
    raise InvalidArgument("Unable to base64 decode")


# ---- tensors


def read_tensor(value: Any, data_type: DataType) -> Array:
    """Return one value as a tensor, of any rank.

    Raises:
        InvalidArgument: it is ragged, or an element is of another type.
        Unimplemented: JSON has no values of `data_type`.
    """
    shape = shape_of(value)
    elements: list[Any] = []
    collect(value, shape, data_type, elements)
    return make_array(elements, shape, data_type)


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape that the first elements announce."""
    shape = []
    first = value
    while type(first) is list:
        shape.append(len(first))
        if len(shape) > MAX_RANK:
            raise InvalidArgument(
                f"JSON Value: {dump_value(value)} has more than {MAX_RANK} dimensions"
            )
        if not first:
            break
        first = first[0]
    return tuple(shape)


def collect(
    value: Any, shape: tuple[int, ...], data_type: DataType, elements: list[Any], level: int = 0
) -> None:
    """Append all elements of `value`, which must have `shape`."""
    if type(value) is not list:
        if level != len(shape):
            raise InvalidArgument(
                f"JSON Value: {dump_value(value)} found at incorrect level: {level + 1} "
                f"in the JSON DOM. Expected at level: {len(shape)}"
            )
        elements.append(_element(value, data_type))
        return
    if level >= len(shape):
        raise InvalidArgument(
            f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        )
    if len(value) != shape[level]:
        raise InvalidArgument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for inner in value:
        collect(inner, shape, data_type, elements, level + 1)


def make_array(elements: list[Any], shape: tuple[int, ...], data_type: DataType) -> Array:
    """Return what `collect` collected as an array."""
    array = flat_array(elements, data_type) if elements else None
    return np.empty(shape, numpy_dtype(data_type)) if array is None else array.reshape(shape)


def _element(value: Any, data_type: DataType) -> Any:
    """Return one element of `data_type`; strings as bytes."""
    if data_type is DataType.STRING:
        return _string(value)
    if type(value) is dict:
        raise _type_error(value, data_type)
    kind = type(value)
    if data_type in _FLOATS:
        fits = kind is int or kind is float
    elif data_type is DataType.BOOL:
        fits = kind is bool
    elif data_type in _INTEGERS:
        fits = kind is int and value in _INTEGERS[data_type]
    else:
        raise Unimplemented(
            f"Conversion of JSON Value: {dump_value(value)} to type: {type_name(data_type)}"
        )
    if not fits:
        raise _type_error(value, data_type)
    return value


def _string(value: Any) -> bytes:
    if type(value) is str:
        return to_bytes(value)
    if type(value) is not dict:
        raise _type_error(value, DataType.STRING)
    if not is_base64(value):
        raise InvalidArgument(
            f"JSON Value: {dump_value(value)} not formatted correctly for base64 data"
        )
    return decode_base64(value)


def _type_error(value: Any, data_type: DataType) -> ServingError:
    return InvalidArgument(
        f"JSON Value: {dump_value(value)} Type: {json_type(value)} "
        f"is not of expected type: {type_name(data_type)}"
    )
