"""Large documents, read in pieces: between two of them every other thread may have the interpreter.

A parser in C holds the interpreter from a text's beginning to its end: seconds for a hundred
megabytes. Here it is given a run of whole elements of a list, or members of an object, at a time;
what is larger than a piece is entered. Whatever does not fit is `Unfit`, and read another way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson

from servingd.core.callbacks import nothing
from servingd.core.types import DataType, TensorSpec
from servingd.errors import InvalidArgument
from servingd.wire.json.lists import Array, regular_array

LARGE_BYTES = 1 << 20
"""Bytes from which on a document is read in pieces."""

_PIECE_BYTES = 128 << 10
_SPACE_BYTES = 1 << 20
_MAX_DEPTH = 64

_SPACE = re.compile(rb"[ \t\r\n]*+")
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_KEY = re.compile(rb'"([^"\\\x00-\x1f]{0,1024})"[ \t\r\n]*+:')

_QUOTE, _COMMA, _LIST, _LIST_END, _OBJECT, _OBJECT_END = b'",[]{}'
_STEPS = np.zeros(256, np.int8)
_STEPS[[_LIST, _OBJECT]] = 1
_STEPS[[_LIST_END, _OBJECT_END]] = -1


class Unfit(Exception):
    """The document is broken, or not of the expected form."""


class Pieces:
    """One reading of one document."""

    def __init__(
        self,
        body: bytes,
        parse: Callable[[bytes], Any],
        read_plain: Callable[[bytes, DataType], Array | None] = nothing,
    ) -> None:
        """`parse` reads one small text; raises InvalidArgument.

        `read_plain` reads a list of numbers, and returns None if it is something else.
        """
        self._body = body
        self._parse = parse
        self._read_plain = read_plain

    # Documents ------------------------------------------------------------------------------------

    def document(self) -> Any:
        """Return the first value, as the parser of small texts would read it. Raises Unfit."""
        return self._value(0, 0)[0]

    def _value(self, at: int, depth: int) -> tuple[Any, int]:
        """Return the value at a place, and where it ends."""
        at = self.skip(at)
        head = self._at(at)
        if depth > _MAX_DEPTH:
            raise Unfit
        if head == _LIST:
            return self._list(at, depth)
        if head == _OBJECT:
            return self._object(at, depth)
        if head == _QUOTE:
            return self._text(at)
        raise Unfit

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []

        def enter(at: int) -> int:
            value, end = self._value(at, depth + 1)
            found.append(value)
            return end

        end = self._walk(at, _LIST_END, lambda p: found.extend(self._small(b"[%b]" % p)), enter)
        return found, end

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}

        def take(piece: bytes) -> None:
            for key, value in self._small(b"{%b}" % piece).items():
                found.setdefault(key, value)

        def enter(at: int) -> int:
            key, at = self._key(at)
            value, end = self._value(at, depth + 1)
            found.setdefault(key, value)
            return end

        return found, self._walk(at, _OBJECT_END, take, enter)

    # Tensors --------------------------------------------------------------------------------------

    def array(self, at: int, data_type: DataType, depth: int = 0) -> tuple[Array, int]:
        """Return the regular list at a place, and where it ends. Raises Unfit."""
        if self._at(at) != _LIST or depth > _MAX_DEPTH - 2:
            raise Unfit
        parts: list[Array] = []

        def take(piece: bytes) -> None:
            text = b"[%b]" % piece
            array = self._read_plain(text, data_type)
            parts.append(self._regular(self._small(text), data_type) if array is None else array)

        def enter(at: int) -> int:
            array, end = self._element(at, data_type, depth + 1)
            parts.append(array)
            return end

        end = self._walk(at, _LIST_END, take, enter)
        return _joined(parts), end

    def _element(self, at: int, data_type: DataType, depth: int) -> tuple[Array, int]:
        """Return one large element, as a list of one."""
        if self._at(at) == _QUOTE:
            text, end = self._text(at)
            return self._regular([text], data_type), end
        array, end = self.array(at, data_type, depth)
        return array[np.newaxis], end

    def rows(self, at: int, specs: Mapping[str, TensorSpec]) -> tuple[dict[str, Array], int]:
        """Return a list of objects, by member, and where it ends. Raises Unfit."""
        parts: dict[str, list[Array]] = {alias: [] for alias in specs}

        def take(piece: bytes) -> None:
            found = self._small(b"[%b]" % piece)
            if not all(type(row) is dict and row.keys() == specs.keys() for row in found):
                raise Unfit
            for alias, spec in specs.items():
                parts[alias].append(self._regular([r[alias] for r in found], spec.data_type))

        def enter(at: int) -> int:
            row, end = self.members(at, specs)
            for alias, array in row.items():
                parts[alias].append(array[np.newaxis])
            return end

        end = self._walk(at, _LIST_END, take, enter)
        return {alias: _joined(of) for alias, of in parts.items()}, end

    def members(self, at: int, specs: Mapping[str, TensorSpec]) -> tuple[dict[str, Array], int]:
        """Return an object's tensors, one for each of `specs`, and its end. Raises Unfit."""
        found: dict[str, Array] = {}
        if self._at(at) != _OBJECT:
            raise Unfit

        def add(key: str, array: Array) -> None:
            if key in found:
                raise Unfit
            found[key] = array[0, ...]

        def data_type(key: str) -> DataType:
            if key not in specs:
                raise Unfit
            return specs[key].data_type

        def take(piece: bytes) -> None:
            for key, value in self._small(b"{%b}" % piece).items():
                add(key, self._regular([value], data_type(key)))

        def enter(at: int) -> int:
            key, at = self._key(at)
            array, end = self._element(self.skip(at), data_type(key), 0)
            add(key, array)
            return end

        end = self._walk(at, _OBJECT_END, take, enter)
        if found.keys() != specs.keys():
            raise Unfit
        return found, end

    # Places ---------------------------------------------------------------------------------------

    def skip(self, at: int) -> int:
        """Return where white space ends. Raises Unfit where there is very much of it."""
        found = _SPACE.match(self._body, at, at + _SPACE_BYTES)
        end = found.end() if found else at  # it always matches
        if end - at >= _SPACE_BYTES:
            raise Unfit
        return end

    def _at(self, at: int) -> int:
        if at >= len(self._body):
            raise Unfit
        return self._body[at]

    def _walk(
        self, at: int, closing: int, take: Callable[[bytes], None], enter: Callable[[int], int]
    ) -> int:
        """Go through the list or object at a place; return where it ends.

        `take` gets runs of whole elements, `enter` the place of one that is larger than a piece,
        and tells where that ends.
        """
        at = self.skip(at + 1)
        if self._at(at) == closing:
            return at + 1
        while True:
            at = self.skip(at)
            cut = self._cut(at)
            if cut >= 0:
                piece = self._body[at:cut]
                if not piece or piece.isspace():
                    raise Unfit
                take(piece)
            else:
                cut = self.skip(enter(at))
            mark = self._at(cut)
            time.sleep(0)  # whoever waits for the interpreter has it now
            if mark == closing:
                return cut + 1
            if mark != _COMMA:
                raise Unfit
            at = cut + 1

    def _cut(self, at: int) -> int:
        """Return where a run of whole elements ends; -1 if the first is too large.

        Which bracket ends it is not checked here: the parser of the text refuses a wrong one.
        """
        window = self._body[at : at + _PIECE_BYTES]
        if b"\\" in window:
            window = _ESCAPE.sub(b"xx", window)
        codes = np.frombuffer(window, np.uint8)
        steps = _STEPS[codes]
        commas = codes == _COMMA
        if b'"' in window:
            outside = ~np.logical_xor.accumulate(codes == _QUOTE)
            steps *= outside
            commas &= outside
        depth = np.cumsum(steps, dtype=np.int32)
        ends = np.flatnonzero(depth < 0)
        if ends.size:
            return at + int(ends[0])
        cuts = np.flatnonzero(commas & (depth == 0))
        return at + int(cuts[-1]) if cuts.size else -1

    def _key(self, at: int) -> tuple[str, int]:
        """Return a member's name, and where its value begins."""
        found = _KEY.match(self._body, at, at + _PIECE_BYTES)
        if not found:
            raise Unfit
        return found[1].decode("utf-8", "surrogateescape"), found.end()

    def _text(self, at: int) -> tuple[str, int]:
        """Return a long string, and where it ends."""
        end = at
        while True:
            end = self._body.find(b'"', end + 1)
            if end < 0:
                raise Unfit
            before = end
            while self._body[before - 1] == 0x5C:
                before -= 1
            if (end - before) % 2 == 0:
                break
        try:
            return orjson.loads(self._body[at : end + 1]), end + 1
        except ValueError as error:
            raise Unfit from error

    def _small(self, text: bytes) -> Any:
        try:
            return self._parse(text)
        except InvalidArgument as error:
            raise Unfit from error

    def _regular(self, values: list[Any], data_type: DataType) -> Array:
        array = regular_array(values, data_type)
        if array is None:
            raise Unfit
        return array


def _joined(parts: list[Array]) -> Array:
    """Join the parts of all rows; frees each part, so that rows are not in memory twice."""
    if not parts or len({part.shape[1:] for part in parts}) > 1:
        raise Unfit
    if len(parts) == 1:
        return parts[0]
    rows = sum(len(part) for part in parts)
    found = np.empty((rows, *parts[0].shape[1:]), parts[0].dtype)
    at = 0
    for part in parts:
        found[at : at + len(part)] = part
        at += len(part)
    return found
