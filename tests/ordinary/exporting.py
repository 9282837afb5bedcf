"""Exports ordinary models, each in a process that has what its family needs.

    python -m tests.ordinary.exporting FOLDER NAME...

Writes FOLDER/NAME/1 of each; prints a line of JSON with its name, and the error if there is one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from tests import absent
from tests.ordinary.catalog import named
from tests.ordinary.entry import Entry

VERSION = "1"
ROOT = Path(__file__).parents[2]


def version_folder(root: Path, entry: Entry) -> Path:
    """Where the export of a model is."""
    return root / entry.name / VERSION


def export_all(entries: Iterable[Entry], root: Path) -> dict[str, str]:
    """Export what is missing under `root`; return the errors, by name."""
    missing = [e for e in entries if not version_folder(root, e).exists()]
    missing.sort(key=lambda e: e.environment)
    errors: dict[str, str] = {}
    for environment, group in groupby(missing, key=lambda e: e.environment):
        names = [entry.name for entry in group]
        told = {line["name"]: line["error"] for line in _child(root, names, dict(environment))}
        errors |= {n: told.get(n, "its process ended") for n in names if told.get(n, "?")}
    return errors


def _child(root: Path, names: list[str], environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    child = subprocess.run(
        [sys.executable, "-m", "tests.ordinary.exporting", str(root.resolve()), *names],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": absent.SEEN, **quiet, **environment},
        check=False,
    )
    for line in child.stdout.decode().splitlines():
        if line.startswith('{"name"'):
            yield json.loads(line)


def main() -> None:
    """Export the models named on the command line."""
    root = Path(sys.argv[1])
    for entry in named(sys.argv[2:]):
        started, error = time.monotonic(), ""
        staging = root / entry.name / f".staging-{VERSION}"
        try:
            staging.parent.mkdir(parents=True, exist_ok=True)
            entry.export(staging)
            staging.rename(version_folder(root, entry))
        except Exception as problem:
            traceback.print_exc()
            error = f"{type(problem).__name__}: {problem}"
        seconds = round(time.monotonic() - started, 1)
        print(json.dumps({"name": entry.name, "error": error, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
