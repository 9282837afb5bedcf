"""One HTTP/1.1 client: its requests, and its responses, in order.

Theory of operation. Everything here runs on one loop's thread.

1. Bytes arrive in `data_received`. A request whose head is known is taken at once; the rest goes to
   `RequestReader`, a piece at a time where one read may hold many requests, so that other clients
   have their turn (`_take_held`).
2. `take` queues a reply for each whole request and calls the handler, which answers the reply now
   or later, from any thread; the owner then calls `flush` on the loop's thread.
3. `flush` writes the responses whose turn it is, in the order of their requests. A large response
   is written in parts, and only as fast as the client reads it; so is a body that comes in parts.
4. `_regulate` stops reading while too many responses are pending or unread, so that no client makes
   the server hold more than `HttpLimits` allows.
5. `expire` is called twice a second and closes a client whose deadline has passed: one that sends
   its request or reads its response too slowly, or is idle. A client that waits for the server
   does not expire.

A request that exceeds a limit is answered or closed alone; no other client is affected.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any, Protocol

from servingd.frontends.http.heads import KnownHeads
from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.messages import HttpHandler, HttpReply, HttpRequest
from servingd.frontends.http.parts import PartedBody
from servingd.frontends.http.reader import Refused, RequestReader, Upgraded
from servingd.frontends.reply import REQUEST_ID_HEADER

_log = logging.getLogger(__name__)

_PIECE_BYTES = 512
"""Bytes that are parsed at a time if many requests arrive at once: at most sixteen requests."""

_PART_BYTES = 256 << 10
"""Bytes above which a response is written in parts of this size."""

_WRITE_BYTES = 64 << 10
"""Bytes that are written before checking whether the client reads them."""


class ConnectionOwner(Protocol):
    """The loop that a connection belongs to, as the connection sees it; see `HttpLoop`."""

    limits: HttpLimits
    handler: HttpHandler
    heads: KnownHeads
    refusing: bool
    """Whether connections are to be closed after their next response."""
    handling_since: float
    """When the running handler was called, in monotonic seconds; 0 if none runs."""

    @property
    def alone(self) -> bool:
        """Whether there is at most one connection."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the loop's thread."""
        ...

    def admit(self, connection: Connection) -> bool:
        """Register a new connection; return False if there are too many."""
        ...

    def forget(self, connection: Connection) -> None:
        """Unregister a closed connection."""
        ...

    def answered(self, connection: Connection) -> None:
        """Schedule a flush: a reply of this connection has its response. Thread-safe."""
        ...


class Connection(asyncio.Protocol):
    """One client. Everything here runs on the loop's thread."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self.owner = owner
        self._reader = RequestReader(self, owner.limits, owner.heads)
        self._transport: Any = None
        self._requests = 0  # number of whole requests
        self._held = b""  # received, but not parsed yet
        self._parse_scheduled = False  # whether the loop will call `_take_held`
        self._replies: deque[HttpReply] = deque()  # in the order of their requests
        self._rest: memoryview | None = None  # unwritten rest of a large first response
        self._parted = False  # the first response is written in parts
        self._written = 0  # bytes written to the transport
        self._taken = 0  # bytes that the client had read when its deadline was last renewed
        self._write_paused = False  # it reads its responses too slowly
        self._paused = False  # reading from it is paused
        self._closing = False  # bytes that it sends are dropped
        self._lingers = False
        self.lost = False  # whether it has disconnected
        self.deadline = 0.0  # when it is closed unless it makes progress, monotonic seconds

    # Called by asyncio ----------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Register a client that has connected; called by asyncio."""
        self._transport = transport
        self.deadline = time.monotonic() + self.owner.limits.idle_s
        if not self.owner.admit(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister a client that has disconnected; called by asyncio."""
        self._closing = self.lost = True
        self._held = b""
        self.owner.forget(self)
        for reply in self._replies:
            if reply.parts is not None:
                reply.parts.lose()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, a piece at a time if they may hold many requests."""
        if self._closing:
            return
        if not (self._held or self._reader.receiving):
            request = self.owner.heads.find(data)
            if request is not None:
                self.take(request, True)
                return
        many = len(data) > max(_PIECE_BYTES, self._reader.body_left()) and _may_be_several(data)
        if self._held or many:
            self._held += data
            self._take_held()
        else:
            self._parse(data)

    def eof_received(self) -> bool:
        """Close after the pending responses: the client has closed its sending side.

        Returns whether the connection stays open for them; with TLS it cannot. A client that is
        sent a body in parts counts as gone: that is how most of them stop it.
        """
        if any(reply.parts is not None for reply in self._replies):
            self._closing = True
            self._transport.abort()
            return False
        waits = bool(self._replies) and self._transport.can_write_eof()  # TLS has no half-close
        self._close_after_answers()
        return waits

    def pause_writing(self) -> None:
        """Stop reading from a client that reads its responses too slowly."""
        self._write_paused = True
        self._taken = self._written - self._transport.get_write_buffer_size()
        self.deadline = time.monotonic() + self.owner.limits.progress_s
        self._regulate()

    def resume_writing(self) -> None:
        """Continue: the client reads its responses again."""
        self._write_paused = False
        self.flush()
        self._set_idle_deadline()
        self._regulate()

    # Called by the reader -------------------------------------------------------------------------

    def take(self, request: HttpRequest, keep_alive: bool) -> None:
        """Call the handler with a whole request."""
        self._requests += 1
        head = request.method == "HEAD"
        request_id = request.headers.get(REQUEST_ID_HEADER)
        reply = HttpReply(self, head, keep_alive and not self.owner.refusing, request_id)
        self._replies.append(reply)
        if len(self._replies) >= self.owner.limits.max_pipelined:
            self._regulate()
        self.owner.handling_since = time.monotonic()
        try:
            self.owner.handler(request, reply)
        except BaseException:  # a fault in one request must not end the client's other requests
            _log.exception("%s %s failed", request.method, request.path)
            reply.send(500, b"internal error", "text/plain; charset=utf-8")
        self.owner.handling_since = 0.0

    def send_100_continue(self) -> None:
        """Tell the client to send its body, unless other responses come first."""
        if not self._replies:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Writing --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the responses whose turn it is, as far as the client reads them."""
        while not self._write_paused:
            data, closes = self._next_data()
            if not (data or closes) or self._transport.is_closing():
                return
            self._written += len(data)
            self._transport.write(data)
            if closes:
                for reply in self._replies:  # requests after the last response are not answered
                    reply.drop()
                self._replies.clear()
                self._close()
                return
            self._set_idle_deadline()
            if self._paused:
                self._regulate()
            if not self._replies:
                return

    def _next_data(self) -> tuple[bytes | memoryview, bool]:
        """Return what to write at once, and whether the connection ends with it."""
        if self._rest is not None:
            return self._next_part(self._rest)
        ready: list[bytes] = []
        size = 0
        closes = False
        while self._replies and not closes and size < _WRITE_BYTES:
            payload = self._replies[0].payload
            if payload is None:
                parts = self._replies[0].parts
                if parts is not None and not ready:
                    return self._next_parts(parts)
                break
            if len(payload[1]) > _PART_BYTES:
                if not ready:
                    self._rest = memoryview(payload[1])
                    return payload[0], False
                break
            ready += payload
            size += len(payload[1])
            closes = self._replies.popleft().closes
        return b"".join(ready), closes

    def _next_part(self, rest: memoryview) -> tuple[memoryview, bool]:
        """Return a part of a large response, uncopied; other clients get turns in between."""
        part, rest = rest[:_PART_BYTES], rest[_PART_BYTES:]
        self._rest = rest or None
        return part, not rest and self._replies.popleft().closes

    def _next_parts(self, parts: PartedBody) -> tuple[bytes, bool]:
        """Return the parts that wait; meanwhile nothing that the client does not read is taken."""
        if self._transport.is_closing():
            return b"", False
        if not self._parted:
            self._parted = True
            self._transport.set_write_buffer_limits(high=1)  # with 0, TLS never goes on
        data, ended = parts.take()
        if not ended:
            return data, False
        self._parted = False
        self._transport.set_write_buffer_limits()
        return data, self._replies.popleft().closes

    def expire(self, now: float) -> None:
        """Close the connection if the client's deadline has passed.

        A client that waits for the server does not expire. Requests whose own deadline has passed
        are answered by their handler's `expire`.
        """
        for reply in list(self._replies):
            if reply.deadline <= now:
                reply.deadline = float("inf")
                reply.expire()
        if self._write_paused:
            self._renew_for_taken(now)
        elif self._replies or self._held:
            return
        if now < self.deadline:
            return
        if self._reader.receiving and not self._write_paused:
            self._refuse(408, "the request did not arrive in time")
        else:
            self._transport.abort()

    def end(self, abort: bool) -> None:
        """Close now (`abort`), or as soon as the pending responses are written."""
        if abort:
            self._transport.abort()
        elif not self._replies:
            self._closing = True
            self._transport.close()

    def end_with_next(self) -> None:
        """Close after the responses that are pending, if the last one is not made yet."""
        if self._replies and self._replies[-1].payload is None:
            self._replies[-1].close()

    @property
    def busy(self) -> bool:
        """Whether a response is still to be made or written."""
        return bool(self._replies) or self._transport.get_write_buffer_size() > 0

    # Reading --------------------------------------------------------------------------------------

    def _take_held(self) -> None:
        """Parse held bytes; after each request, other clients have their turn."""
        self._parse_scheduled = False
        data, at, before = memoryview(self._held), 0, self._requests
        while at < len(data) and before == self._requests and not self._closing:
            if self._owes_too_much():
                break
            size = max(_PIECE_BYTES, self._reader.body_left())
            self._parse(data[at : at + size])
            at += size
        self._held = b"" if self._closing else bytes(data[at:])
        self._regulate()

    def _parse(self, data: bytes | memoryview) -> None:
        """Feed the reader; refuse the request if it breaks a rule or a limit."""
        try:
            self._reader.feed(data)
        except Refused as refusal:
            self._refuse(refusal.status, str(refusal))
        except Upgraded:  # the offer is declined: earlier requests are answered as usual
            self._lingers = True
            self._close_after_answers()

    def _owes_too_much(self) -> bool:
        return self._write_paused or len(self._replies) >= self.owner.limits.max_pipelined

    def _regulate(self) -> None:
        """Continue to read and parse, unless too many responses are pending or unread."""
        if self._closing:
            return
        wait = self._owes_too_much()
        if wait or self._held:
            self._pause()
        else:
            self._resume()
        if self._held and not wait and not self._parse_scheduled:
            self._parse_scheduled = True
            asyncio.get_running_loop().call_soon(self._take_held)

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # Closing --------------------------------------------------------------------------------------

    def _refuse(self, status: int, text: str) -> None:
        """Answer with an error after the pending responses, and close; ignore further input."""
        _log.debug("a request is refused before it is a call: %d, %s", status, text)
        self._closing = self._lingers = True
        self._reader.drop()
        reply = HttpReply(self, head=False, keep_alive=False)
        self._replies.append(reply)
        self._pause()
        reply.send(status, text.encode(), "text/plain; charset=utf-8")

    def _close_after_answers(self) -> None:
        """Close once the pending responses are written."""
        self._closing = True
        self._reader.drop()
        if self._replies:
            self._replies[-1].close()
        else:
            self._close()

    def _close(self) -> None:
        """Close. After a refusal keep reading until then: a reset would lose the response."""
        self._closing = True
        self.deadline = time.monotonic() + self.owner.limits.progress_s
        if self._lingers and self._transport.can_write_eof():
            self._transport.write_eof()
            self._resume()
        else:
            self._transport.close()

    # Deadlines ------------------------------------------------------------------------------------

    def _set_idle_deadline(self) -> None:
        """Set the deadline of the next request, if all responses have been written."""
        if not self._replies and not self._write_paused:
            limits = self.owner.limits
            wait = limits.progress_s if self._reader.receiving else limits.idle_s
            self.deadline = time.monotonic() + wait

    def _renew_for_taken(self, now: float) -> None:
        """Renew the deadline of a client that reads its responses slowly, but fast enough."""
        taken = self._written - self._transport.get_write_buffer_size()
        if taken - self._taken >= self.owner.limits.progress_bytes:
            self._taken = taken
            self.deadline = now + self.owner.limits.progress_s


def _may_be_several(data: bytes) -> bool:
    """Return whether data may hold several requests: lines follow the first blank line."""
    blank = data.find(b"\r\n\r\n")
    return blank >= 0 and data.find(b"\r", blank + 4) >= 0
