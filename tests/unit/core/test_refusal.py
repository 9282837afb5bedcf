"""Whom to refuse, and what they are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.batching.queue import Priority
from servingd.core.batching.refusal import AdmissionLimits, Backlog, refusal
from servingd.errors import Code

LIMITS = AdmissionLimits(max_calls=100, max_rows=1000, max_bytes=1000, max_wait_s=10.0)


def backlog(calls=1, rows=1, wait_s=0.0, run_s=0.0, size=0) -> Backlog:
    return Backlog(calls=calls, rows=rows, wait_s=wait_s, run_s=run_s, size=size)


def refused(found: Backlog, left_s: float | None = None, priority=Priority.NORMAL):
    return refusal("m:1/s", found, left_s, priority, LIMITS)


def test_what_can_be_answered_in_time_is_let_in():
    assert refused(backlog()) is None
    assert refused(backlog(calls=80, rows=800, wait_s=0.5, run_s=0.1), 1.0) is None


@pytest.mark.parametrize("found", [backlog(calls=90), backlog(rows=900), backlog(size=901)])
def test_too_much_that_waits(found):
    error = refused(found)
    assert error is not None
    assert error.code is Code.UNAVAILABLE
    assert error.message.startswith("queue of m:1/s is full (")
    assert error.retry_after_s


def test_one_call_alone_may_have_more_bytes_than_may_wait():
    assert refused(backlog(calls=0, rows=0, size=5000)) is None


def test_too_little_time():
    error = refused(backlog(wait_s=0.9, run_s=0.2), 1.0)
    assert error is not None
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert error.message == ("queue of m:1/s: the answer would take 1.200 s, and 1.000 s are left")
    assert error.retry_after_s == pytest.approx(0.2)


def test_without_a_deadline_a_call_waits_as_long_as_the_server_says():
    assert refused(backlog(wait_s=8.0)) is None
    assert refused(backlog(wait_s=10.0)) is not None


def test_the_first_in_line_always_gets_its_chance():
    assert refused(backlog(calls=0, run_s=5.0), 1.0) is None


@given(
    st.integers(0, 200),
    st.integers(0, 2000),
    st.floats(0, 20),
    st.floats(0, 20),
    st.one_of(st.none(), st.floats(0, 20)),
)
def test_who_is_more_important_is_never_refused_where_another_is_not(
    calls, rows, wait_s, run_s, left_s
):
    found = Backlog(calls=calls, rows=rows, wait_s=wait_s, run_s=run_s)
    high, normal, low = (refused(found, left_s, p) is not None for p in Priority)
    assert high <= normal <= low
