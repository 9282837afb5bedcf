"""Takes clients in while the HTTP loop is held up by a call that it runs itself."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from servingd.frontends.http.loop import HttpLoop

_PATIENCE_S = 0.02
"""A client that has waited so long for a loop that has been so long in one handler is taken in."""


class Standby:
    """Watches the port that `first` listens on, and has `second` serve whom `first` keeps waiting.

    It costs a wake-up for each new connection, at most one in 20 ms, and nothing for a request.
    """

    def __init__(self, second: HttpLoop, first: HttpLoop) -> None:
        self._second = second
        second.refusing = True  # one answer each: who comes again comes to `first`, which is faster
        self._first = first
        self._port: socket.socket

    def start(self, port: socket.socket) -> None:
        """Watch from now on; `port` is this object's own."""
        port.setblocking(False)
        self._port = port
        self._second.start()
        self._second.loop.call_soon_threadsafe(self._watch)

    def stop(self) -> None:
        """End the watch, and cut off whom it has taken in."""
        if self._second.stop():
            self._port.close()

    # The loop's thread ----------------------------------------------------------------------------

    def _watch(self) -> None:
        self._second.loop.add_reader(self._port, self._somebody_waits)

    def _somebody_waits(self) -> None:
        self._second.loop.remove_reader(self._port)
        self._second.loop.call_later(_PATIENCE_S, self._look)

    def _look(self) -> None:
        since = self._first.handling_since
        if since and time.monotonic() - since >= _PATIENCE_S:
            with contextlib.suppress(OSError):
                while select.select([self._port], [], [], 0)[0]:
                    client, _ = self._port.accept()
                    client.setblocking(False)
                    self._second.adopt(client)
        self._watch()
