"""gzip, both ways, within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from servingd.errors import InvalidArgument, ResourceExhausted

MAX_INFLATED_BYTES = 100 << 20
"""TensorFlow Serving's limit of an inflated body."""

_MAX_MEMBERS = 4096
_PIECE_BYTES = 4 << 10
"""Of gzip; so much may become a thousand times as much."""
_WORTH_IT_BYTES = 1024
_GZIP = 16 + zlib.MAX_WBITS
_FAST = 1


def inflated(headers: Mapping[str, str], body: bytes) -> bytes:
    """A request's body as it was meant; looks for `gzip` anywhere in `Content-Encoding`.

    TensorFlow Serving goes on with an empty body if it cannot be inflated. We say why not.

    Raises:
        InvalidArgument: the body is no gzip, or is cut off.
        ResourceExhausted: it holds more than `MAX_INFLATED_BYTES`.
    """
    coding = headers.get("content-encoding")
    if coding is None or "gzip" not in coding:
        return body
    try:
        return b"".join(_members(body))
    except zlib.error as error:
        raise _no_gzip(error) from error


def meant_size(headers: Mapping[str, str], body: bytes) -> int:
    """How many bytes `inflated` would give, found out without holding them; raises as it does."""
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
    """Inflate members that follow each other.

    They are fed in pieces: what follows a member is copied by zlib, each time.
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
    """Whether a client takes gzip: it names it, and does not rule it out."""
    accepted = headers.get("accept-encoding")
    if accepted is None or "gzip" not in accepted:
        return False
    for choice in accepted.split(","):
        name, _, weight = choice.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def deflated(body: bytes) -> bytes | None:
    """A body as gzip; None where that is not worth it."""
    if len(body) < _WORTH_IT_BYTES:
        return None
    packer = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()
