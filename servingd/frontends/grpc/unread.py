"""Limit the responses that were handed to pygrpc-native and that clients do not read.

pygrpc-native keeps them for as long as their client stays, past every deadline, and does not report
them. But the kernel reports how many bytes each connection's peer has acknowledged, and so how many
of those handed over are left. Where that is too many, a response is replaced by an error, which is
small; a client that reads nothing for a while is cut off.
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
"""The least bytes of a response that is counted; a connection has at most 256 smaller ones."""

_RECOUNT_BYTES = 8 << 20
"""Bytes handed over since the last count after which connections are counted again."""

_RECOUNT_S = 0.05
_TICK_S = 1.0

_BYTES_ACKED = 120
"""The offset of `tcpi_bytes_acked` in Linux's `tcp_info`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadLimits:
    """The most unread bytes, and the longest time without progress."""

    connection_bytes: int = 256 << 20
    total_bytes: int = 1 << 30
    stalled_s: float = 20.0
    """Seconds after which a client that has unread responses and reads nothing is cut off."""
    stopping_stalled_s: float = 1.0
    """The same while the server stops."""


class ClientSocket(Protocol):
    """A connection, observed through its socket."""

    def acked(self) -> int:
        """Return the bytes that the client has acknowledged since it connected."""
        ...

    def cut(self) -> None:
        """Shut the connection down."""
        ...


@dataclass(slots=True, eq=False)
class _Owed:
    """The unread bytes of one client."""

    handed: int = 0  # bytes since the last count
    unread: int = 0  # bytes at the last count
    acked: int = -1  # bytes at the last count; -1: there was none
    moved_at: float = 0.0


class Unread:
    """Counts unread bytes by connection. Thread-safe."""

    def __init__(
        self,
        list_sockets: Callable[[], Mapping[str, ClientSocket]],
        limits: UnreadLimits,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._list_sockets = list_sockets
        self._limits = limits
        self._now = now
        self._lock = threading.Lock()
        self._owed: dict[str, _Owed] = {}  # guarded by _lock
        self._counted_at = now()
        self.stopping = False
        """Whether the server is stopping."""

    def admits(self, peer: str, size: int) -> bool:
        """Count a response of `size` bytes; return False if it must not be handed over."""
        with self._lock:
            owed = self._owed.get(peer)
            if owed is None:
                owed = self._owed[peer] = _Owed(moved_at=self._now())
            pending = sum(o.handed for o in self._owed.values())
            if pending + size > _RECOUNT_BYTES and self._now() - self._counted_at >= _RECOUNT_S:
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
        """Cut off clients that read nothing. Called often; cheap if no client has unread bytes."""
        if not self._owed or self._now() - self._counted_at < (0.2 if self.stopping else _TICK_S):
            return
        with self._lock:
            self._count()

    def _count(self) -> None:
        """Count what each client has read; cut off those that read nothing. Needs the lock."""
        now = self._counted_at = self._now()
        sockets = self._list_sockets()
        stalled_s = self._limits.stopping_stalled_s if self.stopping else self._limits.stalled_s
        for peer, owed in list(self._owed.items()):
            client = sockets.get(peer)
            if client is None:
                del self._owed[peer]
                continue
            acked = client.acked()
            moved = acked - max(0, owed.acked)
            owed.unread = max(0, owed.unread + owed.handed - moved)
            owed.handed, owed.acked = 0, acked
            if moved or not owed.unread:
                owed.moved_at = now
            elif now - owed.moved_at >= stalled_s:
                _log.warning(
                    "%s is cut off: it has read nothing for %.0f s, and %d KiB are unread",
                    *(peer, now - owed.moved_at, owed.unread >> 10),
                )
                client.cut()
                del self._owed[peer]


class _Socket:
    """A connection's socket, which belongs to pygrpc-native."""

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


def connections_of(port: int) -> dict[str, ClientSocket]:
    """Return this process's connections to its own port, by client as pygrpc-native names it.

    Descriptors may be closed, and their numbers reused, at any time: use the result at once.
    """
    found: dict[str, ClientSocket] = {}
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
    """Return an address as pygrpc-native writes it."""
    host, port = address[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
