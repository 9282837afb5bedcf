"""Events in, commands out: the manager's decisions as plain data."""

import pytest

from servingd.core.lifecycle.events import (
    Announce,
    CancelLoad,
    CancelRetry,
    Crashed,
    Discard,
    Drained,
    LoadFailed,
    LoadOverdue,
    LoadSucceeded,
    Publish,
    PublishFailed,
    Quiesce,
    ReportIncomplete,
    RetryDue,
    ScheduleRetry,
    StartLoad,
    StartUnload,
    Stop,
    Unloaded,
)
from servingd.core.lifecycle.policies import POLICIES, resource_preserving
from servingd.core.lifecycle.reconcile import ManagerState
from servingd.core.lifecycle.states import (
    TRANSITIONS,
    HarnessState,
    IllegalTransition,
    PublicState,
    ServableState,
    advance,
)
from servingd.core.types import AspiredVersion, AspiredVersions, ServableId, VersionData
from servingd.errors import DataLoss, Internal, InvalidArgument
from tests.unit.core.settled import is_settled

M1, M2, M3 = (ServableId("m", v) for v in (1, 2, 3))
BROKEN = DataLoss("a shard is short")


def data(version, files=""):
    return VersionData(f"/m/{version}", "tensorflow", files)


def aspire(*versions, files="", incomplete=None):
    return AspiredVersions(
        "m", tuple(AspiredVersion(v, data(v, files)) for v in versions), incomplete or {}
    )


def say(servable, state, error=None):
    return Announce(ServableState(servable, PublicState[state], error))


def deeds(commands):
    """The commands without the announcements."""
    return [c for c in commands if not isinstance(c, Announce)]


def said(commands):
    return [
        (c.state.id.version, c.state.state.name, c.state.error and c.state.error.code.name)
        for c in commands
        if isinstance(c, Announce)
    ]


@pytest.fixture
def state():
    return ManagerState()


@pytest.fixture
def serving(state):
    """Version 1 serves."""
    state.handle(aspire(1))
    state.handle(LoadSucceeded(M1))
    return state


def test_a_first_version_is_announced_and_loaded(state):
    assert state.handle(aspire(1)) == [
        say(M1, "START"),
        say(M1, "LOADING"),
        StartLoad(M1, data(1)),
    ]
    # reachable first, announced afterwards
    assert state.handle(LoadSucceeded(M1)) == [Publish(M1), say(M1, "AVAILABLE")]
    assert is_settled(state)


def test_a_new_version_takes_over_without_a_gap(serving):
    assert deeds(serving.handle(aspire(2))) == [StartLoad(M2, data(2))]
    assert serving.handle(LoadSucceeded(M2)) == [
        Publish(M2),
        say(M2, "AVAILABLE"),
        say(M1, "UNLOADING"),  # before lookups stop
        Quiesce(M1),
    ]
    assert serving.handle(Drained(M1)) == [StartUnload(M1)]
    assert serving.handle(Unloaded(M1)) == [say(M1, "END")]


def test_resource_preserving_frees_first():
    state = ManagerState(resource_preserving)
    state.handle(aspire(1))
    state.handle(LoadSucceeded(M1))
    assert deeds(state.handle(aspire(2))) == [Quiesce(M1)]
    assert deeds(state.handle(Drained(M1))) == [StartUnload(M1)]
    assert deeds(state.handle(Unloaded(M1))) == [StartLoad(M2, data(2))]


def test_the_same_statement_again_changes_nothing(serving):
    assert serving.handle(aspire(1)) == []


def test_a_version_whose_successor_fails_serves_on(serving):
    serving.handle(aspire(2))
    commands = serving.handle(LoadFailed(M2, BROKEN, retriable=False))
    assert commands == [Discard(M2), say(M2, "END", BROKEN)]
    assert serving.handle(aspire(2)) == []


def test_a_rollback_to_what_still_serves_never_sticks(serving):
    serving.handle(aspire(2))
    serving.handle(LoadFailed(M2, BROKEN, retriable=False))
    assert serving.handle(aspire(1)) == []  # 1 never stopped; 2 is forgotten
    assert is_settled(serving)
    assert [h.id for h in serving.harnesses()] == [M1]


def test_a_rollback_during_a_load_keeps_the_old_and_cancels_the_new(serving):
    serving.handle(aspire(2))
    assert serving.handle(aspire(1)) == [CancelLoad(M2)]
    assert serving.handle(LoadSucceeded(M2)) == [StartUnload(M2)]  # never available
    assert said(serving.handle(Unloaded(M2))) == [(2, "END", "CANCELLED")]
    assert is_settled(serving)


def test_reaspired_while_on_its_way_out_it_gets_a_new_loader_afterwards(serving):
    serving.handle(aspire())
    assert serving.handle(aspire(1)) == []
    assert deeds(serving.handle(Drained(M1))) == [StartUnload(M1)]
    assert serving.handle(aspire(1)) == []
    assert serving.handle(Unloaded(M1)) == [
        say(M1, "END"),
        say(M1, "START"),
        say(M1, "LOADING"),
        StartLoad(M1, data(1)),
    ]


def test_reaspired_while_its_cancelled_load_runs_it_waits_for_the_end(state):
    state.handle(aspire(1))
    state.handle(aspire())
    assert state.handle(aspire(1)) == []
    assert state.handle(LoadSucceeded(M1)) == [StartUnload(M1)]
    assert deeds(state.handle(Unloaded(M1))) == [StartLoad(M1, data(1))]


def test_the_last_that_serves_stays_until_a_version_on_its_way_out_is_back(serving):
    serving.handle(aspire(1, 2))
    serving.handle(LoadSucceeded(M2))
    serving.handle(aspire(1))
    serving.handle(Drained(M2))
    assert serving.handle(aspire(2)) == []  # 2 is being unloaded: 1 must serve on
    assert deeds(serving.handle(Unloaded(M2))) == [StartLoad(M2, data(2))]
    assert deeds(serving.handle(LoadSucceeded(M2))) == [Publish(M2), Quiesce(M1)]


def test_retries_end_with_the_last_error():
    state = ManagerState(max_num_load_retries=1)
    state.handle(aspire(1))
    assert deeds(state.handle(LoadFailed(M1, BROKEN))) == [ScheduleRetry(M1, 60.0)]
    assert state.handle(RetryDue(M1)) == [StartLoad(M1, data(1))]
    assert state.handle(LoadFailed(M1, BROKEN)) == [Discard(M1), say(M1, "END", BROKEN)]
    assert state.handle(aspire(1)) == []  # stays failed while it stays aspired


def test_a_failure_shows_while_the_next_attempt_is_awaited():
    state = ManagerState(max_num_load_retries=5, load_retry_interval_s=60.0)
    state.handle(aspire(1))
    announced = state.handle(LoadFailed(M1, BROKEN))[0].state
    assert (announced.state, announced.error.code) == (PublicState.LOADING, BROKEN.code)
    assert announced.error.message == "a shard is short (retry 1 of 5 in 60 s)"


def test_a_retry_that_waits_is_cancelled_at_once(state):
    state.handle(aspire(1))
    state.handle(LoadFailed(M1, BROKEN))
    commands = state.handle(aspire())
    assert deeds(commands) == [CancelRetry(M1), Discard(M1)]
    assert said(commands) == [(1, "END", "CANCELLED")]
    assert state.handle(RetryDue(M1)) == []  # it was already on its way


def test_a_cancelled_attempt_that_fails_keeps_its_error_and_is_not_retried(state):
    state.handle(aspire(1))
    state.handle(aspire())
    assert state.handle(LoadFailed(M1, BROKEN)) == [Discard(M1), say(M1, "END", BROKEN)]


def test_a_failed_version_is_tried_again_when_its_files_change(state):
    state.handle(aspire(1))
    state.handle(LoadFailed(M1, BROKEN, retriable=False))
    assert state.handle(aspire(1)) == []
    assert deeds(state.handle(aspire(1, files="other"))) == [StartLoad(M1, data(1, "other"))]


def test_a_load_that_waits_for_a_retry_starts_over_when_its_files_change(state):
    state.handle(aspire(1))
    state.handle(LoadFailed(M1, BROKEN))
    assert state.handle(aspire(1)) == []
    assert state.handle(aspire(1, files="other")) == [
        CancelRetry(M1),
        Discard(M1),
        say(M1, "LOADING"),
        StartLoad(M1, data(1, "other")),
    ]
    assert state.handle(RetryDue(M1)) == []


def test_a_serving_version_whose_files_change_is_left_alone(serving):
    assert serving.handle(aspire(1, files="other")) == []


def test_an_errored_item_only_ends(state):
    error = InvalidArgument("no such platform")
    commands = state.handle(AspiredVersions("m", (AspiredVersion(1, error=error),)))
    assert commands == [say(M1, "END", error)]
    assert is_settled(state)


def test_one_model_never_waits_for_another(serving):
    other = ServableId("other", 1)
    statement = AspiredVersions("other", (AspiredVersion(1, VersionData("/o/1", "t")),))
    assert deeds(serving.handle(statement)) == [StartLoad(other, VersionData("/o/1", "t"))]
    assert deeds(serving.handle(aspire(2))) == [StartLoad(M2, data(2))]


def test_incomplete_versions_are_reported_when_they_change(serving):
    half = aspire(1, incomplete={2: "no saved_model.pb"})
    assert serving.handle(half) == [ReportIncomplete("m", {2: "no saved_model.pb"})]
    assert serving.handle(half) == []
    assert serving.handle(aspire(1)) == [ReportIncomplete("m", {})]


def test_stop_unloads_everything_and_takes_nothing_more(serving):
    serving.handle(aspire(1, 2, 3))
    serving.handle(LoadFailed(M3, BROKEN))
    commands = serving.handle(Stop())
    assert deeds(commands) == [CancelRetry(M3), Discard(M3), CancelLoad(M2), Quiesce(M1)]
    assert serving.handle(aspire(1)) == []
    serving.handle(LoadSucceeded(M2))
    serving.handle(Unloaded(M2))
    serving.handle(Drained(M1))
    serving.handle(Unloaded(M1))
    assert serving.harnesses() == []


def test_a_removed_model_leaves_nothing_behind(serving):
    serving.handle(aspire())
    serving.handle(Drained(M1))
    serving.handle(Unloaded(M1))
    assert serving.harnesses() == []
    assert serving._streams == {}


def test_an_illegal_step_raises_and_changes_nothing():
    for current in HarnessState:
        for target in set(HarnessState) - TRANSITIONS[current]:
            with pytest.raises(IllegalTransition, match=current.value):
                advance(current, target)


# Deadlines of loads, and publishing that fails ---------------------------------------------------


def test_an_overdue_load_counts_as_failed_and_is_tried_again_with_another_loader():
    state = ManagerState(max_num_load_retries=1, load_retry_interval_s=5.0)
    state.handle(aspire(1))
    commands = state.handle(LoadOverdue(M1, 60.0))
    assert deeds(commands) == [Discard(M1), ScheduleRetry(M1, 5.0)]
    assert said(commands) == [(1, "LOADING", "DEADLINE_EXCEEDED")]
    assert deeds(state.handle(RetryDue(M1))) == [StartLoad(M1, data(1))]
    commands = state.handle(LoadOverdue(M1, 60.0))
    assert deeds(commands) == [Discard(M1)]
    assert said(commands) == [(1, "END", "DEADLINE_EXCEEDED")]
    (harness,) = state.harnesses()
    assert harness.state is HarnessState.ERROR


def test_an_overdue_load_says_for_how_long(state):
    state.handle(aspire(1))
    (told,) = [c for c in state.handle(LoadOverdue(M1, 60.0)) if isinstance(c, Announce)]
    assert "{name: m version: 1} has not ended within 60 s" in told.state.error.message


def test_an_overdue_load_that_nobody_wants_any_more_ends(state):
    state.handle(aspire(1))
    state.handle(aspire())
    commands = state.handle(LoadOverdue(M1, 60.0))
    assert deeds(commands) == [Discard(M1)]
    assert state.harnesses() == []


def test_a_version_that_cannot_be_published_is_unloaded_and_ends_as_failed(state):
    state.handle(aspire(1))
    state.handle(LoadSucceeded(M1))
    assert state.handle(PublishFailed(M1, BROKEN)) == [StartUnload(M1)]
    assert state.handle(Unloaded(M1)) == [say(M1, "END", BROKEN)]
    (harness,) = state.harnesses()
    assert harness.state is HarnessState.ERROR
    assert state.handle(aspire(1)) == []


CRASH = Internal("workers die of it")


def test_a_version_that_processes_die_of_ends_with_the_error(serving):
    assert serving.handle(Crashed(M1, CRASH)) == [say(M1, "UNLOADING"), Quiesce(M1)]
    assert serving.handle(Drained(M1)) == [StartUnload(M1)]
    assert serving.handle(Unloaded(M1)) == [say(M1, "END", CRASH)]
    assert is_settled(serving)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_crashed_version_is_not_loaded_again_while_it_stays_aspired(policy):
    state = ManagerState(POLICIES[policy])
    state.handle(aspire(1))
    state.handle(LoadSucceeded(M1))
    for event in (Crashed(M1, CRASH), Drained(M1), Unloaded(M1)):
        assert StartLoad(M1, data(1)) not in state.handle(event)
    assert deeds(state.handle(aspire(1))) == []
    assert deeds(state.handle(aspire(2, 1))) == [StartLoad(M2, data(2))]


def test_the_version_before_a_crashed_one_is_loaded_when_it_is_aspired(serving):
    serving.handle(Crashed(M1, CRASH))
    assert StartLoad(M2, data(2)) in serving.handle(aspire(2))
    serving.handle(Drained(M1))
    serving.handle(Unloaded(M1))
    assert deeds(serving.handle(LoadSucceeded(M2))) == [Publish(M2)]
    assert is_settled(serving)


def test_a_crashed_version_with_other_files_is_loaded_anew(serving):
    for event in (Crashed(M1, CRASH), Drained(M1), Unloaded(M1)):
        serving.handle(event)
    assert deeds(serving.handle(aspire(1, files="changed"))) == [StartLoad(M1, data(1, "changed"))]


def test_a_crash_of_what_does_not_serve_changes_nothing(state):
    assert state.handle(Crashed(M1, CRASH)) == []
    state.handle(aspire(1))
    assert state.handle(Crashed(M1, CRASH)) == [], "its load fails, and says so"
    state.handle(LoadSucceeded(M1))
    state.handle(Crashed(M1, CRASH))
    assert state.handle(Crashed(M1, CRASH)) == [], "it is on its way out"


def test_a_failure_to_publish_that_comes_when_the_version_leaves_is_waited_out(serving):
    serving.handle(aspire())
    assert serving.handle(PublishFailed(M1, CRASH)) == []
    assert serving.handle(Drained(M1)) == [StartUnload(M1)]
