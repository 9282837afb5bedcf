"""One event loop of the HTTP transport: its connections, on its thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Coroutine
from typing import Any

from servingd.frontends.gather import Gather, gather_nothing
from servingd.frontends.http.connection import Connection
from servingd.frontends.http.heads import KnownHeads
from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.messages import HttpHandler

_LEAVE_S = 1.0
"""Seconds after which a client that asks nothing is sent away: most ask again before."""

_log = logging.getLogger(__name__)


class HttpLoop:
    """Owns a thread. `start` and `stop` once each; thread-safe where nothing else is said."""

    def __init__(
        self,
        name: str,
        handler: HttpHandler,
        limits: HttpLimits,
        tls: ssl.SSLContext | None,
        gather: Gather = gather_nothing,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self._gather = gather
        self.heads = KnownHeads()
        self.refusing = False
        self.handling_since = 0.0  # when the running handler was called; 0: none runs
        self.loop: asyncio.AbstractEventLoop = _new_loop()
        self._tls: dict[str, Any] = {}
        if tls:
            self._tls = {"ssl": tls, "ssl_handshake_timeout": limits.head_s}
        self._adopting: set[asyncio.Task[None]] = set()  # the loop's thread only
        self._connections: set[Connection] = set()  # the loop's thread only
        self._lock = threading.Lock()
        self._answered: list[Connection] = []  # guarded by _lock
        self._turn: list[Connection] = []  # answered in this turn of the loop; its thread only
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._ident = 0  # the thread's identifier, once it runs
        self._ended = asyncio.Event()
        self._socket: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None  # the loop's thread only
        self._backlog = 0

    def start(self, listening: socket.socket | None = None, backlog: int = 0) -> None:
        """Start the thread; with a socket, accept clients on it."""
        self._socket, self._backlog = listening, backlog
        self._thread.start()

    def stop(self) -> bool:
        """Cut off the connections and end the thread; return False if it was not running."""
        if not self._thread.is_alive():
            return False
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(5)
        return True

    def leave(self) -> None:
        """Accept no more clients; close each after its next response, or soon if it is idle."""
        self.refusing = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._leave)

    def wait_idle(self, deadline: float) -> bool:
        """Wait until every response is written, at most until `deadline` (monotonic seconds)."""
        pause = threading.Event()
        while self._asked(self._busy(), deadline):
            if time.monotonic() >= deadline:
                return False
            pause.wait(0.01)
        return True

    def adopt(self, client: socket.socket) -> None:
        """Serve a client that was accepted elsewhere; on the loop's thread."""

        async def connect() -> None:
            try:
                await self.loop.connect_accepted_socket(
                    lambda: Connection(self), client, **self._tls
                )
            except OSError:  # it has disconnected, or does not use TLS
                client.close()

        task = self.loop.create_task(connect())
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    def connections(self) -> int:
        """Return the number of connected clients."""
        return len(self._connections)

    def _asked(self, question: Coroutine[Any, Any, bool], deadline: float) -> bool:
        """Return the loop's answer to a question; True if it has not answered by `deadline`."""
        try:
            answer = asyncio.run_coroutine_threadsafe(question, self.loop)
        except RuntimeError:  # the loop has ended, and every request with it
            question.close()
            return False
        try:
            return answer.result(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, concurrent.futures.CancelledError):
            answer.cancel()
            return True

    # Called by connections and replies ------------------------------------------------------------

    @property
    def alone(self) -> bool:
        """Whether there is at most one connection; only a hint from other threads."""
        return len(self._connections) <= 1

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the loop's thread."""
        return threading.get_ident() == self._ident

    def admit(self, connection: Connection) -> bool:
        """Register a new connection; return False if there are too many."""
        if len(self._connections) >= self.limits.max_connections:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """Unregister a closed connection."""
        self._connections.discard(connection)

    def answered(self, connection: Connection) -> None:
        """Schedule a flush: a reply of this connection has its response. Thread-safe."""
        if self.is_here:
            # Written together with the responses to all requests that were read in this turn of
            # the loop: each write may wake its client, and wake-ups cost more than the responses.
            if not self._turn:
                self.loop.call_soon(self._flush_turn)
            self._turn.append(connection)
            return
        with self._lock:
            first = not self._answered
            self._answered.append(connection)
        if first:
            with contextlib.suppress(RuntimeError):  # the loop has ended, with all connections
                self.loop.call_soon_threadsafe(self._flush_all)

    # The loop's thread ----------------------------------------------------------------------------

    def _flush_turn(self) -> None:
        connections, self._turn = self._turn, []
        _flush(connections)

    def _flush_all(self) -> None:
        with self._lock:
            connections, self._answered = self._answered, []
        _flush(connections)

    def _run(self) -> None:
        """Run the event loop until it is stopped; the thread's main function."""
        asyncio.set_event_loop(self.loop)
        self._ident = threading.get_ident()
        # Queued together with the calls of all requests that are read in this turn of the loop.
        flush = self._gather(lambda: self.loop.call_soon(flush))
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self.loop.close()

    def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.end_with_next()  # those that come later see `refusing`
        self.loop.call_later(_LEAVE_S, self._close_idle)

    def _close_idle(self) -> None:
        """Close the connections on which no request is under way; again, until there is none."""
        for connection in list(self._connections):
            if not connection.busy:
                connection.end(abort=False)
        if self._connections:
            self.loop.call_later(_LEAVE_S, self._close_idle)

    async def _serve(self) -> None:
        """Accept clients until the stop; then close the connections, idle ones first."""
        if self._socket is not None:
            self._server = await self.loop.create_server(
                lambda: Connection(self),
                sock=self._socket,
                backlog=self._backlog,  # asyncio calls `listen` again
                **self._tls,
            )
        sweeper = self.loop.create_task(self._sweep())
        await self._ended.wait()
        sweeper.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.end(abort=False)
        await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.end(abort=True)
        await asyncio.sleep(0)

    async def _sweep(self) -> None:
        """Check all connections' deadlines every `sweep_s` seconds."""
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            now = time.monotonic()
            for connection in list(self._connections):
                try:
                    connection.expire(now)
                except BaseException:  # else no connection would ever expire again
                    _log.exception("checking a connection's deadlines failed")

    async def _busy(self) -> bool:
        return any(connection.busy for connection in self._connections)


def _flush(connections: list[Connection]) -> None:
    for connection in connections:
        try:
            connection.flush()
        except BaseException:  # one client must not keep others from their responses
            _log.exception("the responses to one client could not be written")


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop, or asyncio's if uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
