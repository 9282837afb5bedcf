"""The reply to a REST call: messages and errors as HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, TypeAlias

from servingd.core.batching.queue import Priority
from servingd.errors import Code
from servingd.frontends.http.content_coding import accepts_gzip, deflated
from servingd.frontends.http.messages import Headers, HttpReply
from servingd.frontends.job_reply import JobReply
from servingd.frontends.reply import PRIORITY_HEADER, priority_of, request_id_in
from servingd.frontends.status_codes import HTTP, retry_header
from servingd.frontends.workers import Workers
from servingd.wire.json.results import encode_error

JSON = "application/json"
PROTOBUF = "application/x-protobuf"

_LARGE_BYTES = 64 << 10
"""Bytes above which a worker compresses an answer: gzip takes a millisecond for so many."""

EXPIRED = "Timed out waiting for notification"
"""TensorFlow's text for a run that took too long."""


def told(code: Code, message: str) -> str:
    """Return an error's text as clients of REST are told it."""
    return EXPIRED if code is Code.DEADLINE_EXCEEDED else message


class ReplyForm(NamedTuple):
    """What the answers to requests with the same head have in common."""

    gzip: bool
    """Whether the client accepts gzip."""
    headers: Headers
    priority: Priority
    request_id: str = ""


def reply_form(request_headers: Mapping[str, str], headers: Headers) -> ReplyForm:
    """Return the form for a request's headers; `headers` are those of every answer."""
    gzip = accepts_gzip(request_headers)
    return ReplyForm(
        gzip,
        (*headers, ("vary", "accept-encoding")) if gzip else headers,
        priority_of(request_headers.get(PRIORITY_HEADER, "")),
        request_id_in(request_headers.items()),
    )


class RestReply:
    """Answers with a message's bytes, or with a JSON document that has the error.

    See `Reply`. Answers are compressed if the client accepts gzip and it is worth it.
    """

    __slots__ = ("_form", "_reply", "_workers", "content_type", "deadline")

    def __init__(
        self,
        reply: HttpReply,
        form: ReplyForm,
        timeout_s: float | None,
        workers: Workers | None = None,
    ) -> None:
        self._reply = reply
        self._workers = workers
        self._form = form
        self.content_type = JSON
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def alone(self) -> bool:
        """Whether no other client is connected."""
        return self._reply.alone

    def alive(self) -> bool:
        """Return whether somebody still waits for the answer."""
        return self._reply.alive() and (self.deadline is None or time.monotonic() < self.deadline)

    def priority(self) -> Priority:
        """Return the priority that the caller asked for."""
        return self._form.priority

    def request_id(self) -> str:
        """Return the caller's id of the request."""
        return self._form.request_id

    def authorization(self) -> str:
        """Return nothing: REST has no administrators' calls."""
        return ""

    def begin_batch(self) -> None:
        """Do nothing: the loop writes answers together in any case, see `HttpLoop.answered`."""

    def takes_away(self, job: Callable[[], None]) -> bool:
        """Run a large job on a worker if this is the loop's thread; else return False."""
        if self._workers is None or not self._reply.is_here:
            return False
        self._workers.submit(job)
        return True

    def send(self, payload: bytes) -> bool:
        """Send a document or a message."""
        form = self._form
        if not form.gzip:
            return self._reply.send(200, payload, self.content_type, form.headers)

        def compress() -> None:
            self._send(200, payload, self.content_type)

        if len(payload) > _LARGE_BYTES and self.takes_away(compress):
            return self.alive()
        return self._send(200, payload, self.content_type)

    def fail(self, code: Code, message: str, retry_after_s: float | None = None) -> bool:
        """Send an error."""
        hint = retry_header(retry_after_s)
        return self._send(HTTP[code], encode_error(told(code, message)), JSON, hint)

    def refuse_body(self, message: str) -> bool:
        """Send the error that the body is too large; without a hint to retry."""
        return self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, encode_error(message), JSON)

    def _send(self, status: int, body: bytes, content_type: str, more: Headers = ()) -> bool:
        """Send a body, compressed if the client accepts gzip and it is worth it."""
        form = self._form
        headers = (*form.headers, *more) if more else form.headers
        if form.gzip:
            packed = deflated(body)
            if packed is not None:
                body, headers = packed, (*headers, ("content-encoding", "gzip"))
        return self._reply.send(status, body, content_type, headers)

    def expire(self) -> None:
        """Send the time-out error, unless there is an answer; called on the loop's thread."""
        self.fail(Code.DEADLINE_EXCEEDED, EXPIRED)


AnyReply: TypeAlias = RestReply | JobReply
"""Where the answer to an inference call goes."""
