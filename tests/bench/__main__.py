"""`python -m tests.bench`: run every benchmark and print the table."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BENCHMARKS = (
    "request_path",
    "answers",
    "rest_ranking",
    "system_calls",
    "thousand_models",
    "optimised_graphs",
    "loading",
    "slow_beside_fast",
    "self_warming",
    "merging",
    "goal",
    "overload",
    "quiet_reload",
    "replicas",
    "workers",
    "large_model",
    "lookup_tables",
    "servable_types",
    "client",
    "oip",
)


def main() -> int:
    table = Table("benchmark", "ratio", "wanted", "", title="Let nothing else run meanwhile")
    missed = 0
    for name in sys.argv[1:] or BENCHMARKS:
        module = importlib.import_module(f"tests.bench.{name}")
        with tempfile.TemporaryDirectory() as folder:
            for row in module.run(Path(folder)):
                missed += not row.good
                table.add_row(
                    row.what, f"{row.ratio:.2f}", row.wanted, "ok" if row.good else "MISSED"
                )
    Console().print(table)
    return missed


if __name__ == "__main__":
    sys.exit(main())
