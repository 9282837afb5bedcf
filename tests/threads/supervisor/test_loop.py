"""One thread that runs what others put to it."""

import threading

import pytest

from servingd.runtime.loop import Loop
from tests.threads.fakes import TIMEOUT


@pytest.fixture
def loop():
    loop = Loop("test-loop")
    loop.start()
    yield loop
    loop.stop(TIMEOUT)
    assert not [t for t in threading.enumerate() if t.name == "test-loop"]


def settle(loop):
    """Wait until what was put before has run."""
    done = threading.Event()
    loop.put(done.set)
    assert done.wait(TIMEOUT)


def test_jobs_run_one_after_the_other_on_one_thread(loop):
    ran, threads = [], set()

    def put(first):
        for number in range(first, first + 100):
            loop.put(lambda number=number: (ran.append(number), threads.add(threading.get_ident())))

    putters = [threading.Thread(target=put, args=(first,)) for first in (0, 1000)]
    for putter in putters:
        putter.start()
    for putter in putters:
        putter.join()
    settle(loop)
    assert [n for n in ran if n < 1000] == list(range(100))
    assert [n for n in ran if n >= 1000] == list(range(1000, 1100))
    assert len(threads) == 1


def test_a_job_that_fails_ends_no_other(loop, caplog):
    loop.put(lambda: 1 / 0)
    settle(loop)
    assert "a job of test-loop failed" in caplog.text


def test_timed_jobs_run_when_they_are_due_in_order(loop):
    ran, last = [], threading.Event()
    loop.put_after(0.02, lambda: (ran.append("late"), last.set()))
    loop.put_after(0.01, lambda: ran.append("early"))
    loop.put(lambda: ran.append("now"))
    assert last.wait(TIMEOUT)
    assert ran == ["now", "early", "late"]


def test_a_job_may_put_jobs(loop):
    done = threading.Event()
    loop.put(lambda: loop.put_after(0.0, lambda: loop.put(done.set)))
    assert done.wait(TIMEOUT)


def test_what_was_put_runs_before_the_end_and_what_is_not_due_is_dropped():
    loop, ran = Loop("test-loop"), []
    loop.start()
    loop.put_after(3600.0, lambda: ran.append("never"))
    for number in range(100):
        loop.put(lambda number=number: ran.append(number))
    loop.stop(TIMEOUT)
    assert ran == list(range(100))
