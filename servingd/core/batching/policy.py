"""How batches of a queue leave: by rules, when there is time, or towards a latency goal.

What a policy needs to know of a model it learns from the runs themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from servingd.core.batching.queue import BatchLimits, BatchRules

MAX_ROWS = 2**31 - 1

_WEIGHT = 0.2
"""How much the newest run counts."""


class RunTimes:
    """What runs have cost by their number of rows, in seconds: a moving mean per power of two.

    Threads may race on an observation; any outcome is a valid estimate.
    """

    __slots__ = ("_per_row",)

    def __init__(self) -> None:
        self._per_row: dict[int, float] = {}

    def observe(self, rows: int, seconds: float) -> None:
        """Take a run's time."""
        size, each = max(1, rows).bit_length(), seconds / max(1, rows)
        before = self._per_row.get(size)
        self._per_row[size] = each if before is None else before + _WEIGHT * (each - before)

    def estimate(self, rows: int) -> float | None:
        """What a run of so many rows will take; None before the first run.

        A size that was never run is taken to cost per row what the next smaller one did, else the
        next larger: more rows at once never cost more each.
        """
        size = max(1, rows).bit_length()
        exact = self._per_row.get(size)
        if exact is not None:
            return max(1, rows) * exact
        known = sorted(self._per_row.copy().items())
        if not known:
            return None
        smaller = [each for other, each in known if other <= size]
        return max(1, rows) * (smaller[-1] if smaller else known[0][1])

    def by_rows(self) -> dict[int, float]:
        """The smallest number of rows of each size, and what a run of so many takes."""
        known = sorted(self._per_row.copy().items())
        return {1 << (size - 1): each * (1 << (size - 1)) for size, each in known}


class BatchPolicy(Protocol):
    """Decides how long unfilled batches are held."""

    rules: BatchRules

    def limits(self) -> BatchLimits:
        """The limits now."""
        ...

    def on_arrival(self, rows: int, now: float) -> None:
        """A call has come."""
        ...


@dataclass(slots=True)
class FixedPolicy:
    """The same limits for ever: TensorFlow Serving's parameters, or one call at a time."""

    rules: BatchRules
    fixed: BatchLimits

    def limits(self) -> BatchLimits:
        """Always the same."""
        return self.fixed

    def on_arrival(self, rows: int, now: float) -> None:
        """Nothing is learnt."""


@dataclass(slots=True)
class WaitingPolicy:
    """What waits while a batch runs is the next batch. Nobody waits for a timer.

    `rows_worth` says up to how many rows a run gets cheaper per row; a batch of so many does not
    wait for the one that runs. A few times as many may leave together: a batch costs its threads
    something as well.
    """

    rules: BatchRules
    rows_worth: Callable[[], int]
    _last: BatchLimits = field(default_factory=lambda: BatchLimits(full_rows=1), init=False)

    def limits(self) -> BatchLimits:
        """By what is worth merging now: it may become known, or change, while it serves."""
        rows = max(1, self.rows_worth())
        last = self._last
        if last.full_rows != rows:
            most = rows * _TOGETHER if rows > 1 else 1
            self._last = last = BatchLimits(full_rows=rows, may_overlap=rows == 1, most_rows=most)
        return last

    def on_arrival(self, rows: int, now: float) -> None:
        """Nothing is learnt."""


_TOGETHER = 4
"""How many times the rows that are worth it may leave together."""


class LatencyGoalPolicy:
    """Batches as large, and held as long, as a latency goal allows.

    A call may find a batch under way, and then runs in its own: so a batch is at most so large that
    two runs fit into the goal. What is left of the goal, unfilled batches may be held; but only if
    others are expected meanwhile, and never longer than it takes them to fill the batch.
    """

    def __init__(
        self, rules: BatchRules, goal_s: float, times: RunTimes, rows_worth: Callable[[], int]
    ) -> None:
        self.rules = rules
        self.goal_s = goal_s
        self.times = times
        self._rows_worth = rows_worth
        self._gap = math.inf  # the moving mean of seconds between rows
        self._last = -math.inf

    def on_arrival(self, rows: int, now: float) -> None:
        """Learn how often rows come."""
        gap = (now - self._last) / max(1, rows)
        self._last = now
        known = math.isfinite(self._gap) and math.isfinite(gap)
        self._gap = self._gap + _WEIGHT * (gap - self._gap) if known else gap

    def limits(self) -> BatchLimits:
        """The largest batch of which two runs fit, and how long to wait for it."""
        rows = self.rows()
        run_s = self.times.estimate(rows)
        if rows == 1 or run_s is None:
            return BatchLimits(full_rows=rows, may_overlap=rows == 1)
        spare = max(0.0, self.goal_s * _SAFETY - 2 * run_s)
        expected = spare / self._gap if self._gap > 0 else math.inf
        if expected < 1:
            return BatchLimits(full_rows=rows, may_overlap=False)
        hold_s = min(spare, rows * self._gap)
        return BatchLimits(full_rows=rows, hold_s=hold_s, may_overlap=True, reason="goal")

    def rows(self) -> int:
        """The batch size that is aimed at."""
        most = min(self.rules.max_batch_rows, max(1, self._rows_worth()))
        fits = 1
        while fits * 2 <= most:
            run_s = self.times.estimate(fits * 2)
            if run_s is None or 2 * run_s > self.goal_s * _SAFETY:
                break
            fits *= 2
        return fits


_SAFETY = 0.8
"""The share of a goal that is planned with: times vary."""
