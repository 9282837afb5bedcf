"""How long a thread's turn on a core is, where the kernel lets us say so (Linux 6.12 and newer).

Whoever asks for shorter turns gets them sooner. Nobody's share of the time changes, so that no
thread that holds a lock starves, as it would with priorities. Threads inherit from their maker.
"""

from __future__ import annotations

import ctypes
import platform
import sys

SHORT_S = 0.2e-3
"""For threads that serve."""

LONG_S = 10e-3
"""For threads that load: they lose little by it."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The number of the system call, for which Python has no name."""


class _Attributes(ctypes.Structure):
    """`struct sched_attr`: for usual threads, `runtime` is the length of a turn in nanoseconds."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def ask_for_turns(seconds: float) -> bool:
    """Ask for turns of so many seconds in this thread; False where that cannot be said.

    Older kernels take it and do nothing.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    asked = _Attributes(size=ctypes.sizeof(_Attributes), runtime=int(seconds * 1e9))
    this_thread, no_flags = 0, 0
    return ctypes.CDLL(None).syscall(number, this_thread, ctypes.byref(asked), no_flags) == 0
