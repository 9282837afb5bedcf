"""Let a process leave a port that others share, without a failed call.

pygrpc-native can neither stop to listen while it serves, nor tell its clients to go elsewhere. Both
can be done from outside. A listening socket is replaced, under the same descriptor, by one that
nobody can reach, while no client waits to be accepted or is connecting.
Clients are told by a GOAWAY frame: no stream is given up, and none may be begun (RFC 9113, 6.8). A
client of gRPC then begins its next call on a new connection, and closes the old one after its last
response.

A frame may only be written between others. The transport hands whole frames to the kernel, unless
the kernel's buffer is full: then the rest of a frame follows when there is space again. So we write
where the buffer is almost empty and the transport's thread sleeps: had it a rest to write, it would
have been woken. (An empty buffer alone does not suffice: that thread may not have had its turn.)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from servingd.machine.listeners import let_nobody_connect

_LARGEST_STREAM = 2**31 - 1
_NO_ERROR = 0
GOAWAY = struct.pack("!HBBBIII", 0, 8, 0x7, 0, 0, _LARGEST_STREAM, _NO_ERROR)
"""The frame: length 8, type 7, no flags, stream 0; then the last stream and the error."""

_THREAD = "grpc-native-io"
"""The name of the transport's threads that write to clients."""

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
            let_nobody_connect(listener)
            _wait_accepted(listener)
            os.dup2(nobody.fileno(), descriptor, inheritable=False)


def send_away(port: int, deadline: float) -> None:
    """Tell every client of a port to go elsewhere; until `deadline` (monotonic) where it must wait.

    A client that reads nothing is not told.
    """
    transport = TransportThreads()
    try:
        told: set[tuple[object, ...]] = set()
        while not _tell_all(port, told, transport) and time.monotonic() < deadline:
            time.sleep(0.001)
    finally:
        transport.close()


def _tell_all(port: int, told: set[tuple[object, ...]], transport: TransportThreads) -> bool:
    """Tell those that were not told; return whether all have been."""
    everybody = True
    for _, client in own_sockets(port, listening=False):
        with contextlib.suppress(OSError):  # it has gone
            peer = client.getpeername()
            if peer in told:
                continue
            if tell(client, transport):
                told.add(peer)
            else:
                everybody = False
    return everybody


def tell(client: socket.socket, transport: TransportThreads) -> bool:
    """Tell a client, if it can be done now; True also if it is gone.

    All of it holds the interpreter: so no response is handed over between the look and the write.
    """
    size = ctypes.c_int()
    if _libc.ioctl(client.fileno(), termios.TIOCOUTQ, ctypes.byref(size)) != 0:
        return True
    if size.value > _ALMOST_EMPTY or not transport.sleep():
        return False
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    if _libc.send(client.fileno(), GOAWAY, len(GOAWAY), flags) == len(GOAWAY):
        return True
    return ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR)


_libc = ctypes.PyDLL(None, use_errno=True)


class TransportThreads:
    """The threads of pygrpc-native that write to clients."""

    def __init__(self) -> None:
        self._files: list[int] = []
        for thread in Path("/proc/self/task").glob("*"):
            with contextlib.suppress(OSError):
                if (thread / "comm").read_text().startswith(_THREAD):
                    self._files.append(os.open(thread / "stat", os.O_RDONLY))
        self._buffer = ctypes.create_string_buffer(256)

    def sleep(self) -> bool:
        """Return whether all of them wait for something to do."""
        for file in self._files:
            length = _libc.pread(file, self._buffer, len(self._buffer), 0)
            state = self._buffer.raw[: max(0, length)].rpartition(b") ")[2][:1]
            if state != b"S":
                return False
        return True

    def close(self) -> None:
        """Close what was opened."""
        for file in self._files:
            os.close(file)


def _wait_accepted(listener: socket.socket) -> None:
    """Wait a moment until no client waits to be accepted."""
    deadline = time.monotonic() + _ACCEPTED_S
    unacked = 24  # of `tcp_info`: in a listening socket, the clients that wait
    while time.monotonic() < deadline:
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, unacked + 4)
        if not struct.unpack_from("I", info, unacked)[0]:
            return
        time.sleep(0.001)
