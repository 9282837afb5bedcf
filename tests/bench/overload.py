"""What is still answered when twice as much is asked for as can be done."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from tests import exports
from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import ROUNDS, SECONDS, repository, serving, settled, slow

RUN_S = 0.01
CALLS = 16
DEADLINE_S = 1.0


def run(folder: Path) -> Iterator[Row]:
    """Good answers a second at twice the peak, over the peak."""
    root = repository(folder / "models", slow=exports.slow)
    with serving(folder / "server.log", f"--model_repository={root}") as server:
        settled(server, "slow")
        request = slow(folder, server, "slow", RUN_S)
        load.run(server.port, request, 2.0, calls=CALLS)
        shares = []
        for _ in range(ROUNDS):
            peak = load.run(server.port, request, SECONDS, calls=CALLS).rate
            over = load.run(server.port, request, SECONDS, rate=2 * peak, timeout=DEADLINE_S)
            shares.append(over.rate / peak)
            print(f"peak {peak:.0f} a second, at twice that {over.rate:.0f}: {dict(over.codes)}")
    yield Row(
        "good answers a second at twice the capacity, over the peak",
        statistics.median(shares),
        at_least=0.9,
    )
