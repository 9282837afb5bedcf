"""How tests are dealt out to several processes, and which of them wait until they are alone.

`make test` runs as many processes as there are cores (`pytest -n auto`). Each takes one group of
tests after another: a file, or what asks one of the servers that files share.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LONG = (
    "tensorflow/test_optimise.py",
    "server: native",
    "e2e/test_devices.py",
    "e2e/test_ordinary_models.py",
    "e2e/test_life_cycle.py",
    "e2e/test_batching.py",
    "e2e/test_reload.py",
    "server: grpcio",
    "e2e/test_surface.py",
    "e2e/test_image.py",
    "e2e/test_warm_up_and_logs.py",
)
"""Groups that take longest: they come first, lest one runs when all others are over."""
TESTS = Path(__file__).parent
_TURNSTILE, _ROOM = TESTS / "conftest.py", TESTS / "side_by_side.py"
"""Any two files, to lock."""


def deal_out(items: list[pytest.Item]) -> None:
    """Name each test's group, and put the long groups first."""
    place = {name: n for n, name in enumerate(LONG)}
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: place.get(groups[item], len(LONG)))


def _group(item: pytest.Item) -> str:
    carrier = getattr(item, "callspec", None) and item.callspec.params.get("server")
    if carrier in ("native", "grpcio"):
        return f"server: {carrier}"
    return item.path.relative_to(TESTS).as_posix()


@contextmanager
def in_the_room(*, alone: bool) -> Iterator[None]:
    """Wait until nobody is alone, or, to be alone, until all others have left.

    Who comes after one that waits to be alone waits behind it.
    """
    with _TURNSTILE.open() as turnstile, _ROOM.open() as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield
