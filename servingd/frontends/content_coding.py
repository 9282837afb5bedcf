"""gzip, both ways, within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from servingd.errors import InvalidArgument, ResourceExhausted

MAX_INFLATED_BYTES = 100 << 20
"""TensorFlow Serving's limit of an inflated body."""

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
    parts: list[bytes] = []
    left = MAX_INFLATED_BYTES
    try:
        while body:  # members may follow each other
            member = zlib.decompressobj(_GZIP)
            parts.append(member.decompress(body, left + 1))
            left -= len(parts[-1])
            if left < 0:
                raise ResourceExhausted(
                    f"the body inflates to more than {MAX_INFLATED_BYTES} bytes"
                )
            if not member.eof:
                raise InvalidArgument("the body is gzip that is cut off")
            body = member.unused_data
    except zlib.error as error:
        raise InvalidArgument(f"the body is not the gzip that its header says: {error}") from error
    return b"".join(parts)


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
