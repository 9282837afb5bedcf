"""Scans under way: which thread to stop waiting for, and which folder to report as unresponsive.

A file system that does not answer keeps a thread for as long as it likes. So each scan has time
limits, and concerns one folder alone. Decided here, from values; the source's thread acts.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """How long a scan may take, and how many may hold a thread."""

    replace_thread_s: float = 1.0
    """Seconds after which another thread takes over the scans that wait for this one's thread."""

    unresponsive_s: float = 30.0
    """Seconds after which the scan's folder is reported as one that does not answer."""

    max_abandoned: int = 64
    """Threads that scans may hold at a time after they were replaced."""


@dataclass(slots=True, eq=False)
class Scan:
    """One scan of one folder, or of the list of models."""

    begun: float = math.inf
    """Monotonic seconds when a thread began with it; written by that thread, once."""
    abandoned: bool = False
    """Whether its thread was replaced."""
    reported: bool = False
    """Whether it was reported as unresponsive."""


def to_abandon(scans: Collection[Scan], now: float, limits: ScanLimits) -> list[Scan]:
    """Return the scans whose threads are to be replaced: none unless another scan waits for one."""
    if all(scan.begun <= now for scan in scans):
        return []
    room = limits.max_abandoned - sum(scan.abandoned for scan in scans)
    slow = [s for s in scans if not s.abandoned and now - s.begun >= limits.replace_thread_s]
    return slow[: max(0, room)]


def to_report(scans: Collection[Scan], now: float, limits: ScanLimits) -> list[Scan]:
    """Return the scans that have become unresponsive and were not reported yet."""
    return [s for s in scans if not s.reported and now - s.begun >= limits.unresponsive_s]


def next_check(scans: Collection[Scan], now: float, limits: ScanLimits) -> float:
    """Return when to ask again at the latest: an answer may change by time alone.

    Monotonic seconds; infinity: no answer will.
    """
    due = [math.inf]
    for scan in scans:
        if math.isinf(scan.begun):  # a thread may begin with it at any moment
            due.append(now + limits.replace_thread_s)
        elif not scan.reported:
            slow_at = scan.begun + limits.replace_thread_s
            due.append(slow_at if slow_at > now else scan.begun + limits.unresponsive_s)
    return min(due)
