"""Environments of their own for clients that want other packages than the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

UV = str(Path(sys.executable).with_name("uv"))


def make_environment(home: Path) -> Path:
    """Make an empty environment; return the folder of its programs."""
    _run("venv", "--quiet", "--python", sys.executable, str(home))
    return home / "bin"


def install(programs: Path, *packages: str, needed: bool = True) -> None:
    """Install packages; without a compiler, so what has no wheel for this machine fails.

    `needed` is False for packages of other people's that may not be there: then tests are skipped.
    """
    done = _run(
        *("pip", "install", "--quiet", "--only-binary", ":all:"),
        *("--python", str(programs / "python"), *packages),
        check=needed,
    )
    if done.returncode != 0:
        pytest.skip(f"{', '.join(packages)} cannot be installed here: {done.stderr[-300:]}")


def _run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [UV, *arguments], capture_output=True, text=True, timeout=110, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
