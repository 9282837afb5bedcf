"""What is remembered of versions, and when who waits is told: invariant 28."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from servingd.core.lifecycle.history import StateHistory
from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ServableId
from servingd.errors import Cancelled, DataLoss

NAMES = "abc"

states = st.builds(
    ServableState,
    st.builds(ServableId, st.sampled_from(NAMES), st.integers(1, 4)),
    st.sampled_from(PublicState),
)
waits = st.tuples(
    st.sets(st.sampled_from(NAMES), max_size=3),
    st.sampled_from([PublicState.AVAILABLE, PublicState.END, PublicState.LOADING]),
)


def due(last, names, goal):
    """The rule, as the contract says it: None while it waits, else the answer."""
    of = {n: [s for (name, _), s in last.items() if name == n] for n in names}
    reached = {n: goal in of[n] for n in names}
    ended = {n: bool(of[n]) and set(of[n]) == {PublicState.END} for n in names}
    return all(reached.values()) if all(reached[n] or ended[n] for n in names) else None


@settings(deadline=None)
@given(st.lists(st.one_of(states, waits), max_size=40))
def test_a_waiter_fires_once_iff_every_model_reached_the_goal_or_has_ended(steps):
    history, last = StateHistory(), {}
    waiting, answers = {}, {}
    for number, step in enumerate(steps):
        if isinstance(step, ServableState):
            last[step.id.name, step.id.version] = step.state
            fired = history.record(step)
        else:

            def notify(reached, number=number):
                answers.setdefault(number, []).append(reached)

            waiting[number] = step
            fired = history.notify_when(*step, notify)
        for notify, reached in fired:
            notify(reached)
        for waiter, (names, goal) in list(waiting.items()):
            answer = due(last, names, goal)
            if answer is None:
                assert waiter not in answers
            else:
                assert answers[waiter] == [answer]
                del waiting[waiter]
    assert all(len(calls) == 1 for calls in answers.values())


@settings(deadline=None)
@given(st.lists(states, max_size=40), waits)
def test_a_forgotten_waiter_never_fires(steps, wait):
    history, calls = StateHistory(), []
    # One that only a state yet to come can satisfy.
    due_now = history.notify_when({*wait[0], "never"}, wait[1], calls.append)
    assert due_now == []
    history.forget(history._waiters[0].notify)
    history.record(ServableState(ServableId("never", 1), wait[1]))
    assert all(history.record(step) == [] for step in steps)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            ServableState,
            st.builds(ServableId, st.sampled_from(NAMES), st.integers(1, 12)),
            st.sampled_from(PublicState),
        ),
        max_size=60,
    ),
    st.integers(0, 4),
)
def test_only_the_newest_ended_versions_are_remembered_and_all_others(steps, bound):
    history = StateHistory(max_ended=bound)
    for step in steps:
        history.record(step)
        kept = history.of_model(step.id.name)
        assert len([s for s in kept if s.state is PublicState.END]) <= bound
        assert step in kept or step.state is PublicState.END
    last = {(s.id.name, s.id.version): s for s in steps}
    for name in NAMES:
        kept = {s.id.version: s for s in history.of_model(name)}
        living = {v: s for (n, v), s in last.items() if n == name and s.state < PublicState.END}
        assert {v: s for v, s in kept.items() if s.state < PublicState.END} == living
        ended = [v for v, s in kept.items() if s.state is PublicState.END]
        assert all(last[name, v] == kept[v] for v in ended)


def test_the_newest_by_number_of_the_ended_versions_are_kept():
    history = StateHistory(max_ended=2)
    for version in (3, 1, 4, 2):
        history.record(ServableState(ServableId("m", version), PublicState.END))
    assert [s.id.version for s in history.of_model("m")] == [4, 3]


@settings(deadline=None)
@given(st.lists(states, max_size=40))
def test_of_model_has_the_last_state_of_each_version_newest_version_first(steps):
    history = StateHistory()
    for step in steps:
        history.record(step)
    for name in NAMES:
        last = {s.id.version: s for s in steps if s.id.name == name}
        assert history.of_model(name) == [last[v] for v in sorted(last, reverse=True)]
    assert history.available() == {
        n for n in NAMES if any(s.state is PublicState.AVAILABLE for s in history.of_model(n))
    }


def test_waiting_for_no_model_is_over_at_once():
    def notify(reached):
        raise AssertionError("it is the caller who calls")

    assert StateHistory().notify_when((), PublicState.AVAILABLE, notify) == [(notify, True)]


def test_a_model_of_which_nothing_is_known_is_waited_for():
    history = StateHistory()
    history.configure(["m"])
    assert history.notify_when(["m"], PublicState.AVAILABLE, print) == []


def test_incomplete_versions_are_replaced_whole_and_forgotten_when_none_is_left():
    history = StateHistory()
    history.report_incomplete("m", {1: "a", 2: "b"})
    history.report_incomplete("m", {2: "c"})
    assert history.incomplete("m") == {2: "c"}
    assert history.names() == ["m"]
    history.report_incomplete("m", {})
    assert history.incomplete("m") == {}
    assert history.names() == []


# Who waits for what does not come ---------------------------------------------------------------


def ended(version, error, name="m"):
    return ServableState(ServableId(name, version), PublicState.END, error)


def waits(history, patient):
    assert history.notify_when(["m"], PublicState.AVAILABLE, None, patient=patient) == []


@pytest.mark.parametrize("patient", [False, True])
def test_a_version_that_was_cancelled_is_no_failure_while_another_takes_its_place(patient):
    history = StateHistory()
    history.configure(["m"])
    waits(history, patient)
    assert history.record(ended(1, Cancelled("not wanted"))) == []
    assert history.record(ServableState(ServableId("m", 2), PublicState.START)) == []
    up = ServableState(ServableId("m", 2), PublicState.AVAILABLE)
    assert history.record(up) == [(None, True)]


@pytest.mark.parametrize("patient", [False, True])
def test_a_version_that_fails_after_another_was_cancelled_is_a_failure(patient):
    history = StateHistory()
    waits(history, patient)
    assert history.record(ended(1, Cancelled("not wanted"))) == []
    assert history.record(ended(2, DataLoss("short"))) == [(None, False)]


@pytest.mark.parametrize("patient", [False, True])
def test_nobody_waits_for_a_model_that_is_configured_no_more(patient):
    history = StateHistory()
    history.configure(["m", "n"])
    waits(history, patient)
    assert history.configure(["n"]) == [(None, False)]


@pytest.mark.parametrize("patient", [False, True])
def test_a_model_that_comes_back_while_its_old_version_leaves_is_waited_for_again(patient):
    history = StateHistory()
    history.configure(["m"])
    waits(history, patient)
    assert history.record(ServableState(ServableId("m", 1), PublicState.LOADING)) == []
    assert history.configure([]) == []  # the load under way decides
    assert history.configure(["m"]) == []
    assert history.record(ended(1, Cancelled("not wanted"))) == []


def say(history, version, state, error=None):
    return history.record(ServableState(ServableId("m", version), PublicState[state], error))


def test_a_model_that_was_removed_is_forgotten_when_its_last_version_has_ended():
    history = StateHistory()
    history.configure(["m"])
    say(history, 1, "AVAILABLE")
    say(history, 2, "END", DataLoss("x"))
    history.configure([])
    assert history.names() == ["m"], "it still serves"
    say(history, 1, "UNLOADING")
    say(history, 1, "END")
    assert history.names() == []
    assert history.of_model("m") == []


def test_a_model_that_never_served_is_forgotten_at_once():
    history = StateHistory()
    history.configure(["m"])
    say(history, 1, "END", DataLoss("x"))
    history.report_incomplete("m", {2: "half a file"})
    history.configure([])
    assert history.names() == []


def test_a_model_that_comes_back_before_it_has_ended_stays():
    history = StateHistory()
    history.configure(["m"])
    say(history, 1, "AVAILABLE")
    history.configure([])
    history.configure(["m"])
    say(history, 1, "END")
    assert history.names() == ["m"]
    assert len(history.of_model("m")) == 1


def test_models_that_come_and_go_leave_nothing():
    history = StateHistory()
    for number in range(50):
        name = f"experiment-{number}"
        history.configure([name])
        history.record(ServableState(ServableId(name, 1), PublicState.AVAILABLE))
        history.configure([])
        history.record(ServableState(ServableId(name, 1), PublicState.END))
    assert history.names() == []
    assert not history._states
    assert not history._removed
