"""`tensorflow.TensorProto` to numpy, by the rules of TensorFlow's own parser."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError

from servingd.errors import InvalidArgument
from servingd.wire import protos
from servingd.wire.tensors.types import BOOL, OBJECT, Form, form_of
from servingd.wire.varints import read_varint32

if TYPE_CHECKING:
    from servingd.wire.protos import InputTensor, TensorProto

Array: TypeAlias = np.ndarray[Any, Any]

MAX_PADDED_BYTES = 64 << 20
"""Bytes: a larger tensor must carry all its elements, as a few bytes could announce it."""

_FEW_TO_READ = 32
"""Elements: a list of protobuf's is read as one of Python's up to so many, since that is faster."""

_LONG_SHAPE = 256
"""Bytes: a longer serialised shape (with names of dimensions) is not cached."""


def decode(proto: TensorProto | InputTensor, alias: str) -> Array:
    """Return the array of `proto` or its twin, the value of input `alias`; read-only by contract.

    Numbers in `tensor_content` are not copied once more. A list that is too short repeats its last
    value, an empty one gives zeros, a long one is cut; a list of another type's is not looked at.

    Raises:
        InvalidArgument: `tensor parsing error: <alias>`: no such type, no valid shape, or content
            that does not fit it.
        Unimplemented: the type is not served here.
    """
    try:
        data_type, shape = proto.dtype, proto.tensor_shape
        if not isinstance(shape, bytes):  # it was parsed
            shape = shape.SerializeToString()
        # A layout is one of few: looking it up by its bytes is cheaper than reading its fields.
        known = len(shape) < _LONG_SHAPE
        layout = _layout(data_type, shape) if known else _read_layout(data_type, shape)
        form, sizes, count, nbytes = layout
        if count == 0:
            return np.empty(sizes, form.dtype)
        content = proto.tensor_content  # every reading of this attribute copies it
        if content:
            if nbytes:
                if len(content) != nbytes:
                    raise ValueError("tensor_content has not the size of the shape")
                return np.ndarray(sizes, form.dtype, content)
            flat = _from_looked_at_content(form, content, count)
        else:
            flat = _from_list(form, getattr(proto, form.field), count)
        return flat if len(sizes) == 1 else flat.reshape(sizes)
    except (InvalidArgument, ValueError, OverflowError, DecodeError) as error:
        raise InvalidArgument(f"tensor parsing error: {alias}") from error


class _Layout(NamedTuple):
    """What a tensor's type and shape say of it."""

    form: Form
    sizes: tuple[int, ...]
    elements: int
    nbytes: int
    """Of its content; 0 where content must be looked at, or there is none."""


def _read_layout(data_type: int, shape: bytes) -> _Layout:
    form = form_of(data_type)
    sizes, count = _parse_shape(shape)
    looked_at = form.dtype is OBJECT or form.dtype is BOOL
    return _Layout(form, sizes, count, 0 if looked_at else count * form.dtype.itemsize)


_layout = lru_cache(maxsize=4096)(_read_layout)


def _parse_shape(content: bytes) -> tuple[tuple[int, ...], int]:
    """Return the sizes of a serialised TensorShapeProto, and their product."""
    shape = protos.TensorShapeProto.FromString(content)
    sizes = tuple(dim.size for dim in shape.dim)
    if shape.unknown_rank or min(sizes, default=0) < 0:
        raise ValueError("no shape of a tensor")
    return sizes, math.prod(sizes)


def _from_looked_at_content(form: Form, content: bytes, count: int) -> Array:
    if form.dtype is OBJECT:
        return _objects(_split_strings(content, count))
    flat = np.frombuffer(content, form.dtype)
    if flat.size != count:
        raise ValueError("tensor_content has not the size of the shape")
    if flat.view(np.uint8).max() > 1:
        raise ValueError("a truth value is neither 0 nor 1")
    return flat


def _split_strings(content: bytes, count: int) -> list[bytes]:
    """Return the strings behind `count` lengths."""
    if count > len(content):
        raise ValueError("tensor_content is shorter than its lengths")
    lengths, position = [], 0
    for _ in range(count):
        length, position = read_varint32(content, position)
        lengths.append(length)
    if sum(lengths) != len(content) - position:
        raise ValueError("tensor_content has not the size of its lengths")
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    return strings


def _from_list(form: Form, values: Any, count: int) -> Array:
    flat: Array
    if form.dtype is OBJECT:
        flat = _objects(list(values))
    else:
        some = values[:] if len(values) <= _FEW_TO_READ else values
        # Integers that are too large for the type wrap around.
        flat = np.array(some, form.listed).astype(form.item, copy=False)
        if form.item is not form.dtype:
            flat = flat[: len(flat) // 2 * 2] if form.fixed else flat
            flat = flat.view(form.dtype)
    missing = count - len(flat)
    return _padded(flat, count) if missing > 0 else flat if missing == 0 else flat[:count]


def _padded(flat: Array, count: int) -> Array:
    if count * flat.itemsize > MAX_PADDED_BYTES:
        raise ValueError("most elements of a large tensor are missing")
    zero = b"" if flat.dtype is OBJECT else flat.dtype.type(0)
    padded = np.full(count, flat[-1] if len(flat) else zero, flat.dtype)
    padded[: len(flat)] = flat
    return padded


def _objects(strings: list[bytes]) -> Array:
    flat = np.empty(len(strings), object)
    flat[:] = strings
    return flat
