"""What is learnt of runs, and the limits that follows from it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.batching.batch_limits import (
    MAX_ROWS,
    BatchLimits,
    BatchRules,
    FixedPolicy,
    LatencyGoalPolicy,
    RunTimes,
    WaitingPolicy,
)

RULES = BatchRules(max_request_rows=MAX_ROWS, max_batch_rows=64, max_enqueued_batches=MAX_ROWS)


def times(*costs: tuple[int, float]) -> RunTimes:
    learnt = RunTimes()
    for rows, seconds in costs:
        learnt.observe(rows, seconds)
    return learnt


def goal_policy(
    goal_s: float, learnt: RunTimes, gap_s: float, worth: int = 64
) -> LatencyGoalPolicy:
    policy = LatencyGoalPolicy(RULES, goal_s, learnt, lambda: worth)
    for i in range(50):
        policy.on_arrival(1, i * gap_s)
    return policy


def test_nothing_is_known_before_the_first_run():
    assert RunTimes().estimate(1) is None
    assert RunTimes().by_rows() == {}


def test_a_size_that_was_never_run_costs_per_row_what_its_neighbour_does():
    learnt = times((4, 0.004), (16, 0.008))
    assert learnt.estimate(4) == pytest.approx(0.004)
    assert learnt.estimate(16) == pytest.approx(0.008)
    assert learnt.estimate(2) == pytest.approx(0.002)
    assert learnt.estimate(8) == pytest.approx(0.008)
    assert learnt.estimate(64) == pytest.approx(0.032)
    assert learnt.by_rows() == pytest.approx({4: 0.004, 16: 0.008})


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=50))
def test_an_estimate_lies_among_what_was_seen(seen):
    learnt = times(*((3, seconds) for seconds in seen))
    estimate = learnt.estimate(3)
    assert estimate is not None
    assert min(seen) * 0.999 <= estimate <= max(seen) * 1.001


def test_a_waiting_pacer_goes_by_what_is_worth_merging_now():
    worth = [0]
    policy = WaitingPolicy(RULES, lambda: worth[0])
    assert policy.limits() == BatchLimits(full_rows=1, may_overlap=True)
    worth[0] = 8
    assert policy.limits() == BatchLimits(full_rows=8, may_overlap=False, most_rows=32)
    policy.on_arrival(1, 0.0)


def test_a_fixed_pacer_never_changes():
    policy = FixedPolicy(RULES, BatchLimits(full_rows=3, hold_s=0.1, reason="timer"))
    policy.on_arrival(1, 0.0)
    assert policy.limits() is policy.fixed


def test_a_goal_allows_batches_of_which_two_runs_fit():
    learnt = times((1, 0.01), (2, 0.012), (4, 0.016), (8, 0.024), (16, 0.04))
    assert goal_policy(0.1, learnt, 1e-3).rows() == 16
    assert goal_policy(0.065, learnt, 1e-3).rows() == 8
    assert goal_policy(0.011, learnt, 1e-3).rows() == 1
    assert goal_policy(0.1, learnt, 1e-3, worth=4).rows() == 4
    assert goal_policy(0.1, RunTimes(), 1e-3).rows() == 1


def test_unfilled_batches_are_held_only_if_others_are_expected():
    learnt = times((1, 0.01), (2, 0.012), (4, 0.016), (8, 0.024), (16, 0.04))
    busy = goal_policy(0.2, learnt, 1e-3, worth=16).limits()
    assert (busy.reason, busy.full_rows) == ("goal", 16)
    assert 0 < busy.hold_s <= 0.2 * 0.8 - 2 * 0.04
    idle = goal_policy(0.2, learnt, 1.0, worth=16).limits()
    assert (idle.reason, idle.hold_s) == ("idle", 0.0)


@given(
    st.floats(1e-3, 1.0),
    st.lists(st.tuples(st.integers(1, 64), st.floats(1e-5, 0.5)), max_size=20),
    st.lists(st.floats(0, 0.1), max_size=20),
    st.integers(0, 100),
)
def test_a_held_batch_can_always_still_meet_the_goal(goal_s, costs, gaps, worth):
    learnt = times(*costs)
    policy = LatencyGoalPolicy(RULES, goal_s, learnt, lambda: worth)
    now = 0.0
    for gap in gaps:
        now += gap
        policy.on_arrival(1, now)
    limits = policy.limits()
    assert 1 <= limits.full_rows <= min(64, max(1, worth))
    assert 0 <= limits.hold_s < math.inf
    if limits.hold_s:
        run_s = learnt.estimate(limits.full_rows)
        assert run_s is not None
        assert limits.hold_s + 2 * run_s <= goal_s
