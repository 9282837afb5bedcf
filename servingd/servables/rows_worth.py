"""Up to how many rows larger batches pay, by what runs of several sizes cost."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_ROWS = 512
"""Rows of the largest batch that is measured."""

ENOUGH_ROWS = 64
"""Rows from which larger batches are measured only while each doubling gains a good part."""
_GOOD_GAIN = 0.1
"""The share of the cost per row that a doubling must save beyond `ENOUGH_ROWS`."""

MAX_RUN_S = 0.15
"""Seconds. A batch that would run longer is not tried: the server would not make it either."""

_COST_TOLERANCE = 1.1
"""Costs per row within this factor of the lowest count as equally good."""

_HANDOVER_S = 250e-6
"""Seconds that handing a batch over between threads costs besides its run."""


def rows_worth_merging(seconds: Callable[[int], float | None], max_rows: int) -> int:
    """Return the smallest number of rows that costs about as little per row as any does.

    `seconds(rows)` measures a run of so many rows, at most `max_rows`; None: there can be no such
    run. The cost of handing a batch over between threads is added. A wrong number costs time, and
    changes no answer.
    """
    first = seconds(1)
    if first is None:
        return 1
    rows, costs = 1, {1: first}
    while 2 * rows <= max_rows and 2 * rows * costs[rows] <= MAX_RUN_S:
        if rows >= ENOUGH_ROWS and costs[rows] > costs[rows // 2] * (1 - _GOOD_GAIN):
            break
        rows *= 2
        run = seconds(rows)
        if run is None:
            break
        costs[rows] = run / rows
    whole = {rows: each + _HANDOVER_S / rows for rows, each in costs.items()}
    least = min(whole.values())
    return min(rows for rows, each in whole.items() if each <= least * _COST_TOLERANCE)


def seconds_of(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few runs; a first one is not counted."""
    run()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
        if times[-1] > MAX_RUN_S / 4:
            break
    return min(times)
