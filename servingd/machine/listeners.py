"""Let a listening socket take no more clients, without one being cut off.

Who closes a socket cuts off the clients that are just connecting, though other processes listen on
its port. So their first packet (SYN) is dropped before: they send it again a second later, and then
reach another process. Those that are further on can be accepted meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import time

_SETTLED_S = 0.02
"""Seconds that clients which are connecting may take to be accepted."""

_ATTACH_FILTER = 26
_BYTE, _IF_ANY_BIT, _RETURN = 0x30, 0x45, 0x06
_FLAGS, _SYN = 13, 0x02
_NO_SYN = (
    (_BYTE, 0, 0, _FLAGS),  # of TCP's header
    (_IF_ANY_BIT, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),  # drop it
    (_RETURN, 0, 0, 0xFFFFFFFF),
)


def let_nobody_connect(listener: socket.socket) -> None:
    """Drop the first packet of every new client, and give those before a moment to be accepted."""
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _NO_SYN)
    held = ctypes.create_string_buffer(program)
    with contextlib.suppress(OSError):  # not Linux: some clients are cut off
        pointer = struct.pack("HP", len(_NO_SYN), ctypes.addressof(held))
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, pointer)
        time.sleep(_SETTLED_S)
