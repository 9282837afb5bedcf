"""Decode and encode gzip bodies, within limits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from servingd.errors import InvalidArgument, ResourceExhausted

MAX_INFLATED_BYTES = 100 << 20
"""TensorFlow Serving's limit of an inflated body, in bytes."""

_MAX_MEMBERS = 4096
_PIECE_BYTES = 4 << 10
"""Bytes of gzip that are inflated at a time; they may become a thousand times as many."""
_MIN_DEFLATED_BYTES = 1024
_GZIP = 16 + zlib.MAX_WBITS
_FAST = 1


def inflated(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a request's body, inflated if `Content-Encoding` contains `gzip`.

    TensorFlow Serving continues with an empty body if it cannot be inflated; here that is an error.

    Raises:
        InvalidArgument: the body is not gzip, or is cut off.
        ResourceExhausted: it holds more than `MAX_INFLATED_BYTES`.
    """
    coding = headers.get("content-encoding")
    if coding is None or "gzip" not in coding:
        return body
    try:
        return b"".join(_members(body))
    except zlib.error as error:
        raise _no_gzip(error) from error


def inflated_size(headers: Mapping[str, str], body: bytes) -> int:
    """Return the bytes that `inflated` would give, without holding them; raises as it does."""
    coding = headers.get("content-encoding")
    if coding is None or "gzip" not in coding:
        return len(body)
    try:
        return sum(len(piece) for piece in _members(body))
    except zlib.error as error:
        raise _no_gzip(error) from error


def _no_gzip(error: zlib.error) -> InvalidArgument:
    return InvalidArgument(f"the body is not the gzip that its header says: {error}")


def _members(body: bytes) -> Iterator[bytes]:
    """Yield the inflated pieces of gzip members that follow each other.

    The body is fed in pieces, because zlib copies the rest of its input after each member.
    """
    member, at, left, members = zlib.decompressobj(_GZIP), 0, MAX_INFLATED_BYTES, 1
    while at < len(body):
        if member.eof:
            member, members = zlib.decompressobj(_GZIP), members + 1
            if members > _MAX_MEMBERS:
                raise InvalidArgument(f"the body is more than {_MAX_MEMBERS} pieces of gzip")
        piece = body[at : at + _PIECE_BYTES]
        inflated_piece = member.decompress(piece, left + 1)
        left -= len(inflated_piece)
        if left < 0:
            raise ResourceExhausted(f"the body inflates to more than {MAX_INFLATED_BYTES} bytes")
        yield inflated_piece
        at += len(piece) - len(member.unused_data)
    if body and not member.eof:
        raise InvalidArgument("the body is gzip that is cut off")


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether a client accepts gzip: it names it, and not with weight 0."""
    accepted = headers.get("accept-encoding")
    if accepted is None or "gzip" not in accepted:
        return False
    for choice in accepted.split(","):
        name, _, weight = choice.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def deflated(body: bytes) -> bytes | None:
    """Return a body as gzip; None if it is too small to be worth it."""
    if len(body) < _MIN_DEFLATED_BYTES:
        return None
    packer = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()
