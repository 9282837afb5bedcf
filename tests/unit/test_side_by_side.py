"""How the tests themselves are dealt out to processes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.side_by_side import LONG, group_of, in_the_room, made_once, turn_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/core/test_x.py::test_y", "tests/unit/core/test_x.py"),
        ("tests/unit/core/test_x.py::test_y[native]", "tests/unit/core/test_x.py"),
        ("tests/e2e/test_x.py::test_y", "tests/e2e/test_x.py"),
        ("tests/e2e/test_x.py::test_y[natively]", "tests/e2e/test_x.py"),
        ("tests/e2e/test_x.py::test_y[native]", "the server with native"),
        ("tests/e2e/test_x.py::test_y[a case-native]", "the server with native"),
        ("tests/e2e/test_x.py::test_y[grpcio-[1]]", "the server with grpcio"),
    ],
)
def test_what_asks_one_server_is_one_group(nodeid, group):
    assert group_of(nodeid) == group


def test_long_groups_are_there_and_come_first():
    files = [name for name in LONG if name.endswith(".py")]
    assert [name for name in files if not (ROOT / name).is_file()] == []
    names = ["tests/unit/test_x.py::a", f"{files[1]}::b", f"{files[0]}::c"]
    assert sorted(names, key=turn_of) == names[::-1]


def test_a_folder_is_made_once(tmp_path):
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").touch()

    own = tmp_path / "process"
    own.mkdir()
    found = {made_once(own, "exports", make) for _ in range(2)}
    assert len(calls) == len(found) == 1
    assert (found.pop() / "file").exists()


def test_who_is_alone_waits_for_all_and_all_wait_for_it(tmp_path):
    locks = tmp_path / "turnstile", tmp_path / "room"
    for lock in locks:
        lock.touch()
    events: list[str] = []
    waits = threading.Event()

    def be(name: str, alone: bool) -> threading.Thread:
        def run() -> None:
            with in_the_room(alone=alone, locks=locks):
                events.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with in_the_room(alone=False, locks=locks), in_the_room(alone=False, locks=locks):
        threads = [be("alone", alone=True)]
        waits.wait(0.2)  # so that it is the one at the turnstile
        threads.append(be("later", alone=False))
        waits.wait(0.2)
        assert events == []
    for thread in threads:
        thread.join(10)
    assert events == ["alone", "later"]
