"""What calls cost, and so where they run."""

from __future__ import annotations

import math

DECAY = 1.02
"""How much a minimum rises with each dearer measurement: 70 of them for a factor of four."""


OUTLIER_S = 10e-3
"""A call this dear may not be taken for a cheap one soon again, whatever others cost."""

OUTLIER_CALLS = 100
"""For so many calls."""


class CostMeter:
    """The decaying minimum of what calls of about one size have cost, in seconds.

    Sizes are told apart by powers of two of the inputs' bytes. A size that was never seen costs
    infinity; so does one of which a call has just been very dear: its cost may depend on the
    values. Threads may race on an observation; any outcome is a valid estimate.
    """

    __slots__ = ("_best", "_wary")

    def __init__(self) -> None:
        self._best: dict[int, float] = {}
        self._wary: dict[int, int] = {}

    def cost(self, size: int) -> float:
        """The estimate for inputs of `size` bytes."""
        bucket = size.bit_length()
        return math.inf if bucket in self._wary else self._best.get(bucket, math.inf)

    def observe(self, size: int, seconds: float) -> None:
        """Take a measurement of one call."""
        bucket = size.bit_length()
        best = self._best.get(bucket, math.inf)
        self._best[bucket] = seconds if seconds <= best else best * DECAY
        if seconds > OUTLIER_S and best < OUTLIER_S:
            self._wary[bucket] = OUTLIER_CALLS
        elif bucket in self._wary:
            self._calm(bucket)

    def _calm(self, bucket: int) -> None:
        left = self._wary.get(bucket, 1) - 1
        if left > 0:
            self._wary[bucket] = left
        else:
            self._wary.pop(bucket, None)
