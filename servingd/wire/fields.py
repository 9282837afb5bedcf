"""Where the fields of a serialised message lie, told from its bytes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from servingd.wire.varints import read_varint64

Place: TypeAlias = tuple[int, int]
"""Where something begins and ends."""

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


def places_of(content: bytes | memoryview, message: Place, number: int) -> Iterator[Place]:
    """Yield where the values of one length-delimited field of a message lie, in order.

    Raises ValueError where the bytes are no message.
    """
    at, end = message
    while at < end:
        tag, at = read_varint64(content, at)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size, at = read_varint64(content, at)
            if at + size > end:
                raise ValueError("a field lies past its message")
            if tag >> 3 == number:
                yield at, at + size
            at += size
        elif kind == _VARINT:
            _, at = read_varint64(content, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
