"""Runs that nobody waits for any more are ended; others are left alone."""

import threading

import pytest

from servingd.servables.saved_model.session.run_watch import RunWatch, SyntheticRun
from tests.threads.fakes import TIMEOUT

AT_ONCE, NEVER = 0.0, 3600.0
ENOUGH = 1 << 40


class Run:
    def __init__(self):
        self.waited_for = True
        self.looked_at = threading.Event()

    def alive(self):
        self.looked_at.set()
        return self.waited_for


class Session:
    def __init__(self, *runs):
        self.runs = dict(enumerate(runs))
        self.cancelled = False
        self.ended = threading.Event()
        self.told = []

    def overdue(self, *, stopping):
        self.told.append(stopping)
        self.runs.clear()
        self.ended.set()


@pytest.fixture
def watching():
    """Watch a session: `watching(session, grace_s)`."""
    watches = []

    def make(session, grace_s=AT_ONCE):
        watch = RunWatch(grace_s, interval_s=0.001)
        watch.add(session)
        watches.append((watch, session))
        return watch

    yield make
    for watch, session in watches:
        watch.remove(session)


def test_a_run_that_nobody_waits_for_is_ended(watching):
    run = Run()
    session = Session(run, Run())
    watching(session)
    assert run.looked_at.wait(TIMEOUT)
    assert not session.ended.is_set()
    run.waited_for = False
    assert session.ended.wait(TIMEOUT)
    assert session.told == [False]


def test_it_may_go_on_for_a_while(watching):
    run = Run()
    run.waited_for = False
    session = Session(run)
    watching(session, NEVER)
    assert run.looked_at.wait(TIMEOUT)
    run.looked_at.clear()
    assert run.looked_at.wait(TIMEOUT)
    assert not session.ended.is_set()


def test_made_up_inputs_have_the_time_that_they_have(watching):
    session = Session(SyntheticRun(0.0, ENOUGH, threading.Event()))
    watching(session, NEVER)
    assert session.ended.wait(TIMEOUT)


def test_made_up_inputs_have_the_memory_that_they_have(watching):
    session = Session(SyntheticRun(NEVER, -1 << 30, threading.Event()))
    watching(session, NEVER)
    assert session.ended.wait(TIMEOUT)


def test_made_up_inputs_are_over_once_the_version_is_not_wanted(watching):
    cancelled = threading.Event()
    session = Session(SyntheticRun(NEVER, ENOUGH, cancelled))
    watching(session, NEVER)
    cancelled.set()
    assert session.ended.wait(TIMEOUT)


def test_every_run_of_a_version_that_is_not_wanted_is_over(watching):
    session = Session(Run())
    watching(session, NEVER)
    session.cancelled = True
    assert session.ended.wait(TIMEOUT)
    assert session.told == [True]


def test_every_run_is_over_when_the_server_stops(watching):
    session = Session(Run())
    watch = watching(session, NEVER)
    watch.stop()
    assert session.ended.wait(TIMEOUT)
    assert session.told == [True]


def test_a_session_that_fails_to_end_does_not_end_the_watch(watching):
    class Broken(Session):
        def overdue(self, *, stopping):
            super().overdue(stopping=stopping)
            raise RuntimeError("boom")

    run, broken = Run(), Broken(Run())
    watch = watching(broken)
    next(iter(broken.runs.values())).waited_for = False
    assert broken.ended.wait(TIMEOUT)
    other = Session(run)
    watch.add(other)
    run.waited_for = False
    assert other.ended.wait(TIMEOUT)
    watch.remove(other)
