"""How much memory this process may use, and how much it uses."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

from servingd.machine.cpus import sharers

_STATUS = Path("/proc/self/status")
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
_UNLIMITED = 1 << 60
"""Bytes that stand for no limit; control groups write a number near 2^63."""
_MIN_SHARE = 256 << 20
"""Bytes that a kind of buffer gets at least, on small machines."""
_FOR_THE_PROCESS = 1 << 30
"""Bytes for the interpreter, TensorFlow and calls under way, besides the models."""


def ram_budget(proc: str = "/proc", groups: str = "/sys/fs/cgroup") -> int:
    """Return the bytes that models may take of the host: nine tenths, less the process's own.

    The limit is the machine's or, where that is lower, that of the control group; 0: not known.
    """
    limit = min([_machine(proc), *_group_limits(proc, groups)])
    if limit >= _UNLIMITED:
        return 0
    return max(limit // 2, limit * 9 // 10 - _FOR_THE_PROCESS)


def memory_share(configured_mb: int, read: Callable[[], int] = ram_budget) -> int:
    """Return the bytes that a kind of buffer may take; 0 MiB configured: a sixteenth of memory.

    At least 256 MiB, for all processes of the server together. Models do not share it: their budget
    leaves a tenth of memory to all else.
    """
    whole = configured_mb << 20 if configured_mb else max(_MIN_SHARE, read() // 16)
    return max(1, whole // sharers())


def status_bytes(name: str) -> int:
    """Return the bytes in a line of /proc/self/status (`VmRSS`: resident); 0 if it has none."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return 0


def _machine(proc: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(proc, "meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) << 10
    return _UNLIMITED


def _group_limits(proc: str, groups: str) -> Iterator[int]:
    """Yield the limits, in bytes, of the process's control group and of those above it."""
    places = {Path(groups), Path(groups, "memory")}
    with contextlib.suppress(OSError):
        for line in Path(proc, "self", "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                place = Path(groups, controllers, path.lstrip("/"))
                places |= {place, *(p for p in place.parents if p.is_relative_to(groups))}
    for place in sorted(places):
        for name in _MEMORY_LIMITS:
            with contextlib.suppress(OSError, ValueError):
                yield min(int((place / name).read_text()), _UNLIMITED)


def trim_heap() -> None:
    """Give the memory that was freed, and that the C library keeps for later, to the system."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has this
        ctypes.CDLL(None).malloc_trim(0)
