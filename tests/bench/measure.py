"""How benchmarks measure: interleaved rounds, the best or the median of several."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One claim: a ratio, and the bound that it must keep."""

    what: str
    ratio: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def good(self) -> bool:
        return (self.at_least is None or self.ratio >= self.at_least) and (
            self.at_most is None or self.ratio <= self.at_most
        )

    @property
    def wanted(self) -> str:
        return f">= {self.at_least}" if self.at_least is not None else f"<= {self.at_most}"


def seconds(call: Callable[[], object], times: int) -> float:
    """Seconds of one call, over so many."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def ratio(one: Callable[[], object], other: Callable[[], object], times: int) -> float:
    """What `one` costs over what `other` costs: the median of five interleaved pairs."""
    seconds(one, times // 10 + 1), seconds(other, times // 10 + 1)
    return statistics.median(seconds(one, times) / seconds(other, times) for _ in range(5))
