"""Read a server's hint when to try again: from a header, or from the details of its status."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from servingd.wire import protos

HEADERS = ("retry-after-ms", "grpc-retry-pushback-ms")
HTTP_HEADER = "retry-after"
"""In whole seconds; as a date it is not read."""
DETAILS = "grpc-status-details-bin"
"""A google.rpc.Status; one of its details may be a google.rpc.RetryInfo."""

_RETRY_INFO = "/google.rpc.RetryInfo"


def retry_after_s(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Return the seconds after which to retry; None without a readable hint.

    The names are in lower case. A header in milliseconds counts before anything else.
    """
    found: float | None = None
    for name, value in metadata:
        try:
            if name in HEADERS:
                return max(0, int(value)) / 1000
            if name == HTTP_HEADER:
                found = max(0.0, float(value))
            if name == DETAILS and isinstance(value, bytes):
                found = _of_status(value)
        except (ValueError, DecodeError):
            continue  # ignore a hint that cannot be read
    return found


def _of_status(message: bytes) -> float | None:
    for detail in protos.StatusDetails.FromString(message).details:
        if detail.type_url.endswith(_RETRY_INFO):
            delay = protos.RetryInfo.FromString(detail.value).retry_delay
            return max(0.0, float(delay.seconds + delay.nanos / 1e9))
    return None
