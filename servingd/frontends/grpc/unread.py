"""Answers that were handed to pygrpc-native and that nobody reads.

It keeps them for as long as their client stays, past every deadline, and tells nobody. What
can be seen from here: how many bytes each connection's peer has acknowledged, and so what is left
of what was handed over. Where too much is, an answer becomes a failure, which is small; and who
takes nothing for a while is cut off.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

LARGE_BYTES = 16 << 10
"""Smaller answers are not counted: a connection has at most 256 of them."""

_LOOK_BYTES = 8 << 20
"""So much that was handed over since the last look is worth another."""

_LOOK_S = 0.05
_TURN_S = 1.0

_BYTES_ACKED = 120
"""Where Linux's `tcp_info` has `tcpi_bytes_acked`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadLimits:
    """How much may lie unread, and for how long."""

    connection_bytes: int = 256 << 20
    total_bytes: int = 1 << 30
    patience_s: float = 20.0
    """Who takes nothing for so long, and is owed something, is cut off."""
    last_patience_s: float = 1.0
    """The same while the server stops."""


class Wire(Protocol):
    """A connection, seen from outside."""

    def acked(self) -> int:
        """Bytes that its client has acknowledged, ever."""
        ...

    def cut(self) -> None:
        """End it."""
        ...


Look = Callable[[], "Mapping[str, Wire]"]
"""The connections that there are, by client."""


@dataclass(slots=True, eq=False)
class _Owed:
    handed: int = 0  # since the last look
    unread: int = 0  # at the last look
    acked: int = -1  # at the last look; -1: there was none
    moved_at: float = 0.0


class Unread:
    """Keeps count by connection. From any thread."""

    def __init__(
        self,
        look: Look,
        limits: UnreadLimits,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._limits = limits
        self._now = now
        self._lock = threading.Lock()
        self._owed: dict[str, _Owed] = {}  # guarded by _lock
        self._looked_at = now()
        self.hurried = False
        """Whether the server stops."""

    def admits(self, peer: str, size: int) -> bool:
        """Count an answer of `size` bytes for a client; False if it must not be handed over."""
        with self._lock:
            owed = self._owed.get(peer)
            if owed is None:
                owed = self._owed[peer] = _Owed(moved_at=self._now())
            pending = sum(o.handed for o in self._owed.values())
            if pending + size > _LOOK_BYTES and self._now() - self._looked_at >= _LOOK_S:
                self._count()
            total = sum(o.handed + o.unread for o in self._owed.values())
            own = owed.handed + owed.unread
            limits = self._limits
            too_much = own and own + size > limits.connection_bytes  # one alone may be larger
            if too_much or (total and total + size > limits.total_bytes):
                return False
            owed.handed += size
            return True

    def tick(self) -> None:
        """Have those cut off that take nothing; called now and then, and cheap where none owes."""
        if not self._owed or self._now() - self._looked_at < (0.2 if self.hurried else _TURN_S):
            return
        with self._lock:
            self._count()

    def _count(self) -> None:
        now = self._looked_at = self._now()
        wires = self._look()
        patience = self._limits.last_patience_s if self.hurried else self._limits.patience_s
        for peer, owed in list(self._owed.items()):
            wire = wires.get(peer)
            if wire is None:
                del self._owed[peer]
                continue
            acked = wire.acked()
            moved = acked - max(0, owed.acked)
            owed.unread = max(0, owed.unread + owed.handed - moved)
            owed.handed, owed.acked = 0, acked
            if moved or not owed.unread:
                owed.moved_at = now
            elif now - owed.moved_at >= patience:
                _log.warning(
                    "%s is cut off: it has taken nothing for %.0f s and is owed %d KiB",
                    *(peer, now - owed.moved_at, owed.unread >> 10),
                )
                wire.cut()
                del self._owed[peer]


class _Socket:
    """A connection's socket, which is pygrpc-native's."""

    def __init__(self, number: int) -> None:
        self._number = number

    def acked(self) -> int:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._number)) as own:
            info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
            if len(info) == _BYTES_ACKED + 8:
                return int(struct.unpack_from("=Q", info, _BYTES_ACKED)[0])
        return 0

    def cut(self) -> None:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._number)) as own:
            own.shutdown(socket.SHUT_RDWR)


def connections_of(port: int) -> dict[str, Wire]:
    """This process's connections to its own port, by client as pygrpc-native names it.

    Descriptors may close, and their numbers be used again, while this looks: whoever uses what is
    found must do so at once.
    """
    found: dict[str, Wire] = {}
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError, ValueError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as other:
                if other.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                if other.getsockname()[1] == port:
                    found[_named(other.getpeername())] = _Socket(int(name))
    return found


def _named(address: Any) -> str:
    """An address as pygrpc-native writes it."""
    host, port = address[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
