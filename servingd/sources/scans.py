"""Looks at folders that are under way: which thread to give up, and of which folder to tell.

A file system that does not answer keeps a thread for as long as it likes. So each look has a
deadline, and is one folder's affair. Decided here; the source's thread acts.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a look may take."""

    stand_in_s: float = 1.0
    """After that another thread takes the place of its own, for others that wait."""

    told_s: float = 30.0
    """After that its folder counts as one that does not answer."""

    most_given_up: int = 64
    """So many threads may be held by folders at a time, and no more."""


@dataclass(slots=True, eq=False)
class Look:
    """One look at one thing."""

    begun: float = math.inf
    """When a thread began with it; written by that thread, once."""
    given_up: bool = False
    told: bool = False


def to_give_up(looks: Collection[Look], now: float, patience: Patience) -> list[Look]:
    """Those whose threads are to be replaced: only where others wait for one."""
    if all(look.begun <= now for look in looks):
        return []
    room = patience.most_given_up - sum(look.given_up for look in looks)
    slow = [k for k in looks if not k.given_up and now - k.begun >= patience.stand_in_s]
    return slow[: max(0, room)]


def to_tell(looks: Collection[Look], now: float, patience: Patience) -> list[Look]:
    """Those that have become overdue."""
    return [look for look in looks if not look.told and now - look.begun >= patience.told_s]


def next_check(looks: Collection[Look], now: float, patience: Patience) -> float:
    """When one of these answers may change by time alone, at the latest; infinity: never."""
    due = [math.inf]
    for look in looks:
        if math.isinf(look.begun):  # a thread may begin with it at any moment
            due.append(now + patience.stand_in_s)
        elif not look.told:
            slow_at = look.begun + patience.stand_in_s
            due.append(slow_at if slow_at > now else look.begun + patience.told_s)
    return min(due)
