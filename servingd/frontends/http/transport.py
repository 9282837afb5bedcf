"""The HTTP/1.1 transport: one port, completion-based replies, and probes that are always answered.

A handler gets a request and a reply that it may answer later, from any thread; responses from other
threads reach their loop together, by one wake-up.
"""

from __future__ import annotations

import socket
import ssl

from servingd.frontends.gather import Gather, gather_nothing
from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.loop import HttpLoop
from servingd.frontends.http.messages import HttpHandler
from servingd.frontends.http.standby import Standby
from servingd.machine.listeners import let_nobody_connect

_BACKLOG = 4096
"""The number of clients that may wait to be accepted; further ones try again a second later."""


class HttpTransport:
    """Owns the port and the threads NAME and NAME-standby. `bind`, `start`, `stop` once each.

    Handlers may run a model on the loop's thread, and a call expected to be cheap may be slow: then
    the standby accepts new clients. Their requests go to `standby_handler`, which must never block.
    """

    def __init__(
        self,
        handler: HttpHandler,
        limits: HttpLimits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        standby_handler: HttpHandler | None = None,
        gather: Gather = gather_nothing,
        name: str = "http",
    ) -> None:
        limits = limits or HttpLimits()
        self._loop = HttpLoop(name, handler, limits, ssl_context, gather)
        second = HttpLoop(f"{name}-standby", standby_handler or handler, limits, ssl_context)
        self._standby = Standby(second, self._loop)
        self._loops = (self._loop, second)
        self._socket: socket.socket | None = None

    def bind(self, host: str, port: int, *, shared: bool = False) -> int:
        """Bind the port; return its number. Raises OSError naming a busy port.

        `shared`: other processes listen on it as well.
        """
        try:
            self._socket = _listen(host, port, shared=shared)
        except OSError as error:
            raise OSError(f"the HTTP port {port} cannot be used: {error.strerror}") from error
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Start to answer requests."""
        assert self._socket is not None  # `bind` was called
        own = self._socket.dup()  # the loop closes its own when it ends
        self._loop.start(self._socket, _BACKLOG)
        self._standby.start(own)

    def leave(self) -> None:
        """Accept no more clients; close each after its next response, or soon if it is idle.

        Takes a moment, in which clients that are connecting are accepted.
        """
        if self._socket is not None:
            let_nobody_connect(self._socket)
        self._loop.leave()
        self._standby.leave()

    def refuse(self) -> None:
        """Close every connection after its next response."""
        for loop in self._loops:
            loop.refusing = True

    def wait_idle(self, deadline: float) -> bool:
        """Wait until every response is written, at most until `deadline` (monotonic seconds)."""
        return all(loop.wait_idle(deadline) for loop in self._loops)

    def connections(self) -> int:
        """Return the number of connected clients."""
        return sum(loop.connections() for loop in self._loops)

    def stop(self) -> None:
        """Close the port, cut off the connections, and end the threads."""
        self._standby.stop()
        if not self._loop.stop() and self._socket is not None:
            self._socket.close()


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a listening socket; an empty host means every address, IPv6 and IPv4 if possible."""
    dual = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual, reuse_port=shared
    )
