"""How many cores this process may use: by its affinity, and by the quota of its control groups.

A container with a quota of two cores on a machine of 64 sees all of them; threads for 64 would use
its quota up in the first milliseconds of each period, and wait for the next.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_PROC, _GROUPS = "/proc", "/sys/fs/cgroup"
_FILES_OF_V1 = "cpu.cfs_quota_us", "cpu.cfs_period_us"


_sharers = 1
"""How many processes of one server share its cores and its memory."""


def share_with(processes: int) -> None:
    """Let `processes` in all share what `cpus` and `memory_share` give; once, at the start."""
    global _sharers  # noqa: PLW0603 -- a fact about the process, as its affinity is
    _sharers = processes


def sharers() -> int:
    """Return how many processes share the server's cores and memory."""
    return _sharers


def cpus(proc: str = _PROC, groups: str = _GROUPS) -> int:
    """Return the CPU cores that this process may use; part of one counts as one."""
    return max(1, all_cpus(proc, groups) // _sharers)


def all_cpus(proc: str = _PROC, groups: str = _GROUPS) -> int:
    """Return the CPU cores that the whole server may use."""
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    return max(1, min([there, *(math.ceil(quota) for quota in _quotas(proc, groups))]))


def _quotas(proc: str, groups: str) -> Iterator[float]:
    """Yield the quotas, in cores, of the process's control group and of those above it."""
    for place in sorted(_places(proc, groups)):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (place / "cpu.max").read_text().split()
            yield int(quota) / int(period)  # ValueError for `max`
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = ((place / name).read_text() for name in _FILES_OF_V1)
            if int(quota) > 0:  # -1: there is none
                yield int(quota) / int(period)


def _places(proc: str, groups: str) -> set[Path]:
    places = {Path(groups), Path(groups, "cpu"), Path(groups, "cpu,cpuacct")}
    with contextlib.suppress(OSError, ValueError):
        for line in Path(proc, "self", "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                for mount in {controllers, "cpu"} if controllers else {""}:
                    place = Path(groups, mount, path.lstrip("/"))
                    places |= {place, *(p for p in place.parents if p.is_relative_to(groups))}
    return places
