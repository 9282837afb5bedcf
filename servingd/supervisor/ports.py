"""Hold the ports while workers come and go, so that nobody else can take them."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from servingd.config.server import ServerConfig
from servingd.errors import InvalidConfig


class ReservedPorts:
    """Sockets that are bound and never listen: workers share their ports, and strangers cannot.

    `open` and `close` once each. A socket that does not listen gets no connections.
    """

    def __init__(self, config: ServerConfig) -> None:
        """Raise InvalidConfig for what several workers cannot share."""
        if config.grpc_socket_path:
            raise InvalidConfig(
                "--workers: expected 1 with --grpc_socket_path, since a Unix socket has one "
                f"listener; got {config.workers}"
            )
        self._host = config.host
        self._ports = {
            "gRPC": config.port,
            "HTTP": config.rest_api_port,
            "admin": config.admin_port,
            "admin HTTP": getattr(config, "admin_rest_port", 0),
        }
        self._stack = ExitStack()

    def open(self) -> None:
        """Bind every port. Raises OSError naming a busy one."""
        with ExitStack() as stack:
            for name, port in self._ports.items():
                if port:
                    _bind(
                        name, self._host, port, shared=False
                    ).close()  # another server's is an error
                    first = _bind(name, self._host, port, shared=True)
                    stack.callback(first.close)
                    # SO_REUSEADDR is needed where connections of an earlier server wait for their
                    # end; but who has it lets in others that have it, while nobody listens.
                    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
                    stack.callback(_bind(name, self._host, port, shared=True, again=True).close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Give the ports up."""
        self._stack.close()


def _bind(name: str, host: str, port: int, *, shared: bool, again: bool = False) -> socket.socket:
    dual = not host and socket.has_dualstack_ipv6()
    held = socket.socket(socket.AF_INET6 if dual or ":" in host else socket.AF_INET)
    try:
        if not again:  # the kernel remembers what the last one had
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dual:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if shared:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
        if not shared:
            held.listen(1)  # else a port that another process only holds would look free
    except OSError as error:
        held.close()
        raise OSError(f"the {name} port {port} cannot be used: {error.strerror}") from error
    return held
