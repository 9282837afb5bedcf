"""TensorFlow Serving's dialect of JSON: reading it, and showing a value in an error text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

from servingd.errors import InvalidArgument
from servingd.wire.json.layout import quoted_text
from servingd.wire.json.parser import parse_exactly
from servingd.wire.json.pieces import LARGE_BYTES, Pieces, Unfit

DUMP_BYTES = 256
"""Bytes of a value in an error text: it ends at the first token behind them."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def parse(body: bytes) -> Any:
    """Return the first JSON value in `body`.

    Bytes of strings that are not UTF-8 become surrogates, which `surrogateescape` turns back.

    Raises:
        InvalidArgument: `JSON Parse error: <text> at offset: <n>`.
    """
    if len(body) >= LARGE_BYTES:
        try:
            return Pieces(body, parse).document()
        except Unfit:
            return parse_exactly(body)
    try:
        document = orjson.loads(body)
    except ValueError:
        if not body:
            raise InvalidArgument("JSON Parse error: The document is empty") from None
        return parse_exactly(body)
    # orjson keeps the last of equal keys, the dialect the first.
    if body.count(b":") > 1 and not _has_all_members(document, body):
        return parse_exactly(body)
    return document


def _has_all_members(document: Any, body: bytes) -> bool:
    """Return whether `document` has as many members as `body`: no name was given twice."""
    members = _count_members(document, body.count(b"{"))
    return members == body.count(b":") or members == _STRING.sub(b"", body).count(b":")


def _count_members(document: Any, objects: int) -> int:
    """Count the members of all objects, of which there are `objects` at most."""
    members = 0
    level = [document]
    while level and objects:
        inner: list[Any] = []
        for value in level:
            if type(value) is dict:
                objects -= 1
                members += len(value)
                inner += value.values()
            elif type(value) is list:
                inner += value
        level = [value for value in inner if type(value) is dict or type(value) is list]
    return members


# ---- a value in an error text


def dump_value(value: Any) -> str:
    """Return `value` as error texts show it: lists on one line, an object's members on lines.

    It is cut behind DUMP_BYTES, and where a number is not finite.
    """
    parts: list[str] = []
    size = 0
    for token in _tokens(value):
        if size >= DUMP_BYTES:
            break
        parts.append(token)
        size += len(token.encode("utf-8", "surrogateescape"))
    return "".join(parts)


def _quoted(text: str) -> str:
    return quoted_text(text).decode("utf-8", "surrogateescape")


def _tokens(value: Any) -> Iterator[str]:
    """Yield the text in parts, each with the white space in front of it."""
    # The members that are still to come, the bracket that ends them, and whether there were any.
    rest: list[tuple[Iterator[tuple[str, Any]], str]] = []
    prefix = ""
    while True:
        if type(value) is list and value:
            yield prefix + "["
            rest.append((_elements(value), "]"))
        elif type(value) is dict and value:
            yield prefix + "{"
            rest.append((_members(value, "\n" + "    " * (len(rest) + 1)), _close(len(rest))))
        elif type(value) is float and not math.isfinite(value):
            yield prefix
            return
        else:
            yield prefix + _scalar(value)
        while rest and (following := next(rest[-1][0], None)) is None:
            yield rest.pop()[1]
        if not rest or following is None:
            return
        prefix, value = following


def _close(depth: int) -> str:
    return "\n" + "    " * depth + "}"


def _elements(value: list[Any]) -> Iterator[tuple[str, Any]]:
    comma = ""
    for element in value:
        yield comma, element
        comma = ", "


def _members(value: dict[str, Any], line: str) -> Iterator[tuple[str, Any]]:
    comma = ""
    for key, member in value.items():
        yield f"{comma}{line}{_quoted(key)}: ", member
        comma = ","


def _scalar(value: Any) -> str:
    if type(value) is str:
        return _quoted(value)
    if type(value) is float:
        return _decimal(value)
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    return "null" if value is None else "[]" if type(value) is list else "{}"


def _decimal(number: float) -> str:
    """Return the shortest text that reads back equal; up to 21 digits before the point."""
    sign = "-" if math.copysign(1.0, number) < 0 else ""
    mantissa, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if not digits:
        return sign + "0.0"
    if len(digits) <= point <= 21:
        return f"{sign}{digits.ljust(point, '0')}.0"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1}"
