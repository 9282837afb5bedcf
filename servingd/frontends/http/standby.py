"""Accept clients while the HTTP loop is blocked by a call that it runs itself."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from servingd.frontends.http.loop import HttpLoop

_BLOCKED_S = 0.02
"""Seconds after which a waiting client is accepted here, if the loop is blocked that long."""


class Standby:
    """Watches the port of `first`; while `first` is blocked, `second` serves new connections.

    It costs a wake-up for each new connection, at most one in 20 ms, and nothing for a request.
    """

    def __init__(self, second: HttpLoop, first: HttpLoop) -> None:
        self._second = second
        second.refusing = True  # one response each: a client that returns gets the faster `first`
        self._first = first
        self._left = False  # the loop's thread only
        self._port: socket.socket

    def start(self, port: socket.socket) -> None:
        """Begin to watch. `port` must be a duplicate that only this object uses."""
        port.setblocking(False)
        self._port = port
        self._second.start()
        self._second.loop.call_soon_threadsafe(self._watch)

    def stop(self) -> None:
        """Stop watching, and cut off the clients accepted here."""
        if self._second.stop():
            self._port.close()

    def leave(self) -> None:
        """Accept the clients that wait, and no more; thread-safe."""
        self._second.loop.call_soon_threadsafe(self._leave)

    # The loop's thread ----------------------------------------------------------------------------

    def _watch(self) -> None:
        self._second.loop.add_reader(self._port, self._on_waiting_client)

    def _leave(self) -> None:
        self._left = True
        self._second.loop.remove_reader(self._port)
        self._accept()
        self._port.close()

    def _on_waiting_client(self) -> None:
        self._second.loop.remove_reader(self._port)
        self._second.loop.call_later(_BLOCKED_S, self._accept_if_blocked)

    def _accept_if_blocked(self) -> None:
        """Accept the waiting clients if the first loop is still blocked."""
        if self._left:
            return
        since = self._first.handling_since
        if since and time.monotonic() - since >= _BLOCKED_S:
            self._accept()
        self._watch()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while select.select([self._port], [], [], 0)[0]:
                client, _ = self._port.accept()
                client.setblocking(False)
                self._second.adopt(client)
