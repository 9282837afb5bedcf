"""`tensorflow.TensorProto` to numpy and back, by the rules of TensorFlow's own parser.

Values are written by hand, not through messages: the head of a tensor is cached per type and shape,
and the elements go from the array to the reply in one copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
from google.protobuf.message import DecodeError

from servingd.core.types import DataType, Tensors, TensorSpec
from servingd.errors import InvalidArgument, Unimplemented
from servingd.wire import protos
from servingd.wire.varints import read_varint32, varint, varints

if TYPE_CHECKING:
    from servingd.wire.protos import InputTensor, TensorProto

Array: TypeAlias = np.ndarray[Any, Any]
# `bytes`, or an array: what bytes.join takes.
_Part: TypeAlias = Any

MAX_PADDED_BYTES = 64 << 20
"""Bytes: a larger tensor must carry all its elements, as a few bytes could announce it."""

# Up to so many numbers, it is faster to write integers by protobuf than by numpy, and to read a
# list of protobuf's as a list of Python's.
_FEW_TO_WRITE = 512
_FEW_TO_READ = 32

_LONG_SHAPE = 256
"""Bytes: a longer serialised shape (with names of dimensions) is not cached."""

_BOOL = np.dtype(bool)
_OBJECT = np.dtype(object)
_CONTENT_TAG = b"\x22"


@dataclass(frozen=True, slots=True)
class _Form:
    """How elements of one type travel: the list field's name and number, and two dtypes.

    `listed` is what the list field holds; `item` is what the array is made of when it goes into
    the list or comes from it (bit patterns of halves, parts of complex numbers). The list of a type
    that is `fixed` is its memory (a truth value is a varint of one byte), that of another consists
    of varints.
    """

    dtype: np.dtype[Any]
    field: str
    number: int
    listed: np.dtype[Any]
    item: np.dtype[Any]
    fixed: bool


def _form(
    dtype: Any, field: str, number: int, listed: Any = None, item: Any = None, fixed: bool = False
) -> _Form:
    dtype = np.dtype(dtype)
    item = dtype if item is None else np.dtype(item)
    return _Form(dtype, field, number, item if listed is None else np.dtype(listed), item, fixed)


_FORMS: dict[int, _Form] = {
    DataType.FLOAT: _form("<f4", "float_val", 5, fixed=True),
    DataType.DOUBLE: _form("<f8", "double_val", 6, fixed=True),
    DataType.INT32: _form("<i4", "int_val", 7),
    DataType.INT16: _form("<i2", "int_val", 7, listed="<i4"),
    DataType.INT8: _form("i1", "int_val", 7, listed="<i4"),
    DataType.UINT16: _form("<u2", "int_val", 7, listed="<i4"),
    DataType.UINT8: _form("u1", "int_val", 7, listed="<i4"),
    DataType.STRING: _form(object, "string_val", 8),
    DataType.COMPLEX64: _form("<c8", "scomplex_val", 9, item="<f4", fixed=True),
    DataType.INT64: _form("<i8", "int64_val", 10),
    DataType.BOOL: _form("?", "bool_val", 11, fixed=True),
    DataType.COMPLEX128: _form("<c16", "dcomplex_val", 12, item="<f8", fixed=True),
    DataType.HALF: _form("<f2", "half_val", 13, listed="<i4", item="<u2"),
    DataType.BFLOAT16: _form(ml_dtypes.bfloat16, "half_val", 13, listed="<i4", item="<u2"),
    DataType.UINT32: _form("<u4", "uint32_val", 16),
    DataType.UINT64: _form("<u8", "uint64_val", 17),
}
_KNOWN = frozenset(map(int, DataType))
_DATA_TYPES = {form.dtype: DataType(number) for number, form in _FORMS.items()}


def numpy_dtype(data_type: DataType) -> np.dtype[Any]:
    """Return the dtype of arrays of `data_type`; strings are objects (`bytes`).

    Raises:
        InvalidArgument: it is INVALID, or no number of a type.
        Unimplemented: it is a type that is not served here (quantised, 8 bits and less, handles).
    """
    return _form_of(data_type).dtype


def data_type_of(dtype: np.dtype[Any]) -> DataType:
    """Return the type of arrays of `dtype`, in any byte order; texts and objects are STRING.

    Raises:
        Unimplemented: there is none.
    """
    if dtype.kind in "OSU":
        return DataType.STRING
    found = _DATA_TYPES.get(dtype.newbyteorder("<"))
    if found is None:
        raise Unimplemented(f"arrays of {dtype} are not served")
    return found


def fixed_list_field(data_type: int) -> int | None:
    """The number of the list field whose packed bytes are the array's memory; None: there is none.

    Bytes of such a list may be any; those of a truth value may not, and it has none.
    """
    form = _FORMS.get(data_type)
    return form.number if form is not None and form.fixed and form.dtype is not _BOOL else None


def type_name(data_type: int) -> str:
    """Return TensorFlow's name of a type in error texts: `float`; also for an unknown number."""
    try:
        return DataType(data_type).name.lower()
    except ValueError:
        return f"unknown dtype enum ({data_type})"


def _form_of(data_type: int) -> _Form:
    form = _FORMS.get(data_type)
    if form is not None:
        return form
    if data_type not in _KNOWN or data_type == DataType.INVALID:
        raise InvalidArgument(f"{type_name(data_type)} is not a type of tensors")
    raise Unimplemented(f"tensors of type {type_name(data_type)} are not served")


# ---- from the wire


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

    form: _Form
    sizes: tuple[int, ...]
    elements: int
    nbytes: int
    """Of its content; 0 where content must be looked at, or there is none."""


def _read_layout(data_type: int, shape: bytes) -> _Layout:
    form = _form_of(data_type)
    sizes, count = _parse_shape(shape)
    looked_at = form.dtype is _OBJECT or form.dtype is _BOOL
    return _Layout(form, sizes, count, 0 if looked_at else count * form.dtype.itemsize)


_layout = lru_cache(maxsize=4096)(_read_layout)


def _parse_shape(content: bytes) -> tuple[tuple[int, ...], int]:
    """Return the sizes of a serialised TensorShapeProto, and their product."""
    shape = protos.TensorShapeProto.FromString(content)
    sizes = tuple(dim.size for dim in shape.dim)
    if shape.unknown_rank or min(sizes, default=0) < 0:
        raise ValueError("no shape of a tensor")
    return sizes, math.prod(sizes)


def _from_looked_at_content(form: _Form, content: bytes, count: int) -> Array:
    if form.dtype is _OBJECT:
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


def _from_list(form: _Form, values: Any, count: int) -> Array:
    flat: Array
    if form.dtype is _OBJECT:
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
    zero = b"" if flat.dtype is _OBJECT else flat.dtype.type(0)
    padded = np.full(count, flat[-1] if len(flat) else zero, flat.dtype)
    padded[: len(flat)] = flat
    return padded


def _objects(strings: list[bytes]) -> Array:
    flat = np.empty(len(strings), object)
    flat[:] = strings
    return flat


# ---- to the wire


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
        parts.append(_entry_head(alias, sum(map(_byte_size, tensor))))
        parts += tensor
    parts.append(tail)
    return b"".join(parts)


def _prepared(array: Any, data_type: DataType) -> tuple[Array, _Form]:
    """Return an array of `data_type`, in C order."""
    form = _FORMS.get(data_type) or _form_of(data_type)
    try:
        return np.asarray(array, form.dtype, order="C"), form
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"not a tensor of {type_name(data_type)}: {error}") from error


def _byte_size(part: _Part) -> int:
    return part.nbytes if isinstance(part, np.ndarray) else len(part)


def _list_parts(array: Array, form: _Form, data_type: DataType) -> tuple[_Part, ...]:
    """Return a TensorProto in parts, its values in the list field."""
    if form.fixed:
        return _fixed_head(data_type, array.shape), array
    head = _head(data_type, array.shape)
    if array.size == 0:
        return (head,)
    if form.dtype is _OBJECT:
        return head, _message(form.field, _strings(array))
    numbers = array.reshape(-1).view(form.item)
    if numbers.size <= _FEW_TO_WRITE:
        return head, _message(form.field, numbers.tolist())
    packed = varints(numbers)
    return head, varint(form.number << 3 | 2), varint(len(packed)), packed


def _content_parts(array: Array, form: _Form, data_type: DataType) -> tuple[_Part, ...]:
    """Return a TensorProto in parts, its values in `tensor_content`."""
    head = _head(data_type, array.shape)
    if array.size == 0:
        return (head,)
    if form.dtype is _OBJECT:
        strings = _strings(array)
        content = b"".join((*(varint(len(string)) for string in strings), *strings))
        return head, _CONTENT_TAG, varint(len(content)), content
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
    form = _FORMS[data_type]
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
    size = math.prod(shape) * _FORMS[data_type].dtype.itemsize
    return _entry_head(alias, len(head) + size) + head
