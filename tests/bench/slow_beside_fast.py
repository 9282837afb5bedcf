"""What a slow model at full load costs a fast one on the same server."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tests import exports
from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import ROUNDS, SECONDS, message, repository, serving, settled, slow

SLOW_S = 0.05
SLOW_CALLS = 8
FAST_RATE = 200.0


def run(folder: Path) -> Iterator[Row]:
    """The fast model's p99, over that beside another process with the same work."""
    both = repository(folder / "both", fast=exports.half_plus_two, slow=exports.slow)
    with ExitStack() as stack:
        one = stack.enter_context(serving(folder / "one.log", f"--model_repository={both}"))
        fast, other = (
            stack.enter_context(
                serving(
                    folder / f"{name}.log",
                    f"--model_name={name}",
                    f"--model_base_path={both}/{name}",
                )
            )
            for name in ("fast", "slow")
        )
        settled(one, "fast", "slow")
        settled(fast, "fast")
        settled(other, "slow")
        small = message(folder, "fast", {"x": np.float32([1, 2, 5])})
        large = slow(folder, one, "slow", SLOW_S)
        ratios = []
        for _ in range(ROUNDS):
            together = _p99(one.port, one.port, small, large)
            apart = _p99(fast.port, other.port, small, large)
            ratios.append(together / apart)
            print(f"p99 beside a slow model: {together:.2f} ms, beside a process {apart:.2f} ms")
    yield Row(
        "a fast model beside a slow one at full load: p99, over that beside another process",
        statistics.median(ratios),
        at_most=2.0,
    )


def _p99(fast: int, slow: int, small: Path, large: Path) -> float:
    with load.beside(slow, large, SECONDS + 30, calls=SLOW_CALLS):
        return load.steady(fast, small, SECONDS, FAST_RATE).ms(0.99)
