"""Cache parsed request heads: a client sends the same head with every call."""

from __future__ import annotations

from typing import Any, NamedTuple

from servingd.frontends.http.messages import HttpRequest
from servingd.frontends.reply import REQUEST_ID_HEADER, TRACE_HEADER

_MAX_HEADS = 256
_MAX_HEAD_BYTES = 2048
_NOT_KEPT = {"expect", REQUEST_ID_HEADER, TRACE_HEADER}
_END = b"\r\n\r\n"


class _Head(NamedTuple):
    """A parsed head, and what handlers have worked out from it."""

    method: str
    target: str
    headers: dict[str, str]
    length: int
    notes: dict[str, Any]


class KnownHeads:
    """Skips the parser for a request that arrived whole and whose head was parsed before.

    The same bytes mean the same request, so nothing is decided here that the parser has not
    decided. For one thread.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, _Head] = {}

    def find(self, data: bytes) -> HttpRequest | None:
        """Return the request in `data` if its head is known and it ends with the data; else None.

        Its connection is kept alive. Only for data that begins at the start of a request.
        """
        end = data.find(_END) + 4
        head = self._heads.get(data[:end])
        if head is None or len(data) - end != head.length:
            return None
        method, target, headers, _, notes = head
        return HttpRequest(method, target, headers, data[end:], notes)

    def learn(self, data: bytes, request: HttpRequest) -> None:
        """Remember the head of a request that was parsed from `data` and nothing else.

        Only for requests of HTTP/1.1 that keep their connection alive.
        """
        end = data.find(_END) + 4
        headers, length = request.headers, len(request.body)
        # Ids of requests and traces differ from request to request.
        plain = not headers.keys() & _NOT_KEPT
        counted = headers.get("content-length", "0") == str(length)
        whole = "transfer-encoding" not in headers and data[end:] == request.body
        if not (plain and counted and whole and end <= _MAX_HEAD_BYTES):
            return
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[data[:end]] = _Head(
            request.method, request.target, dict(headers), length, request.notes
        )
