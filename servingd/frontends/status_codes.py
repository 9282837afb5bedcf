"""Map status codes and retry hints to HTTP and gRPC.

No other module does, with one exception: a REST body that is refused for its size is 413, whatever
its code (`tfs/rest/reply.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from servingd.errors import Code
from servingd.frontends.reply import REQUEST_ID_HEADER, RETRY_HEADER

# gRPC's numbers are the canonical ones. Its texts are cut as TensorFlow Serving cuts them: they
# travel in headers, and much longer ones break clients.
_MAX_GRPC_MESSAGE = 1024
_CUT = "...TRUNCATED"

HTTP: Mapping[Code, int] = {
    Code.OK: HTTPStatus.OK,
    Code.CANCELLED: 499,
    Code.UNKNOWN: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Code.ABORTED: HTTPStatus.CONFLICT,
    Code.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    Code.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DATA_LOSS: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
}


def retry_hint(retry_after_s: float | None) -> list[tuple[str, str]] | None:
    """Return when to try again, as gRPC's trailing metadata in milliseconds."""
    if retry_after_s is None:
        return None
    return [(RETRY_HEADER, str(math.ceil(retry_after_s * 1000)))]


def answer_metadata(
    metadata: Iterable[tuple[str, str | bytes]], retry_after_s: float | None = None
) -> list[tuple[str, str | bytes]]:
    """Return gRPC's trailing metadata for a caller's: its request id, and when to try again."""
    repeated = [entry for entry in metadata if entry[0] == REQUEST_ID_HEADER]
    return [*(retry_hint(retry_after_s) or ()), *repeated]


def retry_header(retry_after_s: float | None) -> tuple[tuple[str, str], ...]:
    """Return when to try again, as HTTP's header in whole seconds, rounded up."""
    if retry_after_s is None:
        return ()
    return (("retry-after", str(math.ceil(retry_after_s))),)


def grpc_message(text: str) -> str:
    """Return a status text as gRPC carries it: at most 1024 bytes, then a mark that it was cut."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= _MAX_GRPC_MESSAGE:
        return text
    return encoded[:_MAX_GRPC_MESSAGE].decode(errors="ignore") + _CUT
