"""Let a process leave a port that others share, without a failed call.

pygrpc-native can neither stop to listen while it serves, nor tell its clients to go elsewhere. Both
can be done from outside. A listening socket is replaced, under the same descriptor, by one that
nobody can reach; what waits to be accepted meanwhile is lost, so it is done while none waits.
Clients are told by a GOAWAY frame: no stream is given up, and none may be begun (RFC 9113, 6.8). A
client of gRPC then begins its next call on a new connection, and closes the old one after its last
response. A frame may only be written between others. The transport hands whole frames to the
kernel, unless the kernel's buffer is full: so we write where that is almost empty.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Iterator

_LARGEST_STREAM = 2**31 - 1
_NO_ERROR = 0
GOAWAY = struct.pack("!HBBBIII", 0, 8, 0x7, 0, 0, _LARGEST_STREAM, _NO_ERROR)
"""The frame: length 8, type 7, no flags, stream 0; then the last stream and the error."""

_ALMOST_EMPTY = 16 << 10
"""Unsent and unacknowledged bytes of a connection below which a frame may be written."""
_ACCEPTED_S = 0.2
"""Seconds that clients which are connecting may take to be accepted."""


def own_sockets(port: int, *, listening: bool) -> Iterator[tuple[int, socket.socket]]:
    """Yield this process's sockets on a TCP port, each with its descriptor and as a duplicate."""
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):  # a descriptor may close meanwhile
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as other:
                if other.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                listens = other.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if bool(listens) is listening and other.getsockname()[1] == port:
                    yield int(name), other


def stop_listening(port: int) -> None:
    """Take no more connections on a port; whoever has the descriptor notices nothing."""
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(b"")  # an abstract name of the kernel's choice
        nobody.listen(1)
        for descriptor, listener in own_sockets(port, listening=True):
            _wait_accepted(listener)
            os.dup2(nobody.fileno(), descriptor, inheritable=False)


def send_away(port: int, deadline: float) -> None:
    """Tell every client of a port to go elsewhere; until `deadline` (monotonic) where it must wait.

    A client that reads nothing is not told.
    """
    told: set[tuple[object, ...]] = set()
    while True:
        waiting = False
        for _, client in own_sockets(port, listening=False):
            peer = client.getpeername()
            if peer in told:
                continue
            if tell(client):
                told.add(peer)
            else:
                waiting = True
        if not waiting or time.monotonic() >= deadline:
            return
        time.sleep(0.01)


def tell(client: socket.socket) -> bool:
    """Tell a client to go elsewhere for further calls; return False if it cannot be told now."""
    if _unacknowledged(client) > _ALMOST_EMPTY:
        return False
    try:
        return client.send(GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(GOAWAY)
    except BlockingIOError:
        return False
    except OSError:
        return True  # it has gone


def _unacknowledged(client: socket.socket) -> int:
    size: int = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, b"\0" * 4))[0]
    return size


def _wait_accepted(listener: socket.socket) -> None:
    """Wait a moment until no client waits to be accepted."""
    deadline = time.monotonic() + _ACCEPTED_S
    unacked = 24  # of `tcp_info`: in a listening socket, the clients that wait
    while time.monotonic() < deadline:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, unacked + 4)
        if not struct.unpack_from("I", info, unacked)[0]:
            return
        time.sleep(0.001)
