"""Measure what calls cost, so that the dispatcher can decide whether they run inline."""

from __future__ import annotations

import math

DECAY = 1.02
"""The factor by which a minimum rises with each dearer measurement: 70 of them quadruple it."""


OUTLIER_S = 10e-3
"""The seconds from which one call makes its size count as dear, whatever other calls cost."""

OUTLIER_CALLS = 100
"""The number of later calls for which such a size counts as dear."""


class CostMeter:
    """The decaying minimum of what calls of about one size have cost, in seconds.

    Sizes are grouped by powers of two of the inputs' bytes. A size that was never measured costs
    infinity. So does one of which a call has just been very dear: its cost may depend on the
    values. Threads may race on an observation; any outcome is a valid estimate.
    """

    __slots__ = ("_best", "_outliers")

    def __init__(self) -> None:
        self._best: dict[int, float] = {}
        self._outliers: dict[int, int] = {}

    def cost(self, size: int) -> float:
        """Return the estimate in seconds for inputs of `size` bytes; infinity if there is none."""
        bucket = size.bit_length()
        return math.inf if bucket in self._outliers else self._best.get(bucket, math.inf)

    def observe(self, size: int, seconds: float) -> None:
        """Record that one call with `size` bytes of inputs took so many seconds."""
        bucket = size.bit_length()
        best = self._best.get(bucket, math.inf)
        self._best[bucket] = seconds if seconds <= best else best * DECAY
        if seconds > OUTLIER_S and best < OUTLIER_S:
            self._outliers[bucket] = OUTLIER_CALLS
        elif bucket in self._outliers:
            self._count_down(bucket)

    def _count_down(self, bucket: int) -> None:
        left = self._outliers.get(bucket, 1) - 1
        if left > 0:
            self._outliers[bucket] = left
        else:
            self._outliers.pop(bucket, None)
