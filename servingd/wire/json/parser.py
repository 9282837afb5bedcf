"""An exact parser of TensorFlow Serving's JSON dialect, for what a strict parser does not accept.

It differs from RFC 8259 in this: NaN and infinities are numbers, what follows the first value is
not looked at, the first of equal keys counts, bytes of strings need not be UTF-8, integers keep
64 bits and a larger one is a double. It does not recurse, so depth is bounded by memory only.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from servingd.errors import InvalidArgument

BOM = b"\xef\xbb\xbf"

_EMPTY = "The document is empty."
_INVALID = "Invalid value."
_NO_NAME = "Missing a name for object member."
_NO_COLON = "Missing a colon after a name of object member."
_NO_COMMA_OR_BRACE = "Missing a comma or '}' after an object member."
_NO_COMMA_OR_BRACKET = "Missing a comma or ']' after an array element."
_BAD_HEX = "Incorrect hex digit after \\u escape in string."
_BAD_SURROGATE = "The surrogate pair in string is invalid."
_BAD_ESCAPE = "Invalid escape character in string."
_NO_QUOTE = "Missing a closing quotation mark in string."
_BAD_ENCODING = "Invalid encoding in string."
_TOO_BIG = "Number too big to be stored in double."
_NO_FRACTION = "Miss fraction part in number."
_NO_EXPONENT = "Miss exponent in number."

_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(
    rb'"(?P<text>[^"\\\x00-\x1f]*)"'
    rb"|(?P<number>-?(?:0|[1-9][0-9]*)(?P<rest>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?))"
    rb"|(?P<word>true|false|null|-?NaN|-?Inf(?:inity)?)"
)
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
# A list of numbers, or nearly so: a parser in C reads it at once.
_NUMBERS = re.compile(rb"\[[-+0-9.eENaInfity, \t\r\n]*+\]")
_RUN = re.compile(rb"[-+0-9.eENaInfity, \t\r\n]*+")
_RUN_BYTES = 128 << 10
"""Bytes read at a time: the interpreter lock is held meanwhile."""
_WORTH_IT_BYTES = 64
# What the standard library reads otherwise: integers beyond 64 bits, and numbers beyond a double.
_HARD_NUMBER = re.compile(rb"[0-9]{19}|[eE]\+?0*[1-9][0-9]{2}")

_WORDS: dict[bytes, Any] = {
    b"true": True,
    b"false": False,
    b"null": None,
    b"NaN": math.nan,
    b"-NaN": math.nan,
    b"Inf": math.inf,
    b"Infinity": math.inf,
    b"-Inf": -math.inf,
    b"-Infinity": -math.inf,
}
# By their first letter; an infinity's second half may be missing altogether.
_SPELLINGS = {b"t": b"true", b"f": b"false", b"n": b"null", b"N": b"NaN", b"I": b"Infinity"}
_ESCAPES = {
    b'"': b'"',
    b"\\": b"\\",
    b"/": b"/",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
}
_LONG_INTEGER = 20
"""Characters: a longer integer needs more than 64 bits."""


def parse_exactly(body: bytes) -> Any:
    """Return the first value in `body`, which is not empty.

    Raises:
        InvalidArgument: `JSON Parse error: <text> at offset: <n>`.
    """
    return _Parser(body, len(BOM) if body.startswith(BOM) else 0).document()


class _Parser:
    """One reading of one document. Lists and dicts are open while they are on the stack."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._at = start
        self._open: list[list[Any] | dict[str, Any]] = []
        self._keys: list[str] = []  # one for each open dict: where its next value goes

    def document(self) -> Any:
        if self._next() in (b"", b"\0", b",", b":", b"]", b"}"):
            raise _error(_EMPTY, self._at)
        value = self._value()
        while self._open:
            value = self._place(value)
        return value

    def _next(self) -> bytes:
        """Return the first byte behind white space, without taking it; empty at the end."""
        found = _SPACE.match(self._body, self._at)
        if found:  # always: it matches nothing, too
            self._at = found.end()
        return self._body[self._at : self._at + 1]

    def _value(self) -> Any:
        """Open lists and dicts until a value is complete; return that."""
        while True:
            head = self._next()
            if head == b"[":
                numbers = self._numbers()
                if numbers is not None:
                    return numbers
                self._at += 1
                self._open.append([])
            elif head == b"{":
                self._at += 1
                if self._next() == b"}":
                    self._at += 1
                    return {}
                self._open.append({})
                self._keys.append(self._key())
            else:
                return self._scalar(head)

    def _place(self, value: Any) -> Any:
        """Put a complete value where it belongs; return the next one that is complete."""
        innermost = self._open[-1]
        if isinstance(innermost, list):
            innermost.append(value)
            closing, missing = b"]", _NO_COMMA_OR_BRACKET
        else:
            innermost.setdefault(self._keys.pop(), value)
            closing, missing = b"}", _NO_COMMA_OR_BRACE
        head = self._next()
        if head not in (b",", closing):
            raise _error(missing, self._at)
        self._at += 1
        if head == closing:
            return self._open.pop()
        if closing == b"}":
            self._keys.append(self._key())
        elif isinstance(innermost, list):
            self._take_runs(innermost)
        return self._value()

    def _key(self) -> str:
        """Read a member's name and the colon behind it."""
        if self._next() != b'"':
            raise _error(_NO_NAME, self._at)
        key: str = self._scalar(b'"')
        if self._next() != b":":
            raise _error(_NO_COLON, self._at)
        self._at += 1
        return key

    def _numbers(self) -> list[Any] | None:
        """Read a flat list of numbers, or an empty list, at once; None if it is anything else."""
        found = _NUMBERS.match(self._body, self._at, self._at + _RUN_BYTES)
        if not found:
            return None
        numbers = _load(found.group())
        if numbers is not None:
            self._at = found.end()
        return numbers

    def _take_runs(self, innermost: list[Any]) -> None:
        """Take numbers of a long list that are followed by others, many at once."""
        while found := _RUN.match(self._body, self._at, self._at + _RUN_BYTES):
            text = found.group()
            cut = text.rfind(b",")
            numbers = _load(b"[%b]" % text[:cut]) if cut >= _WORTH_IT_BYTES else None
            if not numbers:
                return
            innermost += numbers
            self._at += cut + 1

    def _scalar(self, head: bytes) -> Any:
        found = _SCALAR.match(self._body, self._at)
        if not found:
            if head == b'"':
                return self._string()
            raise self._not_a_value(head)
        start, self._at = self._at, found.end()
        if found["text"] is not None:
            return found["text"].decode("utf-8", "surrogateescape")
        following = self._body[self._at : self._at + 1]
        if found["word"]:
            word = found["word"]
            if following == b"i" and word.endswith(b"Inf"):
                raise self._not_a_value(head, start)
            return _WORDS[word]
        rest = found["rest"]
        if (following == b"." and not rest) or (
            following in (b"e", b"E") and b"e" not in rest and b"E" not in rest
        ):
            raise self._unfinished_number(following)
        number = _number(found["number"], bool(rest))
        if number in (math.inf, -math.inf):
            raise _error(_TOO_BIG, start)
        return number

    def _unfinished_number(self, following: bytes) -> InvalidArgument:
        if following == b".":
            return _error(_NO_FRACTION, self._at + 1)
        signed = self._body[self._at + 1 : self._at + 2] in (b"+", b"-")
        return _error(_NO_EXPONENT, self._at + 1 + signed)

    def _not_a_value(self, head: bytes, start: int | None = None) -> InvalidArgument:
        """Return the error at the first byte that no value can have at its place."""
        at = self._at if start is None else start
        if head == b"-":
            at += 1
            head = self._body[at : at + 1]
            if head not in (b"N", b"I"):
                return _error(_INVALID, at)
        for letter in _SPELLINGS.get(head, b""):
            if self._body[at : at + 1] != bytes((letter,)):
                break
            at += 1
        return _error(_INVALID, at)

    def _string(self) -> str:
        """Read a string that has escapes, or is wrong."""
        parts = []
        self._at += 1
        while True:
            found = _PLAIN.match(self._body, self._at)
            if found:  # always: it matches nothing, too
                parts.append(found.group())
                self._at = found.end()
            head = self._body[self._at : self._at + 1]
            if head == b'"':
                self._at += 1
                return b"".join(parts).decode("utf-8", "surrogateescape")
            if head != b"\\":
                raise _error(_NO_QUOTE if head in (b"", b"\0") else _BAD_ENCODING, self._at)
            parts.append(self._escape())

    def _escape(self) -> bytes:
        start = self._at
        letter = self._body[start + 1 : start + 2]
        self._at += 2
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if letter != b"u":
            raise _error(_BAD_ESCAPE, start)
        unit = self._hex(start)
        if 0xD800 <= unit <= 0xDFFF:
            paired = unit <= 0xDBFF and self._body[self._at : self._at + 2] == b"\\u"
            if not paired:
                raise _error(_BAD_SURROGATE, start)
            self._at += 2
            low = self._hex(start)
            if not 0xDC00 <= low <= 0xDFFF:
                raise _error(_BAD_SURROGATE, start)
            unit = 0x10000 + ((unit - 0xD800) << 10) + low - 0xDC00
        return chr(unit).encode()

    def _hex(self, start: int) -> int:
        found = _HEX.match(self._body, self._at)
        if not found:
            raise _error(_BAD_HEX, start)
        self._at = found.end()
        return int(found.group(), 16)


def _load(text: bytes) -> list[Any] | None:
    """Read a list of numbers by parsers in C; None where the dialect differs from theirs."""
    try:
        numbers: list[Any] = orjson.loads(text)
    except ValueError:
        if _HARD_NUMBER.search(text):
            return None
        try:
            numbers = json.loads(text)
        except ValueError:
            return None
    return numbers


def _number(text: bytes, is_double: bool) -> int | float:
    if not is_double and len(text) <= _LONG_INTEGER:
        number = int(text)
        if -(2**63) <= number < 2**64:
            return number
    return float(text)


def _error(text: str, offset: int) -> InvalidArgument:
    return InvalidArgument(f"JSON Parse error: {text} at offset: {offset}")
