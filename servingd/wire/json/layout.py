"""Arrays as JSON text in TensorFlow Serving's two layouts: on one line, or a line per element.

Numbers are written in C, and laid out by replacing what stands between them.
"""

from __future__ import annotations

import binascii
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from servingd.core.types import DataType
from servingd.errors import InvalidArgument
from servingd.wire.json.lists import Array, to_bytes
from servingd.wire.tensors.types import numpy_dtype, type_name

_PIECE = 32 << 10
"""Elements written at a time: the interpreter lock is held meanwhile."""

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_HALVES = (DataType.HALF, DataType.BFLOAT16)
"""Types that are written as floats."""
_FLOATS = (DataType.FLOAT, DataType.DOUBLE, *_HALVES)
_DTYPES = {
    data_type: numpy_dtype(data_type)
    for data_type in (
        *_FLOATS,
        DataType.INT32,
        DataType.INT16,
        DataType.INT8,
        DataType.UINT8,
        DataType.INT64,
        DataType.UINT32,
        DataType.UINT64,
        DataType.BOOL,
        DataType.STRING,
    )
}

_NAN, _INFINITY, _MINUS_INFINITY = 0, 1, 2
_NOT_FINITE = np.array([b"NaN", b"Infinity", b"-Infinity"], object)

# Bytes that JSON has nowhere; one for each dimension.
_PLACES = [bytes((128 + depth,)) for depth in range(64)]

_ESCAPED = re.compile(rb'["\\\x00-\x1f]')
_TO_ESCAPE = b'"\\' + bytes(range(32))
_SHORT_ESCAPES = {
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\b": b"\\b",
    b"\f": b"\\f",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
}


def line(depth: int) -> bytes:
    """Return a line feed and the indentation of a depth."""
    return b"\n" + b"    " * depth


def quoted(text: bytes) -> bytes:
    """Return bytes as a JSON string; only what must be escaped is."""
    if _ESCAPED.search(text):
        text = _ESCAPED.sub(_escape, text)
    return b'"%b"' % text


def quoted_text(text: str) -> bytes:
    """Return a text as a JSON string; surrogate escapes become the bytes that they stand for."""
    try:
        return quoted(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return quoted(text.encode("utf-8", "replace"))


def _escape(found: re.Match[bytes]) -> bytes:
    character = found.group()
    return _SHORT_ESCAPES.get(character) or b"\\u%04X" % ord(character)


def on_one_line(
    value: Any,
    data_type: DataType,
    as_base64: bool,
    depth: int,
    *,
    before: bytes = b"",
    after: bytes = b"]",
) -> bytes:
    """Write an array on one line, its elements separated by a comma and a blank.

    Args:
        value: an array, or what numpy makes one of.
        data_type: what it is to be.
        as_base64: strings become objects, which are never on one line.
        depth: how many lists and objects are around it.
        before: what comes first; with `after`, it spares a large text's copy.
        after: what comes in the place of a list's closing bracket.

    Raises:
        InvalidArgument: JSON has no values of `data_type`, or it is not what `value` is.
    """
    array = _as_array(value, data_type)
    if data_type is DataType.STRING:
        text = _joined(_strings(array, as_base64, depth + array.ndim), array.shape, None)
        return before + text[:-1] + after
    return _numbers(array, data_type, b", ", before, after)


def on_lines(
    value: Any,
    data_type: DataType,
    as_base64: bool,
    depth: int,
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Write an array with every element of every list on its own line; then `after`."""
    array = _as_array(value, data_type)
    if data_type is DataType.STRING:
        text = _joined(_strings(array, as_base64, depth + array.ndim), array.shape, depth)
    elif array.size == 0:
        text = _joined([], array.shape, depth)
    elif array.ndim == 0:
        text = _small_numbers(array.reshape(1), data_type)[1:-1]
    elif array.size <= _PIECE:
        text = _spread(_small_numbers(array, data_type), array.ndim, depth)
    else:
        return _large_on_lines(array, data_type, depth, before, after)
    return before + text + after


def _large_on_lines(
    array: Array, data_type: DataType, depth: int, before: bytes, after: bytes
) -> bytes:
    start, end = b"[" + line(depth + 1), line(depth) + b"]"
    rows = _rows_of_a_piece(array)
    texts = []
    for part in _parts(array, rows):
        if rows == 1 and array.ndim > 1:
            texts.append(on_lines(part[0], data_type, False, depth + 1))
        else:
            text = _spread(_small_numbers(part, data_type), array.ndim, depth)
            texts.append(text[len(start) : -len(end)])
    texts[0] = before + start + texts[0]
    texts[-1] += end + after
    return (b"," + line(depth + 1)).join(texts)


def rows_on_lines(value: Any, data_type: DataType, as_base64: bool, depth: int) -> list[bytes]:
    """Write each row of an array on one line; arguments and errors as in `on_one_line`."""
    array = _as_array(value, data_type)
    if len(array) == 0:
        return []
    inner = array.ndim - 1
    if data_type is DataType.STRING:
        strings = _strings(array, as_base64, depth + inner)
        size = len(strings) // len(array)
        return [
            _joined(strings[start : start + size], array.shape[1:], None)
            for start in range(0, len(strings), size or 1)
        ] or [_joined([], array.shape[1:], None)] * len(array)
    if array.size == 0:
        return [_joined([], array.shape[1:], None)] * len(array)
    size = _rows_of_a_piece(array)
    if size < len(array):
        return [
            row
            for part in _parts(array, size)
            for row in rows_on_lines(part, data_type, as_base64, depth)
        ]
    opening, closing = b"[" * inner, b"]" * inner
    text = _numbers(array, data_type, b", ")
    rows = text[1 + inner : -1 - inner].split(closing + b", " + opening)
    return [opening + row + closing for row in rows] if inner else rows


def _as_array(value: Any, data_type: DataType) -> Array:
    """Return `value` as an array of its type, in C order and aligned."""
    dtype = _DTYPES.get(data_type)
    if dtype is None:
        raise InvalidArgument(f"Failed to write JSON value for tensor type: {type_name(data_type)}")
    try:
        array = np.asarray(value, dtype, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"not a tensor of {type_name(data_type)}: {error}") from error
    if data_type in _HALVES:
        return array.astype(np.float32)
    return array if array.flags.aligned else array.copy()


def _rows_of_a_piece(array: Array) -> int:
    """Return how many rows of a non-empty array are written at a time."""
    return max(1, _PIECE * len(array) // max(1, array.size))


def _parts(array: Array, rows: int) -> Iterator[Array]:
    for at in range(0, len(array), rows):
        yield array[at : at + rows]
        time.sleep(0)  # whoever waits for the interpreter has it now


def _numbers(
    array: Array, data_type: DataType, comma: bytes = b",", before: bytes = b"", after: bytes = b"]"
) -> bytes:
    """Write numbers without white space but what `comma` has; many of them in pieces."""
    if array.size <= _PIECE:
        text = _small_numbers(array, data_type)
        if comma != b",":
            text = text.replace(b",", comma)
        return before + text[:-1] + after
    rows = _rows_of_a_piece(array)
    texts = [
        _numbers(part[0], data_type, comma)
        if rows == 1 and array.ndim > 1
        else _numbers(part, data_type, comma)[1:-1]
        for part in _parts(array, rows)
    ]
    texts[0] = before + b"[" + texts[0]
    texts[-1] += after
    return comma.join(texts)  # without the interpreter, where it is much


def _small_numbers(array: Array, data_type: DataType) -> bytes:
    text = orjson.dumps(array, option=_NUMPY)
    if data_type in _FLOATS and b"n" in text:
        return _with_not_finite(text, array)
    return text


def _with_not_finite(text: bytes, array: Array) -> bytes:
    """Replace each `null` in `text` by the word for the number that is not finite."""
    odd = array[~np.isfinite(array)]
    kinds = np.where(np.isnan(odd), _NAN, np.where(odd > 0, _INFINITY, _MINUS_INFINITY))
    parts: list[bytes] = [b""] * (2 * odd.size + 1)
    parts[::2] = text.split(b"null")
    parts[1::2] = _NOT_FINITE[kinds].tolist()
    return b"".join(parts)


def _spread(text: bytes, rank: int, depth: int) -> bytes:
    """Put every element of a nested list without empty lists on its own line."""
    separators = []
    for outer in range(rank - 1):
        inner = rank - 1 - outer
        place = _PLACES[outer]
        text = text.replace(b"]" * inner + b"," + b"[" * inner, place)
        closing = b"".join(line(depth + rank - i) + b"]" for i in range(1, inner + 1))
        opening = _openings(depth + outer + 1, inner)
        separators.append((place, closing + b"," + line(depth + outer + 1) + opening))
    text = text.replace(b",", b"," + line(depth + rank))
    for place, separator in separators:
        text = text.replace(place, separator)
    end = b"".join(line(depth + rank - i) + b"]" for i in range(1, rank + 1))
    return _openings(depth, rank) + text[rank:-rank] + end


def _openings(depth: int, count: int) -> bytes:
    return b"".join(b"[" + line(depth + i) for i in range(1, count + 1))


def _joined(tokens: list[bytes], shape: tuple[int, ...], depth: int | None) -> bytes:
    """Write a nested list of tokens: on one line, or on lines if its depth is given."""
    lists = tokens
    count = 1
    counts = [count := count * size for size in (1, *shape)]
    for level in reversed(range(len(shape))):
        size = shape[level]
        first, last, separator = b"[", b"]", b", "
        if depth is not None and size:
            separator = line(depth + level + 1)
            first, last, separator = b"[" + separator, line(depth + level) + b"]", b"," + separator
        lists = [
            first + separator.join(lists[i * size : (i + 1) * size]) + last
            for i in range(counts[level])
        ]
    return lists[0]


def _strings(array: Array, as_base64: bool, depth: int) -> list[bytes]:
    """Return the JSON texts of an array's strings."""
    values = array.reshape(-1).tolist()
    strings = values if set(map(type, values)) == {bytes} else list(map(_as_bytes, values))
    if not as_base64:
        if _need_escapes(strings):
            return [quoted(string) for string in strings]
        return [b'"%b"' % string for string in strings]
    form = b"{" + line(depth + 1) + b'"b64": "%b"' + line(depth) + b"}"
    return [form % binascii.b2a_base64(string, newline=False) for string in strings]


def _need_escapes(strings: list[bytes]) -> bool:
    """Return whether a character of any string must be escaped.

    `translate` looks at a byte in the tenth part of the time that a regular expression takes.
    """
    if len(strings) == 1:
        (text,) = strings
    else:
        text = b"".join(strings)
    return len(text.translate(None, _TO_ESCAPE)) != len(text)


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes | str):
        return to_bytes(value)
    raise InvalidArgument(f"not a tensor of string: it holds a {type(value).__name__}")
