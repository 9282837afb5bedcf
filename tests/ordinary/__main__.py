"""Checks the ordinary models and prints a table of them.

    python -m tests.ordinary [--short] [--folder=FOLDER] [NAME...]

Without names, all. The exit code is 1 if anything is wrong. Exports and logs of the server stay in
the folder, if one is named, and exports that are there are not made again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from rich.console import Console
from rich.table import Table

from tests.ordinary.catalog import named
from tests.ordinary.check import FULL, SHORT, check
from tests.ordinary.findings import Findings

COLUMNS = (
    "model",
    "loads",
    "optimised",
    "merged",
    "wrong alone",
    "wrong beside",
    "seconds",
)


def row(found: Findings) -> tuple[str, ...]:
    """A model's line of the table."""
    if found.error:
        return (found.entry.name, found.error, *("",) * 4, f"{found.seconds:.0f}")
    graph = found.graph if not found.declined else f"{found.graph}: {found.declined}"
    merged = f"to {found.worth_merging} rows" if found.worth_merging else "no"
    if found.not_merged:
        merged += f": {found.not_merged}"
    merged += f" ({found.batches['calls']} calls in {found.batches['batches']} batches)"
    calls = sum(b.calls for b in found.beside)
    beside = "+".join(str(b.wrong) for b in found.beside)
    alone = str(len(found.wrong_alone))
    return (
        found.entry.name,
        "yes",
        graph,
        merged,
        alone,
        f"{beside} of {calls}",
        f"{found.seconds:.0f}",
    )


def table(findings: Sequence[Findings]) -> Table:
    """All lines."""
    whole = Table(*COLUMNS)
    for found in findings:
        whole.add_row(*row(found), style="red" if found.failures() else None)
    return whole


def main() -> int:
    """Check what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.ordinary")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--short", action="store_true", help="fewer calls of each")
    parser.add_argument(
        "--folder", type=Path, help="of exports and logs (default: a temporary one)"
    )
    options = parser.parse_args()
    try:
        entries = named(options.names)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder.resolve() if options.folder else Path(temporary)
        told = lambda found: print(*row(found), sep=" | ", flush=True)  # noqa: E731
        findings = check(entries, folder, SHORT if options.short else FULL, told)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table(findings))
    wrong = [(found.entry.name, text) for found in findings for text in found.failures()]
    for name, text in wrong:
        console.print(f"{name}: {text}", markup=False, highlight=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
