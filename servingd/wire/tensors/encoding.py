"""Arrays to `tensorflow.TensorProto`, as bytes.

Values are written by hand, not through messages: the head of a tensor is cached per type and shape,
and the elements go from the array to the reply in one copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from servingd.core.types import DataType, Tensors, TensorSpec
from servingd.errors import InvalidArgument
from servingd.wire import protos
from servingd.wire.tensors.types import FORMS, OBJECT, Form, form_of, type_name
from servingd.wire.varints import varint, varints

Array: TypeAlias = np.ndarray[Any, Any]
# `bytes`, or an array: what bytes.join takes. Its `len` is in bytes, but for lists of fixed size.
_Part: TypeAlias = Any

_FEW_TO_WRITE = 512
"""Elements: up to so many integers are written by protobuf, since that is faster than by numpy."""

_FEW_STRINGS = 64
"""Strings of a tensor by which it is judged whether they are long."""

_LONG = 4096
"""Bytes: strings so long are joined into the reply; protobuf would copy them twice before."""

_CONTENT_TAG = b"\x22"


def encode(array: Any, data_type: DataType) -> bytes:
    """Return a serialised TensorProto with its values in the list field of `data_type`.

    `array` may be a numpy scalar, `bytes`, or whatever numpy makes an array of; it is cast where
    its type is another. The shape is always there, also a scalar's.

    Raises:
        InvalidArgument: `data_type` is none, or `array` cannot be cast.
        Unimplemented: the type is not served here.
    """
    return b"".join(_list_parts(*_prepared(array, data_type), data_type))


def encode_as_content(array: Any, data_type: DataType) -> bytes:
    """Return a serialised TensorProto with its values in `tensor_content`."""
    return b"".join(_content_parts(*_prepared(array, data_type), data_type))


def encode_model_spec(name: str, version: int, signature_name: str) -> bytes:
    """Return the field `model_spec` of a PredictResponse; its version is always set, also 0."""
    spec = protos.ModelSpec(name=name, signature_name=signature_name)
    spec.version.value = version
    content: bytes = protos.PredictResponse(model_spec=spec).SerializeToString()
    return content


def encode_predict_response(
    outputs: Tensors,
    specs: Mapping[str, TensorSpec],
    tail: bytes,
    *,
    as_content: bool = False,
) -> bytes:
    """Return a serialised PredictResponse.

    Args:
        outputs: all of them travel, as `encode` takes them.
        specs: the signature's outputs; an alias of `outputs` that is missing is a KeyError.
        tail: what `encode_model_spec` made.
        as_content: values go into `tensor_content` (a flag of the server).

    Raises:
        InvalidArgument, Unimplemented: as `encode`.
    """
    parts: list[_Part] = []
    for alias, value in outputs.items():
        data_type = specs[alias].data_type
        array, form = _prepared(value, data_type)
        if form.fixed and not as_content:
            parts += (_fixed_entry_head(alias, data_type, array.shape), array)
            continue
        tensor = (_content_parts if as_content else _list_parts)(array, form, data_type)
        parts.append(_entry_head(alias, sum(map(len, tensor))))
        parts += tensor
    parts.append(tail)
    return b"".join(parts)


def _prepared(array: Any, data_type: DataType) -> tuple[Array, Form]:
    """Return an array of `data_type`, in C order."""
    form = FORMS.get(data_type) or form_of(data_type)
    try:
        return np.asarray(array, form.dtype, order="C"), form
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"not a tensor of {type_name(data_type)}: {error}") from error


def _list_parts(array: Array, form: Form, data_type: DataType) -> tuple[_Part, ...]:
    """Return a TensorProto in parts, its values in the list field."""
    if form.fixed:
        return _fixed_head(data_type, array.shape), array
    head = _head(data_type, array.shape)
    if array.size == 0:
        return (head,)
    if form.dtype is OBJECT:
        strings = _strings(array)
        first = strings[:_FEW_STRINGS]
        if sum(map(len, first)) >= _LONG * len(first):
            tag = varint(form.number << 3 | 2)
            heads = {size: tag + varint(size) for size in set(map(len, strings))}
            return head, *[part for s in strings for part in (heads[len(s)], s)]
        return head, _message(form.field, strings)
    numbers = array.reshape(-1).view(form.item)
    if numbers.size <= _FEW_TO_WRITE:
        return head, _message(form.field, numbers.tolist())
    packed = varints(numbers)
    return head, varint(form.number << 3 | 2), varint(len(packed)), packed


def _content_parts(array: Array, form: Form, data_type: DataType) -> tuple[_Part, ...]:
    """Return a TensorProto in parts, its values in `tensor_content`."""
    head = _head(data_type, array.shape)
    if array.size == 0:
        return (head,)
    if form.dtype is OBJECT:
        strings = _strings(array)
        lengths = b"".join([varint(len(string)) for string in strings])
        size = len(lengths) + sum(map(len, strings))
        return head, _CONTENT_TAG, varint(size), lengths, *strings
    memory = array.reshape(-1).view(np.uint8)
    return head, _CONTENT_TAG, varint(memory.nbytes), memory


def _message(field: str, values: list[Any]) -> bytes:
    """Return a serialised TensorProto with nothing but one list field."""
    fields: dict[str, Any] = {field: values}
    content: bytes = protos.TensorProto(**fields).SerializeToString()
    return content


def _strings(array: Array) -> list[bytes]:
    """Return the elements of an array as bytes; texts as UTF-8."""
    strings: list[Any] = array.reshape(-1).tolist()
    if all(type(string) is bytes for string in strings):
        return strings
    return [_as_bytes(string) for string in strings]


def _as_bytes(string: Any) -> bytes:
    if isinstance(string, bytes):
        return string
    if isinstance(string, str):
        return string.encode()
    raise InvalidArgument(f"not a tensor of string: it holds a {type(string).__name__}")


@lru_cache(maxsize=4096)
def _head(data_type: DataType, shape: tuple[int, ...]) -> bytes:
    """Return the fields `dtype` and `tensor_shape`, serialised."""
    dims = b""
    for size in shape:
        dim = b"\x08" + varint(size) if size else b""
        dims += b"\x12" + varint(len(dim)) + dim
    return b"\x08" + varint(data_type) + b"\x12" + varint(len(dims)) + dims


@lru_cache(maxsize=4096)
def _fixed_head(data_type: DataType, shape: tuple[int, ...]) -> bytes:
    """Return `_head` and what precedes the values, whose size follows from the shape."""
    form = FORMS[data_type]
    size = math.prod(shape) * form.dtype.itemsize
    values = varint(form.number << 3 | 2) + varint(size) if size else b""
    return _head(data_type, shape) + values


def _entry_head(alias: str, tensor_size: int) -> bytes:
    """Return what precedes a tensor that is an entry of `PredictResponse.outputs`."""
    key = alias.encode()
    front = b"\x0a" + varint(len(key)) + key + b"\x12" + varint(tensor_size)
    return b"\x0a" + varint(len(front) + tensor_size) + front


@lru_cache(maxsize=4096)
def _fixed_entry_head(alias: str, data_type: DataType, shape: tuple[int, ...]) -> bytes:
    head = _fixed_head(data_type, shape)
    size = math.prod(shape) * FORMS[data_type].dtype.itemsize
    return _entry_head(alias, len(head) + size) + head
