"""Decide how large batches may get and how long an unfilled one is held.

There are three policies: fixed parameters, dispatch what has gathered when the running batch ends,
and a latency goal. What a policy needs to know of a model it learns from the times of its runs.
`runtime/batching/options.py` chooses the policy of each signature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

MAX_ROWS = 2**31 - 1

_WEIGHT = 0.2
"""The share of the newest run in a moving mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """Limits of a queue; the meaning is TensorFlow Serving's `BatchingParameters`."""

    max_request_rows: int
    """Rows of the largest request."""
    max_batch_rows: int
    """Rows of the largest batch. A larger request runs alone, unless `splits` is set."""
    max_enqueued_batches: int
    """The most batches of one kind that may wait."""
    splits: bool = False
    """Whether a request's rows may be spread over several batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """When a batch is dispatched although it could still grow."""

    full_rows: int
    """Rows from which a batch is dispatched at once."""
    hold_s: float = 0.0
    """Seconds after which an unfilled batch is dispatched, from its oldest call's arrival."""
    may_overlap: bool = True
    """Whether an unfilled batch may be dispatched while another one of this queue runs."""
    most_rows: int = 0
    """Rows of the largest batch when more calls wait than `full_rows`; 0: `full_rows`."""
    reason: str = "idle"
    """The reason given for dispatching an unfilled batch: `idle`, `timer` or `goal`."""


class RunTimes:
    """Seconds that runs took by their number of rows: a moving mean per power of two.

    Threads may race on an observation; any outcome is a valid estimate.
    """

    __slots__ = ("_per_row",)

    def __init__(self) -> None:
        self._per_row: dict[int, float] = {}

    def observe(self, rows: int, seconds: float) -> None:
        """Record that a run of so many rows took so many seconds."""
        size, each = max(1, rows).bit_length(), seconds / max(1, rows)
        before = self._per_row.get(size)
        self._per_row[size] = each if before is None else before + _WEIGHT * (each - before)

    def estimate(self, rows: int) -> float | None:
        """Return the seconds that a run of so many rows will take; None before the first run.

        A size that never ran is assumed to cost as much per row as the next smaller one, else as
        the next larger one: larger runs never cost more per row.
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
        """Return seconds per run, by the smallest number of rows of each size."""
        known = sorted(self._per_row.copy().items())
        return {1 << (size - 1): each * (1 << (size - 1)) for size, each in known}


class BatchPolicy(Protocol):
    """Decides how large batches may get and how long unfilled ones are held."""

    rules: BatchRules

    def limits(self) -> BatchLimits:
        """Return the limits that hold now."""
        ...

    def on_arrival(self, rows: int, now: float) -> None:
        """Record that a call of so many rows arrived at `now`, in monotonic seconds."""
        ...


@dataclass(slots=True)
class FixedPolicy:
    """Limits that never change: TensorFlow Serving's parameters, or one call at a time."""

    rules: BatchRules
    fixed: BatchLimits

    def limits(self) -> BatchLimits:
        """Return the fixed limits."""
        return self.fixed

    def on_arrival(self, rows: int, now: float) -> None:
        """Do nothing: this policy learns nothing."""


@dataclass(slots=True)
class WaitingPolicy:
    """The calls that wait while a batch runs are the next batch; there is no timer.

    `rows_worth` returns up to how many rows a larger run is cheaper per row. A batch of that many
    rows is dispatched although another one runs. A few times as many rows may be dispatched
    together: handing a batch over costs its threads something as well.
    """

    rules: BatchRules
    rows_worth: Callable[[], int]
    _last: BatchLimits = field(default_factory=lambda: BatchLimits(full_rows=1), init=False)

    def limits(self) -> BatchLimits:
        """Return limits by the rows worth merging now; these may change while it serves."""
        rows = max(1, self.rows_worth())
        last = self._last
        if last.full_rows != rows:
            most = max(rows, min(rows * _TOGETHER, UNMEASURED_ROWS)) if rows > 1 else 1
            self._last = last = BatchLimits(full_rows=rows, may_overlap=rows == 1, most_rows=most)
        return last

    def on_arrival(self, rows: int, now: float) -> None:
        """Do nothing: this policy learns nothing from arrivals."""


_TOGETHER = 4
"""The largest batch, as a multiple of the rows that are worth merging."""

UNMEASURED_ROWS = 64
"""Rows of the largest batch that is made without a measurement of batches of its size."""


class LatencyGoalPolicy:
    """Batches as large, and held as long, as a latency goal allows.

    A call may arrive while another batch runs, and then runs in the next one. So a batch is at most
    so large that two runs fit into the goal. Unfilled batches may be held for the rest of the goal,
    but only if more calls are expected meanwhile, and never longer than it takes to fill the batch.
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
        """Update the moving mean of the seconds between two rows."""
        gap = (now - self._last) / max(1, rows)
        self._last = now
        known = math.isfinite(self._gap) and math.isfinite(gap)
        self._gap = self._gap + _WEIGHT * (gap - self._gap) if known else gap

    def limits(self) -> BatchLimits:
        """Return the largest batch of which two runs fit into the goal, and how long to hold it."""
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
        """Return the largest power of two of rows of which two runs fit into the goal."""
        most = min(self.rules.max_batch_rows, max(1, self._rows_worth()))
        fits = 1
        while fits * 2 <= most:
            run_s = self.times.estimate(fits * 2)
            if run_s is None or 2 * run_s > self.goal_s * _SAFETY:
                break
            fits *= 2
        return fits


_SAFETY = 0.8
"""The share of a goal that is planned with, because run times vary."""
