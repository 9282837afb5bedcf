"""One HTTP/1.1 client: its requests, parsed by httptools, and its answers, in order.

Everything a client can make the server hold or wait for has a limit (`HttpLimits`), and what
exceeds one is answered or closed alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

import httptools

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one client may make the server hold or wait for."""

    max_body_bytes: int = 256 << 20
    max_head_bytes: int = 64 << 10
    max_headers: int = 128
    max_url_bytes: int = 16 << 10
    max_pipelined: int = 32
    max_connections: int = 10_000
    head_s: float = 20.0
    """From a request's first byte to the end of its headers."""
    progress_s: float = 30.0
    """Without a byte of a body, or without a byte of an answer taken."""
    idle_s: float = 120.0
    """Between two requests."""
    sweep_s: float = 0.5
    """How often connections are looked through for time that is used up."""


Headers: TypeAlias = "tuple[tuple[str, str], ...]"


@dataclass(slots=True)
class HttpRequest:
    """One request, whole."""

    method: str
    target: str
    headers: Mapping[str, str]
    """By lower-case name; of several the values are joined with commas."""
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class Carrier(Protocol):
    """What a connection needs of the carrier that it came in by."""

    limits: HttpLimits
    handler: HttpHandler
    refusing: bool
    """Whether connections are to be closed after their next answer."""

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, unless there are too many."""
        ...

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        ...

    def answered(self, connection: Connection) -> None:
        """A reply of this connection has its answer; from any thread."""
        ...


class HttpReply:
    """A request's way back: answered once, from any thread."""

    __slots__ = ("_connection", "_head", "_keep_alive", "_unanswered", "due", "expire", "payload")

    def __init__(self, connection: Connection, head: bool, keep_alive: bool) -> None:
        self._connection = connection
        self._head = head
        self._keep_alive = keep_alive
        self._unanswered = [True]  # whoever takes it out answers: one step, whatever the threads
        self.payload: bytes | None = None  # set once, before the loop is told
        self.due = float("inf")
        """When the handler's own time for it is up, in monotonic seconds."""
        self.expire: Callable[[], None] = _nothing
        """What then answers, on the loop's thread, up to one sweep late."""

    def alive(self) -> bool:
        """Whether anybody still waits for the answer."""
        return bool(self._unanswered) and not self._connection.lost

    def send(self, status: int, body: bytes, content_type: str, headers: Headers = ()) -> bool:
        """Answer; False, and nothing is sent, if there was an answer already."""
        try:
            self._unanswered.pop()
        except IndexError:
            return False
        self.payload = render(
            status, body, content_type, headers, keep_alive=self._keep_alive, head=self._head
        )
        self._connection.carrier.answered(self._connection)
        return True

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this answer."""
        return not self._keep_alive


def _nothing() -> None:
    """Nothing expires."""


HttpHandler: TypeAlias = "Callable[[HttpRequest, HttpReply], None]"
"""Completes the reply now or later; runs on the loop's thread and must not wait."""


def render(
    status: int,
    body: bytes,
    content_type: str,
    headers: Headers = (),
    *,
    keep_alive: bool,
    head: bool = False,
) -> bytes:
    """An answer as bytes."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Client Error"
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        f"content-type: {content_type}",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    if not keep_alive:
        lines.append("connection: close")
    start = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return start if head else start + body


class _Refused(Exception):
    """A request that breaks a limit; answered with a status, and the connection is closed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True, eq=False)
class _Incoming:
    """The request that is being received."""

    target: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    head_bytes: int = 0
    body: list[bytes] = field(default_factory=list)
    body_bytes: int = 0
    head_over: bool = False


class Connection(asyncio.Protocol):
    """One client. Everything here runs on the loop's thread."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._incoming: _Incoming | None = None
        self._replies: deque[HttpReply] = deque()  # in the order of their requests
        self._paused = False
        self._closing = False
        self.lost = False  # whether the client has gone
        self.due = 0.0  # when patience with this client ends

    # asyncio --------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        self._transport = transport
        self.due = time.monotonic() + self.carrier.limits.idle_s
        if not self.carrier.admit(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._closing = self.lost = True
        self.carrier.forget(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; answer and close what cannot be."""
        if self._closing:
            return
        incoming = self._incoming
        if incoming is None:
            self.due = time.monotonic() + self.carrier.limits.head_s
        elif incoming.head_over:
            self.due = time.monotonic() + self.carrier.limits.progress_s
        try:
            if incoming is None or not incoming.head_over:
                self._count_head(len(data) if incoming else 0)
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An upgrade is declined by answering as if none had been asked for; what follows the
            # request on this connection cannot be told apart any more.
            self._close_after_answers()
        except _Refused as refusal:
            self._refuse(refusal.status, str(refusal))
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, _Refused):
                raise
            self._refuse(cause.status, str(cause))
        except httptools.HttpParserError as error:
            self._refuse(400, f"malformed request: {error}")

    def eof_received(self) -> bool:
        """The client has closed its side; it may still wait for answers."""
        return bool(self._replies)

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: read nothing more from it meanwhile."""
        self.due = time.monotonic() + self.carrier.limits.progress_s
        self._pause()

    def resume_writing(self) -> None:
        """It takes them again."""
        self._patience()
        self._resume()

    # httptools ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._incoming = _Incoming()

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        incoming = self._receiving()
        incoming.target += url
        if len(incoming.target) > self.carrier.limits.max_url_bytes:
            raise _Refused(414, f"the URL is longer than {self.carrier.limits.max_url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        incoming = self._receiving()
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        before = incoming.headers.get(key)
        incoming.headers[key] = text if before is None else f"{before},{text}"
        incoming.head_bytes += len(name) + len(value)
        limits = self.carrier.limits
        if (
            len(incoming.headers) > limits.max_headers
            or incoming.head_bytes > limits.max_head_bytes
        ):
            raise _Refused(431, "the request's headers are too many or too long")

    def on_headers_complete(self) -> None:
        """What the headers announce is refused before it is received."""
        incoming = self._receiving()
        incoming.head_over = True
        self.due = time.monotonic() + self.carrier.limits.progress_s
        length = incoming.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.carrier.limits.max_body_bytes:
            raise self._too_large(int(length))
        if self._parser.should_upgrade() and length != "0":
            raise _Refused(400, "Upgrade is not supported")
        if incoming.headers.get("expect", "").lower() == "100-continue" and not self._replies:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        incoming = self._receiving()
        incoming.body.append(body)
        incoming.body_bytes += len(body)
        if incoming.body_bytes > self.carrier.limits.max_body_bytes:
            raise self._too_large(incoming.body_bytes)

    def on_message_complete(self) -> None:
        """The request is whole: hand it over."""
        incoming, self._incoming = self._receiving(), None
        method = self._parser.get_method().decode()
        keep_alive = self._parser.should_keep_alive() and not self.carrier.refusing
        reply = HttpReply(self, method == "HEAD", keep_alive)
        self._replies.append(reply)
        self.due = float("inf")  # it is our turn
        if len(self._replies) >= self.carrier.limits.max_pipelined:
            self._pause()
        body = incoming.body[0] if len(incoming.body) == 1 else b"".join(incoming.body)
        request = HttpRequest(method, incoming.target.decode("latin-1"), incoming.headers, body)
        try:
            self.carrier.handler(request, reply)
        except Exception:  # one bad request must not end the others of this client
            _log.exception("%s %s failed", method, request.path)
            reply.send(500, b"internal error", "text/plain; charset=utf-8")

    # ours -----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write every answer whose turn it is."""
        ready: list[bytes] = []
        closes = False
        while self._replies and not closes and self._replies[0].payload is not None:
            reply = self._replies.popleft()
            ready.append(reply.payload or b"")
            closes = reply.closes
        if not ready or self._transport.is_closing():
            return
        self._transport.write(b"".join(ready))
        if closes:
            self._close()
            return
        self._patience()
        if len(self._replies) < self.carrier.limits.max_pipelined:
            self._resume()

    def expire(self, now: float) -> None:
        """Close if the client has used its time up; while it waits for us, it has time.

        Requests that have used up the time that their handler gave them are answered so.
        """
        for reply in list(self._replies):
            if reply.due <= now:
                reply.due = float("inf")
                reply.expire()
        our_turn = self._replies and not self._transport.get_write_buffer_size()
        if now < self.due or our_turn:
            return
        if self._incoming is not None and not self._replies:
            self._refuse(408, "the request did not arrive in time")
        else:
            self._transport.abort()

    def end(self, abort: bool) -> None:
        """Close now, or as soon as the answers under way are written."""
        if abort:
            self._transport.abort()
        elif not self._replies:
            self._close()

    @property
    def busy(self) -> bool:
        """Whether an answer is still to be given or written."""
        return bool(self._replies) or self._transport.get_write_buffer_size() > 0

    def _receiving(self) -> _Incoming:
        if self._incoming is None:
            raise _Refused(400, "malformed request")
        return self._incoming

    def _count_head(self, size: int) -> None:
        """Headers that are cut into pieces without end are counted before they are parsed."""
        if self._incoming is not None:
            self._incoming.head_bytes += size
            if self._incoming.head_bytes > 2 * self.carrier.limits.max_head_bytes:
                raise _Refused(431, "the request's headers are too long")

    def _too_large(self, size: int) -> _Refused:
        return _Refused(
            413, f"the body is larger than {self.carrier.limits.max_body_bytes} bytes ({size})"
        )

    def _refuse(self, status: int, text: str) -> None:
        """Answer after what is pending, and close: the rest of the input means nothing any more."""
        self._closing = True
        self._incoming = None
        reply = HttpReply(self, head=False, keep_alive=False)
        self._replies.append(reply)
        reply.send(status, text.encode(), "text/plain; charset=utf-8")
        self.due = time.monotonic() + self.carrier.limits.progress_s
        self._pause()

    def _close_after_answers(self) -> None:
        self._closing = True
        for reply in self._replies:
            reply._keep_alive = False
        if not self._replies:
            self._close()

    def _close(self) -> None:
        self._closing = True
        self.due = time.monotonic() + self.carrier.limits.progress_s
        self._transport.close()

    def _patience(self) -> None:
        limits = self.carrier.limits
        if not self._replies:
            wait = limits.progress_s if self._incoming is not None else limits.idle_s
            self.due = time.monotonic() + wait

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._closing and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
