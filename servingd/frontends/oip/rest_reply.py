"""How the protocol's answers are sent over HTTP; see `Reply`."""

from __future__ import annotations

import time
from typing import Any

import orjson

from servingd.core.batching.queue import Priority
from servingd.errors import Code
from servingd.frontends.http.content_coding import accepts_gzip, deflated
from servingd.frontends.http.messages import Headers, HttpReply, HttpRequest
from servingd.frontends.reply import PRIORITY_HEADER, priority_of, request_id_in
from servingd.frontends.status_codes import HTTP, retry_header

JSON = "application/json"
_BINARY = "application/octet-stream"
LENGTH_HEADER = "inference-header-content-length"
"""The bytes of JSON at the beginning of a body, which raw tensors follow."""

_EXPIRED = "the request took too long"


class OipReply:
    """Answers one request: with JSON, with JSON and raw tensors after it, or with an error."""

    __slots__ = ("_reply", "_request", "deadline", "raw_begins_at")

    def __init__(self, reply: HttpReply, request: HttpRequest, timeout_s: float | None) -> None:
        self._reply = reply
        self._request = request
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.raw_begins_at = 0
        """Where raw tensors begin in the answer; 0: there are none."""

    @property
    def alone(self) -> bool:
        """Whether no other client is connected."""
        return self._reply.alone

    def alive(self) -> bool:
        """Return whether somebody still waits for the answer."""
        return self._reply.alive() and (self.deadline is None or time.monotonic() < self.deadline)

    def priority(self) -> Priority:
        """Return the priority that the header asks for."""
        return priority_of(self._request.headers.get(PRIORITY_HEADER, ""))

    def request_id(self) -> str:
        """Return the caller's id of the request."""
        return request_id_in(self._request.headers.items())

    def authorization(self) -> str:
        """Return nothing: the protocol has no administrators' calls here."""
        return ""

    def begin_batch(self) -> None:
        """Do nothing: the loop writes answers together in any case."""

    def send(self, payload: bytes) -> bool:
        """Send an answer."""
        if not self.raw_begins_at:
            return self._send(200, payload, JSON, ())
        return self._send(200, payload, _BINARY, ((LENGTH_HEADER, str(self.raw_begins_at)),))

    def send_json(self, document: Any, status: int) -> bool:
        """Send a page."""
        return self._send(status, orjson.dumps(document), JSON, ())

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        """Send an error."""
        body = orjson.dumps({"error": message})
        return self._send(HTTP[code], body, JSON, retry_header(retry_after_s))

    def expire(self) -> None:
        """Answer after the deadline, unless there was an answer."""
        self.fail(Code.DEADLINE_EXCEEDED, _EXPIRED)

    def _send(self, status: int, body: bytes, content_type: str, headers: Headers) -> bool:
        if accepts_gzip(self._request.headers):
            packed = deflated(body)
            if packed is not None:
                own: Headers = (("content-encoding", "gzip"), ("vary", "accept-encoding"))
                return self._reply.send(status, packed, content_type, (*headers, *own))
        return self._reply.send(status, body, content_type, headers)
