"""How much memory this process may use, and how much it uses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
_UNLIMITED = 1 << 60
_LEAST_SHARE = 256 << 20
_FOR_THE_PROCESS = 1 << 30
"""What the interpreter, TensorFlow and calls under way take besides the models."""


def ram_budget(proc: str = "/proc", groups: str = "/sys/fs/cgroup") -> int:
    """What models may take of the host's memory: nine tenths, less what the process takes itself.

    The limit is the machine's or, where that is lower, that of the control group; 0: not known.
    """
    limit = min([_machine(proc), *_group_limits(proc, groups)])
    if limit >= _UNLIMITED:
        return 0
    return max(limit // 2, limit * 9 // 10 - _FOR_THE_PROCESS)


def memory_share(told_mb: int, read: Callable[[], int] = ram_budget) -> int:
    """Bytes that one kind of buffer may take: as told, or a sixteenth of memory, 256 MiB at least.

    That is besides models, whose budget leaves a tenth of memory to everything else.
    """
    return told_mb << 20 if told_mb else max(_LEAST_SHARE, read() // 16)


def status_bytes(name: str) -> int:
    """Bytes in a line of the process's status (`VmRSS`: resident); 0 where there is none."""
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
    """The limits of the group that the process is in, and of those above it."""
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
