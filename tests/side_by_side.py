"""How tests are dealt out to several processes, what these share, and which tests run alone.

`make test` runs as many processes as there are cores (`pytest -n auto`). Each takes one group of
tests after another: a file, or what asks one of the servers that files share.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

LONG = (
    "tests/docs/test_pages.py",
    "tests/tensorflow/test_optimise.py",
    "the server with native",
    "tests/e2e/test_devices.py",
    "tests/e2e/test_ordinary_models.py",
    "tests/e2e/test_life_cycle.py",
    "tests/e2e/test_batching.py",
    "the server with grpcio",
    "tests/e2e/test_image.py",
    "tests/e2e/test_warm_up_and_logs.py",
)
"""Groups that take longest: they come first, lest one runs when all others are over."""
_TRANSPORT = re.compile(r"tests/e2e/[^[]*\[.*\b(native|grpcio)\b")
LOCKS = Path(__file__), Path(__file__).with_name("conftest.py")
"""Any two files, to lock: the turnstile before the room, and the room."""


def group_of(nodeid: str) -> str:
    """The name of what runs in one process, one test after another."""
    found = _TRANSPORT.match(nodeid)
    return f"the server with {found[1]}" if found else nodeid.partition("::")[0]


def turn_of(nodeid: str) -> int:
    """A number by which tests are sorted: those of long groups first."""
    group = group_of(nodeid)
    return LONG.index(group) if group in LONG else len(LONG)


class Groups(LoadScopeScheduling):
    """Gives each process one group after another."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def made_once(own: Path, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one process makes for all; `own` is where this one's files lie."""
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = root / f"{name}.unfinished"
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


@contextmanager
def in_the_room(*, alone: bool, locks: tuple[Path, Path] = LOCKS) -> Iterator[None]:
    """Wait until nobody is alone, or, to be alone, until all others have left.

    Who comes after one that waits to be alone waits behind it.
    """
    with locks[0].open() as turnstile, locks[1].open() as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield
