"""What a second replica gains: a model that runs on one thread, on two devices instead of one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from tests import exports
from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import ROUNDS, SECONDS, repository, serving, settled, slow

CALLS = 8
RUN_S = 0.010


def run(folder: Path) -> Iterator[Row]:
    """Calls a second of a model with two replicas, over the same model with one."""
    root = repository(folder / "models", one=exports.slow, two=exports.slow)
    config = folder / "servingd.yaml"
    config.write_text(
        "virtual_cpu_devices: 2\nmodels:\n"
        f"- {{name: one, base_path: {root}/one}}\n"
        f"- {{name: two, base_path: {root}/two, replicas: 2}}\n"
    )
    with serving(folder / "server.log", f"--servingd_config_file={config}") as server:
        settled(server, "one", "two")
        requests = {name: slow(folder, server, name, RUN_S) for name in ("one", "two")}
        ratios = []
        for _ in range(ROUNDS):
            one, two = (
                load.run(server.port, requests[name], SECONDS, calls=CALLS).rate
                for name in ("one", "two")
            )
            ratios.append(two / one)
            print(f"one replica {one:.0f} calls a second, two {two:.0f}")
    yield Row(
        "a model of 10 ms on one thread: calls a second, two replicas over one",
        statistics.median(ratios),
        at_least=1.7,
    )
