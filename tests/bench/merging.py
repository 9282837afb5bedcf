"""What it gains that calls which wait together run together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import ROUNDS, SECONDS, repository, serving, settled, wide, wide_request

CALLS = 32
NAMES = ("merged", "alone")


def run(folder: Path) -> Iterator[Row]:
    """Calls a second of a model with merging, over the same model without."""
    root = repository(folder / "models", merged=wide, alone=wide)
    config = folder / "servingd.yaml"
    config.write_text(
        f"models:\n- {{name: merged, base_path: {root}/merged}}\n"
        f"- {{name: alone, base_path: {root}/alone, merging: never}}\n"
    )
    with serving(folder / "server.log", f"--servingd_config_file={config}") as server:
        settled(server, *NAMES)
        requests = [wide_request(folder, server, name) for name in NAMES]
        ratios = []
        for _ in range(ROUNDS):
            merged, alone = (load.run(server.port, r, SECONDS, calls=CALLS).rate for r in requests)
            ratios.append(merged / alone)
            print(f"merged {merged:.0f} calls a second, alone {alone:.0f}")
    yield Row(
        f"a row-wise model, {CALLS} calls at a time: calls a second, merged over alone",
        statistics.median(ratios),
        at_least=1.5,
    )
