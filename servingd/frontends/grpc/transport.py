"""gRPC: choose the transport that takes the ports, and set up grpcio behind it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import platform
import socket
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from servingd.config.tls_and_monitoring import SSLConfig
from servingd.errors import Code, InvalidConfig
from servingd.frontends.gather import Gather, gather_nothing
from servingd.frontends.grpc.grpcio import DEFAULT_WORKERS, GrpcioTransport
from servingd.frontends.grpc.native import NativeTransport, unusable_because
from servingd.frontends.grpc.unread import UnreadLimits
from servingd.frontends.reply import Handler, PartsHandler, Reply
from servingd.frontends.tls import grpc_credentials
from servingd.wire.protos import POOL

_serial = itertools.count()

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcOptions:
    """The ports of gRPC, and their settings."""

    port: int
    """The TCP port; 0: none."""
    host: str = ""
    """The IP address of all ports; empty: every address."""
    socket_path: str = ""
    """An additional Unix socket; empty: none."""
    admin_port: int = 0
    """The only port of administrators' methods; 0: they are on the public ports."""
    transport: str = "auto"
    """`auto`, `native` or `grpcio`."""
    max_request_bytes: int = 2**31 - 1
    ssl: SSLConfig | None = None
    alts: bool = False
    arguments: tuple[tuple[str, int | str], ...] = ()
    """Channel arguments of grpcio."""
    workers: int = DEFAULT_WORKERS
    """Threads of grpcio."""
    shares_port: bool = False
    """Whether other processes listen on the same ports."""
    max_connection_age_s: float = 0.0
    """Seconds after which a client is sent to a new connection; 0: never."""
    unread: UnreadLimits = field(default_factory=UnreadLimits)
    """Limits of the unread responses that the native transport may hold."""


_EVERY_IPV4 = "0.0.0.0"


class GrpcFrontend:
    """One method table behind all ports, by the native transport or by grpcio alone.

    `bind`, `start`, `refuse`, `wait_idle` and `stop` once each, in this order.
    """

    def __init__(
        self,
        options: GrpcOptions,
        table: Mapping[str, Handler],
        admin_table: Mapping[str, Handler],
        gather: Gather = gather_nothing,
        stream_table: Mapping[str, PartsHandler] | None = None,
    ) -> None:
        """`stream_table` is answered by grpcio, behind the native transport as well."""
        self._options = options
        self._streams = stream_table or {}
        everything = {**table, **admin_table}
        public = everything
        if options.admin_port:
            refused: dict[str, Handler] = dict.fromkeys(admin_table, _not_here)
            public = {**table, **refused}
        self.transport = _choose(options)
        targets = [f"{_address(options.host)}:{options.port}"] if options.port else []
        self._native: NativeTransport | None = None
        if self.transport == "native":
            behind, path = _private_socket()
            self._native = NativeTransport(
                targets[0],
                public,
                path,
                options.unread,
                gather,
                shares_port=options.shares_port,
                max_age_s=options.max_connection_age_s,
            )
            targets = [behind]
        if options.socket_path:
            targets.append(f"unix:{options.socket_path}")
        self._grpcio = self._make_grpcio(targets, public)
        self._admin: GrpcioTransport | None = None
        if options.admin_port:
            target = f"{_address(options.host)}:{options.admin_port}"
            self._admin = self._make_grpcio([target], everything)

    def _make_grpcio(self, targets: list[str], handlers: Mapping[str, Handler]) -> GrpcioTransport:
        options = self._options
        return GrpcioTransport(
            targets,
            handlers,
            self._streams,
            pool=POOL,
            max_request_bytes=options.max_request_bytes,
            credentials=grpc_credentials(options.ssl, options.alts),
            arguments=(*_age(options.max_connection_age_s), *options.arguments),
            workers=options.workers,
            shares_port=options.shares_port,
        )

    def bind(self) -> int:
        """Bind the ports; return the TCP port's number. Raises OSError naming a busy one."""
        if self._options.socket_path:
            _take_over_socket(self._options.socket_path)
        port = self._grpcio.bind()
        if self._admin:
            self._admin.bind()
        return self._native.bind() if self._native else port

    def places(self, port: int) -> list[str]:
        """Return the addresses for the log; `port` is what `bind` returned."""
        transport, socket_path = self.transport, self._options.socket_path
        host = self._options.host
        both = f"and at [::]:{port}; " if not host and _address("") != _EVERY_IPV4 else ""
        place = _address(host) if host else _EVERY_IPV4
        tcp = [f"{place}:{port} ... ({both}{transport})"] if self._options.port else []
        return tcp + ([f"unix:{socket_path} ... (grpcio)"] if socket_path else [])

    def start(self) -> None:
        """Start to answer calls."""
        for transport in (self._grpcio, self._admin, self._native):
            if transport:
                transport.start()

    def set_health(self, service: str, serving: bool) -> None:
        """Set a service's health. Thread-safe."""
        self._grpcio.set_health(service, serving)
        if self._admin:
            self._admin.set_health(service, serving)

    def forget_health(self, service: str) -> None:
        """Answer SERVICE_UNKNOWN for a service from now on."""
        self._grpcio.forget_health(service)
        if self._admin:
            self._admin.forget_health(service)

    def leave(self, deadline: float) -> None:
        """Accept no more clients, and tell those there are to go elsewhere for further calls."""
        for transport in self._public():
            transport.leave(deadline)

    def connections(self) -> int:
        """Return the number of clients that are still connected."""
        return sum(transport.connections() for transport in self._public())

    def _public(self) -> list[NativeTransport | GrpcioTransport]:
        """Return what clients are connected to; behind the native transport grpcio has none."""
        first = self._native or self._grpcio
        return [first, *([self._admin] if self._admin else [])]

    def refuse(self) -> None:
        """Refuse new calls from now on; health is answered until the end."""
        for transport in (self._native, self._grpcio, self._admin):
            if transport:
                transport.refuse()

    def wait_idle(self, deadline: float) -> bool:
        """Wait for calls in flight; return False if some remain at `deadline` (monotonic)."""
        idle = True
        for transport in (self._native, self._grpcio, self._admin):
            if transport:
                idle = transport.wait_idle(deadline) and idle
        return idle

    def stop(self) -> None:
        """Close the ports and cut off the calls in flight."""
        for transport in (self._native, self._admin, self._grpcio):
            if transport:
                transport.stop()


def _age(seconds: float) -> tuple[tuple[str, int], ...]:
    """Return grpcio's argument for the greatest age of connections; it spreads them by itself."""
    return (("grpc.max_connection_age_ms", round(seconds * 1000)),) if seconds > 0 else ()


def _not_here(payload: bytes, reply: Reply) -> None:
    reply.fail(Code.PERMISSION_DENIED, "administrators' calls are served on another port")


def _choose(options: GrpcOptions) -> str:
    """Return the transport for the port. Raises InvalidConfig if the configured one cannot work."""
    if options.transport == "grpcio":
        return options.transport
    reason = unusable_because()
    if not options.port:
        reason = "there is no TCP port"
    elif options.ssl or options.alts:
        reason = "it cannot encrypt"
    elif options.arguments:
        reason = "channel arguments are grpcio's"
    if reason is None:
        return "native"
    if options.transport == "native":
        raise InvalidConfig(f"--grpc_transport=native cannot be had: {reason}")
    _log.warning("gRPC is carried by grpcio: %s", reason)
    return "grpcio"


def _private_socket() -> tuple[str, str]:
    """Return grpcio's address behind the native transport, as each of the two spells it.

    On Linux it is an abstract socket: no file, and no limit on its path's length.
    """
    name = f"servingd-{os.getpid()}-{next(_serial)}"
    if platform.system() == "Linux":
        return f"unix-abstract:{name}", f"\0{name}"
    path = os.path.join(tempfile.mkdtemp(prefix="servingd-"), "grpc")
    return f"unix:{path}", path


def _take_over_socket(path: str) -> None:
    """Remove the socket file of an earlier server; one that still listens gets no new clients.

    Raises OSError for a file that is not a socket.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(f"cannot listen on unix:{path}: there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        with contextlib.suppress(OSError):
            probe.connect(path)
            _log.warning("unix:%s is taken over from another server that listens there", path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _address(host: str) -> str:
    """Return a host as gRPC spells it; none means every one: IPv6 and IPv4 where both exist."""
    if not host:
        return "[::]" if socket.has_dualstack_ipv6() else _EVERY_IPV4
    return f"[{host}]" if ":" in host else host
