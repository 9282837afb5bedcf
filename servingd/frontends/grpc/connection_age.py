"""Send clients to new connections after a while, so that the workers of a port share them evenly.

The kernel gives each new connection to one of the processes that listen, and a client of gRPC keeps
its connection for ever. So one that has been connected for long is told to connect again: it loses
no call (see `leaving.py`).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from servingd.frontends.grpc.leaving import TransportThreads, own_sockets, tell

_SPREAD = 0.1
"""The share by which ages differ, so that clients that came together do not return together."""

_log = logging.getLogger(__name__)


class ConnectionAge:
    """Owns the thread `connection-age`. `start` and `stop` once each."""

    def __init__(self, port: Callable[[], int], max_age_s: float) -> None:
        """`port` returns the port's number once it is bound."""
        self._port = port
        self._max_age_s = max_age_s
        self._ended = threading.Event()
        self._due: dict[object, float] = {}  # by peer; infinity: it was told
        self._thread = threading.Thread(target=self._run, name="connection-age", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(2)

    def _run(self) -> None:
        transport = TransportThreads()
        while not self._ended.wait(min(1.0, self._max_age_s / 10)):
            try:
                self._look(time.monotonic(), transport)
            except BaseException:  # the next look may go well
                _log.exception("the ages of connections could not be looked at")
        transport.close()

    def _look(self, now: float, transport: TransportThreads) -> None:
        """Tell each client whose time has come, and forget those that are gone."""
        seen: dict[object, float] = {}
        for _, client in own_sockets(self._port(), listening=False):
            peer = client.getpeername()
            due = self._due.get(peer)
            if due is None:
                due = now + self._max_age_s * random.uniform(1 - _SPREAD, 1 + _SPREAD)
            seen[peer] = float("inf") if due <= now and tell(client, transport) else due
        self._due = seen
