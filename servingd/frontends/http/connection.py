"""One HTTP/1.1 client: its requests, and its answers, in order.

Theory of operation. Everything here runs on one loop's thread.

1. Bytes arrive in `data_received`. A request whose head is known is taken at once; the rest goes to
   `RequestReader`, a piece at a time where one read may hold many requests, so that other clients
   have their turn (`_take_held`).
2. `take` queues a reply for each whole request and calls the handler, which answers the reply now
   or later, from any thread; the owner then calls `flush` on the loop's thread.
3. `flush` writes the answers whose turn it is: replies leave in the order of their requests. A
   large answer leaves in parts, and only as fast as the client takes it.
4. `_regulate` stops reading while too many answers are owed or not taken, so that no client makes
   the server hold more than `HttpLimits` allows.
5. `expire` is called twice a second and closes a client whose deadline has passed: one that sends
   its request or takes its answer too slowly, or is idle. While a client waits for us it has time.

What exceeds a limit is answered or closed alone; no other client notices.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any, Protocol

from servingd.frontends.http.heads import KnownHeads
from servingd.frontends.http.messages import HttpHandler, HttpReply, HttpRequest
from servingd.frontends.http.reader import HttpLimits, Refused, RequestReader, Upgraded
from servingd.frontends.reply import REQUEST_ID_HEADER

__all__ = ["Connection", "ConnectionOwner", "HttpLimits"]

_log = logging.getLogger(__name__)

_PIECE_BYTES = 512
"""Of requests that come at once, this much is parsed at a time: sixteen at most."""

_PART_BYTES = 256 << 10
"""A larger answer is written in parts."""

_WRITE_BYTES = 64 << 10
"""What is written before looking whether the client takes it."""


class ConnectionOwner(Protocol):
    """What a connection needs of the loop that it belongs to; see `HttpLoop`."""

    limits: HttpLimits
    handler: HttpHandler
    heads: KnownHeads
    refusing: bool
    """Whether connections are to be closed after their next answer."""
    handling_since: float
    """When the handler was called, while it runs; else 0."""

    @property
    def alone(self) -> bool:
        """Whether there is no more than one connection."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether this is the thread that writes."""
        ...

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, unless there are too many."""
        ...

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        ...

    def answered(self, connection: Connection) -> None:
        """A reply of this connection has its answer; from any thread."""
        ...


class Connection(asyncio.Protocol):
    """One client. Everything here runs on the loop's thread."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self.owner = owner
        self._reader = RequestReader(self, owner.limits, owner.heads)
        self._transport: Any = None
        self._requests = 0  # whole ones
        self._held = b""  # received, but not parsed yet
        self._turn = False  # whether the loop will parse some of it
        self._replies: deque[HttpReply] = deque()  # in the order of their requests
        self._rest: memoryview | None = None  # of the first answer, if it is large and begun
        self._written = 0  # bytes
        self._taken = 0  # bytes that the client had taken when its time was last renewed
        self._write_paused = False  # it takes its answers too slowly
        self._paused = False  # nothing is read from it
        self._closing = False  # what it sends is dropped
        self._lingers = False
        self.lost = False  # whether it has gone
        self.deadline = 0.0  # when it has used its time up, monotonic

    # asyncio --------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        self._transport = transport
        self.deadline = time.monotonic() + self.owner.limits.idle_s
        if not self.owner.admit(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._closing = self.lost = True
        self._held = b""
        self.owner.forget(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came, a piece at a time if it may be a crowd of requests."""
        if self._closing:
            return
        if not (self._held or self._reader.receiving):
            request = self.owner.heads.find(data)
            if request is not None:
                self.take(request, True)
                return
        many = len(data) > max(_PIECE_BYTES, self._reader.body_left()) and _are_many(data)
        if self._held or many:
            self._held += data
            self._take_held()
        else:
            self._parse(data)

    def eof_received(self) -> bool:
        """The client has closed its side; it may still wait for answers."""
        waits = bool(self._replies) and self._transport.can_write_eof()  # TLS ends as a whole
        self._close_after_answers()
        return waits

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: read nothing more from it meanwhile."""
        self._write_paused = True
        self._taken = self._written - self._transport.get_write_buffer_size()
        self.deadline = time.monotonic() + self.owner.limits.progress_s
        self._regulate()

    def resume_writing(self) -> None:
        """It takes them again."""
        self._write_paused = False
        self.flush()
        self._set_idle_deadline()
        self._regulate()

    # its reader -----------------------------------------------------------------------------------

    def take(self, request: HttpRequest, keep_alive: bool) -> None:
        """Hand a request over that is whole."""
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
        except BaseException:  # one bad request must not end the others of this client
            _log.exception("%s %s failed", request.method, request.path)
            reply.send(500, b"internal error", "text/plain; charset=utf-8")
        self.owner.handling_since = 0.0

    def send_100_continue(self) -> None:
        """Give leave to send a body, unless other answers come first: it must then do without."""
        if not self._replies:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ours -----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the answers whose turn it is, as far as the client takes them."""
        while not self._write_paused:
            data, closes = self._next_data()
            if not data or self._transport.is_closing():
                return
            self._written += len(data)
            self._transport.write(data)
            if closes:
                self._replies.clear()  # what was asked behind the last answer gets none
                self._close()
                return
            self._set_idle_deadline()
            if self._paused:
                self._regulate()
            if not self._replies:
                return

    def _next_data(self) -> tuple[bytes | memoryview, bool]:
        """What to write at once, and whether the connection ends with it."""
        if self._rest is not None:
            return self._next_part(self._rest)
        ready: list[bytes] = []
        size = 0
        closes = False
        while self._replies and not closes and size < _WRITE_BYTES:
            payload = self._replies[0].payload
            if payload is None:
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
        """A part of a large answer: it is not copied, and others' turns come between."""
        part, rest = rest[:_PART_BYTES], rest[_PART_BYTES:]
        self._rest = rest or None
        return part, not rest and self._replies.popleft().closes

    def expire(self, now: float) -> None:
        """Close if the client has used its time up; while it waits for us, it has time.

        Requests that have used up the time that their handler gave them are answered so.
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
        """Close now, or as soon as the answers under way are written."""
        if abort:
            self._transport.abort()
        elif not self._replies:
            self._closing = True
            self._transport.close()

    @property
    def busy(self) -> bool:
        """Whether an answer is still to be given or written."""
        return bool(self._replies) or self._transport.get_write_buffer_size() > 0

    # what comes in --------------------------------------------------------------------------------

    def _take_held(self) -> None:
        """Parse what is held; after each request, other clients have their turn."""
        self._turn = False
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
        try:
            self._reader.feed(data)
        except Refused as refusal:
            self._refuse(refusal.status, str(refusal))
        except Upgraded:  # declined by answering as if it had not been asked for
            self._lingers = True
            self._close_after_answers()

    def _owes_too_much(self) -> bool:
        return self._write_paused or len(self._replies) >= self.owner.limits.max_pipelined

    def _regulate(self) -> None:
        """Read and parse on, unless too many answers are owed, or not taken."""
        if self._closing:
            return
        wait = self._owes_too_much()
        if wait or self._held:
            self._pause()
        else:
            self._resume()
        if self._held and not wait and not self._turn:
            self._turn = True
            asyncio.get_running_loop().call_soon(self._take_held)

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # the end --------------------------------------------------------------------------------------

    def _refuse(self, status: int, text: str) -> None:
        """Answer after what is pending, and close: the rest of the input means nothing any more."""
        _log.debug("a request is refused before it is a call: %d, %s", status, text)
        self._closing = self._lingers = True
        self._reader.drop()
        reply = HttpReply(self, head=False, keep_alive=False)
        self._replies.append(reply)
        self._pause()
        reply.send(status, text.encode(), "text/plain; charset=utf-8")

    def _close_after_answers(self) -> None:
        self._closing = True
        self._reader.drop()
        if self._replies:
            self._replies[-1].close()
        else:
            self._close()

    def _close(self) -> None:
        """Close; a refused client is read from until it has its answer: a reset would lose that."""
        self._closing = True
        self.deadline = time.monotonic() + self.owner.limits.progress_s
        if self._lingers and self._transport.can_write_eof():
            self._transport.write_eof()
            self._resume()
        else:
            self._transport.close()

    # Deadlines ------------------------------------------------------------------------------------

    def _set_idle_deadline(self) -> None:
        """All answers are given, or taken: wait for what comes next."""
        if not self._replies and not self._write_paused:
            limits = self.owner.limits
            wait = limits.progress_s if self._reader.receiving else limits.idle_s
            self.deadline = time.monotonic() + wait

    def _renew_for_taken(self, now: float) -> None:
        """A client that takes its answers slowly has time as long as it takes enough."""
        taken = self._written - self._transport.get_write_buffer_size()
        if taken - self._taken >= self.owner.limits.progress_bytes:
            self._taken = taken
            self.deadline = now + self.owner.limits.progress_s


def _are_many(data: bytes) -> bool:
    """Whether there may be several requests: something follows the first blank line, and lines."""
    blank = data.find(b"\r\n\r\n")
    return blank >= 0 and data.find(b"\r", blank + 4) >= 0
