"""Checks that a `.tflite` file is whole, without TensorFlow.

It is a flatbuffer: tables with offsets to strings, vectors and other tables, written from its end
to its beginning. So a file that was cut off has an offset that leads out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias

FILE = "model.tflite"

_IDENTIFIER = b"TFL3"
_U16, _U32, _I32, _U64 = (struct.Struct(f"<{code}") for code in "HIiQ")


class _Part(Enum):
    BYTES = 1
    INTS = 4
    STRING = 5
    OUTSIDE = 6
    """The offset of bytes behind the flatbuffer; the next field is their number."""


_Fields: TypeAlias = "Mapping[int, _Part | _Fields]"
"""A table's fields that lead elsewhere, by number; what is itself a table is a vector of them."""

_OPERATOR_CODE: _Fields = {1: _Part.STRING}
_BUFFER: _Fields = {0: _Part.BYTES, 1: _Part.OUTSIDE}
_METADATA: _Fields = {0: _Part.STRING}
_TENSOR: _Fields = {0: _Part.INTS, 3: _Part.STRING, 7: _Part.INTS}
_OPERATOR: _Fields = {1: _Part.INTS, 2: _Part.INTS, 5: _Part.BYTES}
_TENSOR_MAP: _Fields = {0: _Part.STRING}
_SIGNATURE: _Fields = {0: _TENSOR_MAP, 1: _TENSOR_MAP, 2: _Part.STRING}
_SUBGRAPH: _Fields = {
    0: _TENSOR,
    1: _Part.INTS,
    2: _Part.INTS,
    3: _OPERATOR,
    4: _Part.STRING,
}
_MODEL: _Fields = {
    1: _OPERATOR_CODE,
    2: _SUBGRAPH,
    3: _Part.STRING,
    4: _BUFFER,
    5: _Part.INTS,
    6: _METADATA,
    7: _SIGNATURE,
}


class _OutOfFile(ValueError):
    pass


def find_damage(content: bytes) -> str | None:
    """Return why a file's content is no whole TF Lite model; None if it seems to be one."""
    if content[4:8] != _IDENTIFIER:
        return f"it does not begin as a TF Lite model does ({len(content)} bytes)"
    try:
        _table(content, _U32.unpack_from(content)[0], _MODEL)
    except (_OutOfFile, struct.error):
        return f"it ends before its model does ({len(content)} bytes)"
    return None


def _table(content: bytes, at: int, fields: _Fields) -> None:
    """Follow all that a table leads to; raises _OutOfFile or struct.error if that lies outside."""
    layout = at - _I32.unpack_from(content, at)[0]
    if layout < 0:
        raise _OutOfFile
    size = _U16.unpack_from(content, layout)[0]
    _check(content, layout + size)
    _check(content, at + _U16.unpack_from(content, layout + 2)[0])
    for number, part in fields.items():
        field = _field(content, at, layout, number)
        if field is None:
            continue
        if part is _Part.OUTSIDE:
            _outside(content, field, _field(content, at, layout, number + 1))
        else:
            _vector(content, field + _U32.unpack_from(content, field)[0], part)


def _field(content: bytes, at: int, layout: int, number: int) -> int | None:
    """Return where a field of a table lies; None if it is left out."""
    slot = 4 + 2 * number
    if slot + 2 > _U16.unpack_from(content, layout)[0]:
        return None
    offset = _U16.unpack_from(content, layout + slot)[0]
    return at + offset if offset else None


def _vector(content: bytes, at: int, part: _Part | _Fields) -> None:
    count = _U32.unpack_from(content, at)[0]
    start = at + 4
    match part:
        case _Part.BYTES:
            _check(content, start + count)
        case _Part.STRING:
            _check(content, start + count + 1)  # a zero ends it
        case _Part.INTS:
            _check(content, start + 4 * count)
        case Mapping():
            _check(content, start + 4 * count)
            for place in range(start, start + 4 * count, 4):
                _table(content, place + _U32.unpack_from(content, place)[0], part)


def _outside(content: bytes, offset: int, size: int | None) -> None:
    start = _U64.unpack_from(content, offset)[0]
    if start > 1 and size is not None:  # 1 stands for a place that is not known yet
        _check(content, start + _U64.unpack_from(content, size)[0])


def _check(content: bytes, end: int) -> None:
    if end > len(content):
        raise _OutOfFile
