"""The manager's inbox: order, replacement of statements, timers, the end."""

import threading
import time

from servingd.core.lifecycle.events import (
    Drained,
    LoadSucceeded,
    RetryDue,
    Stop,
)
from servingd.core.types import ServableId
from servingd.runtime.inbox import Inbox
from tests.threads.fakes import TIMEOUT, aspire

A1, B1 = ServableId("a", 1), ServableId("b", 1)


def read_all(inbox):
    """What is left in an inbox, closing it."""
    inbox.close()
    events = []
    while (event := inbox.get()) is not None:
        events.append(event)
    return events


def test_events_come_in_order_of_arrival():
    inbox = Inbox()
    events = [LoadSucceeded(A1), aspire("b", 1), Drained(A1), Stop()]
    for event in events:
        inbox.put(event)
    assert [inbox.get() for _ in events] == events


def test_a_newer_statement_takes_the_place_of_the_one_that_waits():
    inbox = Inbox()
    for event in (aspire("a", 1), LoadSucceeded(B1), aspire("b", 1), aspire("a", 1, 2)):
        inbox.put(event)
    assert read_all(inbox) == [aspire("a", 1, 2), LoadSucceeded(B1), aspire("b", 1)]


def test_a_statement_that_was_read_is_not_replaced_but_followed():
    inbox = Inbox()
    inbox.put(aspire("a", 1))
    assert inbox.get() == aspire("a", 1)
    inbox.put(aspire("a", 2))
    assert inbox.get() == aspire("a", 2)


def test_equal_events_that_are_no_statements_are_all_kept():
    inbox = Inbox()
    inbox.put(LoadSucceeded(A1))
    inbox.put(LoadSucceeded(A1))
    assert read_all(inbox) == [LoadSucceeded(A1)] * 2


def test_a_timed_event_comes_when_it_is_due_and_not_before():
    inbox = Inbox()
    started = time.monotonic()
    inbox.put_after(RetryDue(A1), 0.05)
    assert inbox.get() == RetryDue(A1)
    assert time.monotonic() - started >= 0.05


def test_an_event_does_not_wait_behind_a_timed_one():
    inbox = Inbox()
    inbox.put_after(RetryDue(A1), 3600)
    inbox.put(Drained(B1))
    assert inbox.get() == Drained(B1)


def test_timed_events_come_in_the_order_in_which_they_are_due():
    inbox = Inbox()
    inbox.put_after(RetryDue(B1), 0.04)
    inbox.put_after(RetryDue(A1), 0.01)
    assert [inbox.get(), inbox.get()] == [RetryDue(A1), RetryDue(B1)]


def test_a_pause_of_nothing_or_less_is_due_at_once():
    inbox = Inbox()
    inbox.put_after(RetryDue(A1), 0)
    inbox.put_after(RetryDue(B1), -5)
    assert [inbox.get(), inbox.get()] == [RetryDue(B1), RetryDue(A1)]


def test_a_cancelled_timed_event_never_comes_and_others_do():
    inbox = Inbox()
    inbox.put_after(RetryDue(A1), 0.01)
    inbox.put_after(RetryDue(B1), 0.02)
    inbox.cancel(RetryDue(A1))
    assert inbox.get() == RetryDue(B1)
    assert read_all(inbox) == []


def test_cancelling_what_is_not_there_changes_nothing():
    inbox = Inbox()
    inbox.cancel(RetryDue(A1))
    inbox.put(Stop())
    assert read_all(inbox) == [Stop()]


def reader_of(inbox, got):
    def read():
        while (event := inbox.get()) is not None:
            got.append(event)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_a_reader_that_waits_is_woken_by_an_event_a_nearer_timer_and_the_end():
    inbox, got = Inbox(), []
    inbox.put_after(RetryDue(A1), 3600)
    reader = reader_of(inbox, got)
    inbox.put_after(RetryDue(B1), 0.01)
    inbox.put(Stop())
    deadline = time.monotonic() + TIMEOUT
    while len(got) < 2 and time.monotonic() < deadline:
        reader.join(0.005)
    inbox.close()
    reader.join(TIMEOUT)
    assert not reader.is_alive()
    assert sorted(map(str, got)) == sorted(map(str, [RetryDue(B1), Stop()]))


def test_what_was_there_before_the_end_is_still_read_and_what_comes_after_is_dropped():
    inbox = Inbox()
    inbox.put(aspire("a", 1))
    inbox.put_after(RetryDue(A1), 0)
    inbox.close()
    inbox.put(Stop())
    inbox.put(aspire("b", 1))
    assert read_all(inbox) == [aspire("a", 1)]


def test_many_writers_lose_nothing():
    inbox, got = Inbox(), []
    reader = reader_of(inbox, got)

    def write(name):
        for version in range(200):
            inbox.put(LoadSucceeded(ServableId(name, version)))

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(TIMEOUT)
    inbox.close()
    reader.join(TIMEOUT)
    assert not reader.is_alive()
    assert len(got) == 800
    for name in "abcd":  # each writer's events in its order
        assert [e.id.version for e in got if e.id.name == name] == list(range(200))
