"""The HTTP/1.1 carrier: one port, one thread, completion-based replies.

A handler gets a request and a reply that it may answer later, from any thread; answers from other
threads reach the loop together, by one wake-up.
"""

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

from servingd.frontends.http_connection import Connection, HttpLimits
from servingd.frontends.http_heads import KnownHeads
from servingd.frontends.http_messages import HttpHandler

_log = logging.getLogger(__name__)

_BACKLOG = 4096
"""How many clients may wait to be accepted; those beyond try again a second later."""


class HttpCarrier:
    """Owns the port and the thread `http`. `bind`, `start` and `stop` once each, in this order."""

    def __init__(
        self,
        handler: HttpHandler,
        limits: HttpLimits | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.handler = handler
        self._ssl = ssl_context
        self.limits = limits or HttpLimits()
        self.heads = KnownHeads()
        self.refusing = False  # written by refuse, read by the loop
        self._socket: socket.socket | None = None
        self._connections: set[Connection] = set()  # the loop's thread only
        self._lock = threading.Lock()
        self._answered: list[Connection] = []  # guarded by _lock
        self._turn: list[Connection] = []  # answered in this turn of the loop; its thread only
        self._loop: asyncio.AbstractEventLoop = _new_loop()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._ident = 0  # the thread's, once it runs
        self._ended = asyncio.Event()

    def bind(self, host: str, port: int) -> int:
        """Take the port; return its number. Raises OSError naming a port that is busy."""
        try:
            self._socket = _listen(host, port)
        except OSError as error:
            raise OSError(f"the HTTP port {port} cannot be used: {error.strerror}") from error
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Answer requests."""
        self._thread.start()

    def refuse(self) -> None:
        """Close every connection after its next answer."""
        self.refusing = True

    def wait_idle(self, deadline: float) -> bool:
        """Wait until every request has its answer written, at most until `deadline` (monotonic)."""
        pause = threading.Event()
        while self._asked(self._busy(), deadline):
            if time.monotonic() >= deadline:
                return False
            pause.wait(0.01)
        return True

    def _asked(self, question: Coroutine[Any, Any, bool], deadline: float) -> bool:
        """What the loop answers, once its thread has time; True where it has none until then."""
        try:
            answer = asyncio.run_coroutine_threadsafe(question, self._loop)
        except RuntimeError:  # the loop has ended, and every request with it
            question.close()
            return False
        try:
            return answer.result(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, concurrent.futures.CancelledError):
            answer.cancel()
            return True

    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def stop(self) -> None:
        """Close the port, cut off what is left, end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(5)
        elif self._socket is not None:
            self._socket.close()

    # Called by connections and replies ------------------------------------------------------------

    @property
    def alone(self) -> bool:
        """Whether there is no more than one connection; a glance, from any thread."""
        return len(self._connections) <= 1

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, unless there are too many."""
        if len(self._connections) >= self.limits.max_connections:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        self._connections.discard(connection)

    def answered(self, connection: Connection) -> None:
        """A reply of this connection has its answer; from any thread."""
        if threading.get_ident() == self._ident:
            # Together with the answers to all that was read in this turn of the loop: each write
            # may wake its client, and many such wake-ups cost more than the answers.
            if not self._turn:
                self._loop.call_soon(self._flush_turn)
            self._turn.append(connection)
            return
        with self._lock:
            first = not self._answered
            self._answered.append(connection)
        if first:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                self._loop.call_soon_threadsafe(self._flush_all)

    # The loop's thread ----------------------------------------------------------------------------

    def _flush_turn(self) -> None:
        connections, self._turn = self._turn, []
        _flush(connections)

    def _flush_all(self) -> None:
        with self._lock:
            connections, self._answered = self._answered, []
        _flush(connections)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._ident = threading.get_ident()
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        assert self._socket is not None  # bound before start
        server = await self._loop.create_server(
            lambda: Connection(self),
            sock=self._socket,
            backlog=_BACKLOG,  # it listens again
            ssl=self._ssl,
            ssl_handshake_timeout=self.limits.head_s if self._ssl else None,
        )
        sweeper = self._loop.create_task(self._sweep())
        await self._ended.wait()
        sweeper.cancel()
        server.close()
        for connection in list(self._connections):
            connection.end(abort=False)
        await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.end(abort=True)
        await asyncio.sleep(0)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            now = time.monotonic()
            for connection in list(self._connections):
                try:
                    connection.expire(now)
                except BaseException:  # else nobody's time would ever be up again
                    _log.exception("a connection's time limits failed")

    async def _busy(self) -> bool:
        return any(connection.busy for connection in self._connections)


def _flush(connections: list[Connection]) -> None:
    for connection in connections:
        try:
            connection.flush()
        except BaseException:  # one client must not keep others from their answers
            _log.exception("the answers to one client could not be written")


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, or asyncio's own where there is no uvloop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; an empty host means every address, of both families where there are."""
    dual = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual, reuse_port=False
    )
