"""Large bodies that are numbers and little else, read in C; None for any other body.

The parser gives the numbers of nested lists, but not where the lists begin and end. So the text,
without what numbers and white space consist of, must be what the first row's shapes make of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import orjson
import simdjson

from servingd.core.types import DataType, TensorSpec
from servingd.wire.json.lists import MAX_RANK, Array
from servingd.wire.json.pieces import Pieces, Unfit
from servingd.wire.json.text import parse
from servingd.wire.tensors.types import numpy_dtype

_WS = "[ \t\r\n]*"
_NAME = f'"signature_name"{_WS}:{_WS}"([^"\\\\\\x00-\\x1f]*)"'
_FIRST_MEMBER = f'\\{{{_WS}"[^"\\\\]*"{_WS}:{_WS}[\\[\\-0-9]'
# Then a list that begins with a number, or an object that begins with numbers, or a list of those.
_FRONT = re.compile(
    f'{_WS}\\{{{_WS}(?:{_NAME}{_WS},{_WS})?"(instances|inputs)"{_WS}:{_WS}'
    f"(?=\\[[\\[ \t\r\n]*[-0-9]|\\[{_WS}{_FIRST_MEMBER}|({_FIRST_MEMBER}))".encode()
)
# Of a body that is read in pieces: the same, whatever the elements are.
_LARGE_FRONT = re.compile(
    f'{_WS}\\{{{_WS}(?:{_NAME}{_WS},{_WS})?"(instances|inputs)"{_WS}:{_WS}(?=[\\[{{])'.encode()
)
_LARGE_BACK = re.compile(f"{_WS}(?:,{_WS}{_NAME}{_WS})?\\}}{_WS}".encode())
_LAST_NAME = re.compile(f",{_WS}{_NAME}{_WS}\\}}{_WS}\\Z".encode())
_END_BYTES = 4096
"""Bytes at the end of a large body in which its signature's name is searched."""

# What stands behind the last list.
_BACK = re.compile(f"({_WS}\\}})??{_WS}(?:,{_WS}{_NAME}{_WS})?\\}}{_WS}".encode())

_OBJECT = ord("{")

_NUMERIC = b"0123456789.eE+- \t\r\n"


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the parser reads numbers of one type: its own type, and what the numbers may be."""

    kind: str
    read: np.dtype[Any]
    dtype: np.dtype[Any]
    lowest: int
    highest: int


def _reading(data_type: DataType, kind: str, lowest: int = 0, highest: int = 0) -> _Reading:
    read = np.dtype({"d": "f8", "i": "i8", "u": "u8"}[kind])
    return _Reading(kind, read, numpy_dtype(data_type), lowest, highest)


_INT32 = (-(2**31), 2**31 - 1)

# No limits: those of the parser's type. Small integers wrap around.
_READINGS = {
    DataType.FLOAT: _reading(DataType.FLOAT, "d"),
    DataType.DOUBLE: _reading(DataType.DOUBLE, "d"),
    DataType.HALF: _reading(DataType.HALF, "d"),
    DataType.BFLOAT16: _reading(DataType.BFLOAT16, "d"),
    DataType.INT32: _reading(DataType.INT32, "i", *_INT32),
    DataType.INT16: _reading(DataType.INT16, "i", *_INT32),
    DataType.INT8: _reading(DataType.INT8, "i", *_INT32),
    DataType.UINT8: _reading(DataType.UINT8, "i", *_INT32),
    DataType.INT64: _reading(DataType.INT64, "i"),
    DataType.UINT32: _reading(DataType.UINT32, "i", 0, 2**32 - 1),
    DataType.UINT64: _reading(DataType.UINT64, "u"),
}


class NumericBody:
    """A predict request that is valid JSON and seems to hold numbers alone."""

    __slots__ = ("_text", "_value", "columnar", "signature_name")

    def __init__(self, signature_name: str, columnar: bool, text: bytes, value: Any) -> None:
        self.signature_name = signature_name
        self.columnar = columnar
        self._text = text  # of `instances` or `inputs`
        self._value = value

    def inputs(self, specs: Mapping[str, TensorSpec]) -> dict[str, Array] | None:
        """Return the tensors by alias; None unless all are regular lists of the right types."""
        readings = {alias: _READINGS.get(spec.data_type) for alias, spec in specs.items()}
        value, text = self._value, self._text
        try:
            with np.errstate(over="ignore"):
                if type(value) is simdjson.Object:
                    return _columns(value, readings, text) if self.columnar else None
                if type(value[0]) is not simdjson.Object:
                    return _plain(value, readings, text)
                return None if self.columnar else _rows(value[0], readings, text)
        except (_Unfit, IndexError, TypeError, ValueError):  # the parser's words for what is unfit
            return None


class LargeBody:
    """A large predict request that seems regular; it is read once the signature is known."""

    __slots__ = ("_at", "_body", "columnar", "signature_name")

    def __init__(self, body: bytes, signature_name: str, columnar: bool, at: int) -> None:
        self.signature_name = signature_name
        self.columnar = columnar
        self._body = body
        self._at = at  # where `instances` or `inputs` begins

    def inputs(self, specs: Mapping[str, TensorSpec]) -> dict[str, Array] | None:
        """Return the tensors by alias; None unless all are regular lists of the right types."""
        body, at = self._body, self._at
        pieces = Pieces(body, parse, read_list)
        try:
            if body[at] == _OBJECT:
                found, end = pieces.members(at, specs) if self.columnar else _unfit()
            elif not self.columnar and body[pieces.skip(at + 1)] == _OBJECT:
                found, end = pieces.rows(at, specs)
            else:
                ((alias, spec),) = specs.items()
                array, end = pieces.array(at, spec.data_type)
                found = {alias: array}
        except (Unfit, ValueError, IndexError):
            return None
        return found if self._ends(end) else None

    def _ends(self, at: int) -> bool:
        """Return whether nothing follows but the signature's name."""
        if len(self._body) - at > _END_BYTES:
            return False
        back = _LARGE_BACK.fullmatch(self._body, at)
        if not back:
            return False
        return back[1] is None or _text(back[1]) == self.signature_name


def read_large(body: bytes) -> LargeBody | None:
    """Return `body` as a LargeBody; None unless it begins as one."""
    front = _LARGE_FRONT.match(body, 0, _END_BYTES)
    if not front:
        return None
    last = _LAST_NAME.search(body, len(body) - _END_BYTES)
    if front[1] is not None and last:
        return None
    name = front[1] or (last[1] if last else b"")
    return LargeBody(body, _text(name), front[2] == b"inputs", front.end())


def read_list(text: bytes, data_type: DataType) -> Array | None:
    """Read a regular list of numbers of one type; None if it is anything else."""
    try:
        with np.errstate(over="ignore"):
            found = _plain(simdjson.Parser().parse(text), {"": _READINGS.get(data_type)}, text)
    except (_Unfit, IndexError, TypeError, ValueError, RuntimeError):
        return None
    return None if found is None else found[""]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _unfit() -> NoReturn:
    raise Unfit


class _Unfit(Exception):
    """Not regular, or not numbers of the right type."""


def read_numeric(body: bytes) -> NumericBody | None:
    """Return `body` as a NumericBody; None if it is none."""
    front = _FRONT.match(body)
    if not front:
        return None
    end = body.rfind(b"]") + 1
    back = _BACK.fullmatch(body, end)
    if not back or (back[1] is None) is not (front[3] is None):
        return None
    text = body[front.end() : end if back[1] is None else back.end(1)]
    try:
        value: Any = simdjson.Parser().parse(text)
    except (ValueError, RuntimeError):
        return None
    name = front[1] if front[1] is not None else back[2] or b""
    return NumericBody(_text(name), front[2] == b"inputs", text, value)


def _plain(
    value: Any, readings: Mapping[str, _Reading | None], text: bytes
) -> dict[str, Array] | None:
    """Return a nested list of numbers as the tensor of the only input."""
    if len(readings) > 1:
        return None
    ((alias, reading),) = readings.items()
    shape = _shape(value)
    skeleton = text.translate(None, _NUMERIC)
    if reading is None or skeleton != _skeleton(shape, len(skeleton)):
        return None
    buffer = value.as_buffer(of_type=reading.kind)
    return {alias: _array(np.frombuffer(buffer, reading.read), reading, shape)}


def _columns(
    columns: Any, readings: Mapping[str, _Reading | None], text: bytes
) -> dict[str, Array] | None:
    """Return the tensors of an object whose members are lists of numbers."""
    shapes = _shapes(columns, readings)
    skeleton = text.translate(None, _NUMERIC)
    if shapes is None or skeleton != _object_skeleton(shapes, len(skeleton)):
        return None
    found = {}
    for alias, reading in readings.items():
        if reading is None or not shapes[alias]:
            return None
        buffer = columns[alias].as_buffer(of_type=reading.kind)
        found[alias] = _array(np.frombuffer(buffer, reading.read), reading, shapes[alias])
    return found


_KINDS = {"d": "fiu", "i": "i", "u": "iu"}
"""Kinds of numpy's that Python's numbers may become, by the parser's type."""


def _rows(
    first: Any, readings: Mapping[str, _Reading | None], text: bytes
) -> dict[str, Array] | None:
    """Return the tensors of a list of objects with the same members in the same order.

    They are read as Python's objects, column by column: to ask the parser for the numbers of each
    member of each row takes three times as long.
    """
    shapes = _shapes(first, readings)
    skeleton = text.translate(None, _NUMERIC)
    if shapes is None:
        return None
    row = _object_skeleton(shapes, len(skeleton))
    count = (len(skeleton) - 1) // (len(row) + 1)
    if skeleton != _list(row, count, len(skeleton)):
        return None
    rows, keys = orjson.loads(text), list(shapes)
    # Names may be told apart by digits only, so that the skeleton does not show another order.
    if len(rows) != count or any(list(row) != keys for row in rows):
        return None
    found = {}
    for alias, reading in readings.items():
        if reading is None:
            return None
        column = [row[alias] for row in rows]
        if len(shapes[alias]) == 1:  # an array of lists takes three times as long
            column = list(chain.from_iterable(column))
        numbers = np.array(column)
        if numbers.dtype.kind not in _KINDS[reading.kind]:
            return None
        if reading.kind == "d":  # integers become doubles first, as everywhere: it rounds twice
            numbers = numbers.astype(reading.read, copy=False)
        found[alias] = _array(numbers, reading, (count, *shapes[alias]))
    return found


def _shapes(
    members: Any, readings: Mapping[str, _Reading | None]
) -> dict[str, tuple[int, ...]] | None:
    """Return the shape of each member of an object; None unless these are the inputs."""
    keys = list(members)
    if len(keys) != len(readings) or set(keys) != readings.keys():
        return None
    return {key: _shape(members[key]) for key in keys}


def _shape(value: Any) -> tuple[int, ...]:
    """Return the shape that the first elements announce."""
    shape: list[int] = []
    while type(value) is simdjson.Array and len(shape) < MAX_RANK:
        shape.append(len(value))
        value = value[0]
    return tuple(shape)


def _skeleton(shape: tuple[int, ...], limit: int) -> bytes:
    """Return the text of a nested list without its numbers."""
    text = b""
    for size in reversed(shape):
        text = _list(text, size, limit)
    return text


def _object_skeleton(shapes: Mapping[str, tuple[int, ...]], limit: int) -> bytes:
    members = [
        b'"%s":%s' % (key.encode().translate(None, _NUMERIC), _skeleton(shape, limit))
        for key, shape in shapes.items()
    ]
    return b"{%s}" % b",".join(members)


def _list(element: bytes, size: int, limit: int) -> bytes:
    if size * len(element) > limit:
        raise _Unfit  # a short text can announce a huge list
    return b"[%s]" % b",".join([element] * size)


def _array(numbers: Array, reading: _Reading, shape: tuple[int, ...]) -> Array:
    if numbers.size != math.prod(shape):
        raise _Unfit  # a list of one number, and one of none: their skeleton is the same
    if reading.kind == "u" and numbers.dtype.kind == "i" and numbers.min() < 0:
        raise _Unfit
    if reading.highest and not reading.lowest <= numbers.min() <= numbers.max() <= reading.highest:
        raise _Unfit
    return numbers.astype(reading.dtype, copy=False).reshape(shape)
