"""Turns on a core, as the kernel shows them."""

import re
import threading
from pathlib import Path

import pytest

from servingd.runtime.threads import WorkerPool
from servingd.runtime.turns import LONG_S, SHORT_S, ask_for_turns


def shown() -> int:
    """This thread's turn in nanoseconds."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/sched")
    found = re.search(r"se\.slice\s*:\s*(\d+)", path.read_text()) if path.exists() else None
    if found is None:
        pytest.skip("this kernel does not show how long turns are")
    return int(found[1])


def in_thread(job):
    """What a job gives in a thread of its own: others keep their turns."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(job()))
    thread.start()
    thread.join()
    return outcomes[0]


def test_a_thread_gets_the_turns_it_asks_for():
    shown()

    def job():
        assert ask_for_turns(SHORT_S)
        return shown()

    assert in_thread(job) == SHORT_S * 1e9


def test_threads_inherit_and_those_that_load_take_longer_ones():
    shown()

    def job():
        ask_for_turns(SHORT_S)
        turns, done = [], threading.Semaphore(0)
        pools = [WorkerPool("quick", 1), WorkerPool("heavy", 1, long_turns=True)]
        for pool in pools:
            pool.start()
            pool.submit(lambda: (turns.append(shown()), done.release()))
            done.acquire(timeout=10)
        assert not any(pool.stop(5) for pool in pools)
        return turns

    assert in_thread(job) == [SHORT_S * 1e9, LONG_S * 1e9]


def test_where_it_cannot_be_said_nothing_happens(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "abacus")
    assert ask_for_turns(SHORT_S) is False
