"""Whether a latency goal is kept, and what it gains."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import ROUNDS, SECONDS, repository, serving, settled, wide, wide_request

GOAL_MS = 50
CALLS = 32
NAMES = ("with_goal", "alone")


def run(folder: Path) -> Iterator[Row]:
    """The p99 over the goal, and calls a second over those without batches."""
    root = repository(folder / "models", with_goal=wide, alone=wide)
    config = folder / "servingd.yaml"
    config.write_text(
        "models:\n"
        f"- {{name: with_goal, base_path: {root}/with_goal, latency_goal_ms: {GOAL_MS}}}\n"
        f"- {{name: alone, base_path: {root}/alone, merging: never}}\n"
    )
    with serving(folder / "server.log", f"--servingd_config_file={config}") as server:
        settled(server, *NAMES)
        requests = [wide_request(folder, server, name) for name in NAMES]
        kept, gains = [], []
        for _ in range(ROUNDS):
            goal, alone = (load.run(server.port, r, SECONDS, calls=CALLS) for r in requests)
            kept.append(goal.ms(0.99) / GOAL_MS)
            gains.append(goal.rate / alone.rate)
            print(
                f"with a goal {goal.rate:.0f} calls a second, p50 {goal.ms(0.5):.1f} and p99 "
                f"{goal.ms(0.99):.1f} ms; alone {alone.rate:.0f}, {alone.ms(0.5):.1f} and "
                f"{alone.ms(0.99):.1f} ms"
            )
    yield Row(f"p99 over a latency goal of {GOAL_MS} ms", statistics.median(kept), at_most=1.0)
    yield Row(
        "calls a second with that goal, over without batches",
        statistics.median(gains),
        at_least=1.2,
    )
