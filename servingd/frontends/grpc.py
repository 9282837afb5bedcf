"""gRPC: which carrier takes the port, and what stands behind it."""

from __future__ import annotations

import itertools
import logging
import os
import platform
import tempfile
from collections.abc import Mapping

from servingd.errors import InvalidConfig
from servingd.frontends.grpc_grpcio import GrpcioCarrier
from servingd.frontends.grpc_native import NativeCarrier, unusable_because
from servingd.frontends.reply import Handler
from servingd.wire.protos import POOL

_serial = itertools.count()

_log = logging.getLogger(__name__)


class GrpcFrontend:
    """One method table behind one port, by the native carrier or by grpcio alone.

    `bind`, `start`, `drain` and `stop` once each, in this order.
    """

    def __init__(
        self,
        address: str,
        port: int,
        handlers: Mapping[str, Handler],
        transport: str,
        max_request_bytes: int,
    ) -> None:
        self.transport = _choose(transport)
        target = f"{address}:{port}"
        self._native: NativeCarrier | None = None
        if self.transport == "native":
            behind, path = _private_socket()
            self._native = NativeCarrier(target, handlers, path)
            target = behind
        self._grpcio = GrpcioCarrier(
            [target], handlers, pool=POOL, max_request_bytes=max_request_bytes
        )

    def bind(self) -> int:
        """Take the port; return its number. Raises OSError naming it."""
        port = self._grpcio.bind()
        return self._native.bind() if self._native else port

    def start(self) -> None:
        """Answer calls."""
        self._grpcio.start()
        if self._native:
            self._native.start()

    def set_health(self, service: str, serving: bool) -> None:
        """Say how a service is; from any thread."""
        self._grpcio.set_health(service, serving)

    def forget_health(self, service: str) -> None:
        """A service is not known any more."""
        self._grpcio.forget_health(service)

    def drain(self, deadline: float) -> bool:
        """Refuse new calls and wait for those in flight; False if some are left at `deadline`."""
        if self._native is None:
            return self._grpcio.wait_idle(deadline)
        self._native.refuse()
        # Open streams go through the front: it must be the last to close.
        behind = self._grpcio.wait_idle(deadline)
        return self._native.wait_idle(deadline) and behind

    def stop(self) -> None:
        """Close the port; what is left in flight is cut off."""
        if self._native:
            self._native.stop()
        self._grpcio.stop()


def _choose(transport: str) -> str:
    """The carrier that takes the port. Raises InvalidConfig if the one asked for cannot."""
    if transport == "grpcio":
        return transport
    reason = unusable_because()
    if reason is None:
        return "native"
    if transport == "native":
        raise InvalidConfig(f"--grpc_transport=native cannot be had: {reason}")
    _log.warning("gRPC is carried by grpcio: %s", reason)
    return "grpcio"


def _private_socket() -> tuple[str, str]:
    """Where grpcio listens behind the native carrier, and what that calls the same place.

    An abstract socket where there are such: no file, and no limit of its path's length.
    """
    name = f"servingd-{os.getpid()}-{next(_serial)}"
    if platform.system() == "Linux":
        return f"unix-abstract:{name}", f"\0{name}"
    path = os.path.join(tempfile.mkdtemp(prefix="servingd-"), "grpc")
    return f"unix:{path}", path
