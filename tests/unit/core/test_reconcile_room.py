"""The manager's decisions with a budget, as plain data: who starts, waits, yields, is refused."""

import pytest

from servingd.core.lifecycle.events import (
    Announce,
    CancelLoad,
    CancelRetry,
    Configured,
    Discard,
    Drained,
    Estimated,
    Explain,
    Grown,
    LetGrow,
    LoadFailed,
    LoadSucceeded,
    Publish,
    Quiesce,
    Relocate,
    Relocated,
    ReplicaFailed,
    RetryDue,
    ScheduleRetry,
    StartEstimate,
    StartLoad,
    StartUnload,
    Stop,
    Unloaded,
)
from servingd.core.lifecycle.policies import availability_preserving
from servingd.core.lifecycle.reconcile import ManagerState
from servingd.core.lifecycle.states import HarnessState
from servingd.core.resources.footprints import UNKNOWN, Estimate, Footprint, Measured
from servingd.core.resources.placement import LoadRules
from servingd.core.resources.tracker import ResourceTracker
from servingd.core.types import (
    CPU_0,
    AspiredVersion,
    AspiredVersions,
    Device,
    Placement,
    Resources,
    ServableId,
    VersionData,
)
from servingd.errors import Code, DataLoss
from tests.unit.core.settled import is_settled

M1, M2, M3 = (ServableId("m", v) for v in (1, 2, 3))
N1, O1 = ServableId("n", 1), ServableId("o", 1)
BROKEN = DataLoss("a shard is short")
GPU_0 = Device("GPU", 0)


def data(servable, files=""):
    return VersionData(f"/{servable.name}/{servable.version}", "t", files)


def aspire(*servables, name="m", files=""):
    return AspiredVersions(
        name, tuple(AspiredVersion(s.version, data(s, files)) for s in servables)
    )


def estimated(servable, size, peak=0, devices=None, **more):
    sizes = {"steady": size, "peak": peak, **more}
    estimate = Estimate(
        **{name: Footprint(0, n) for name, n in sizes.items()}, on_devices=True, measurable=True
    )
    return Estimated(servable, estimate, devices or {CPU_0: 0})


def deeds(commands):
    return [c for c in commands if not isinstance(c, Announce | Explain)]


def told(commands):
    return [c.text for c in commands if isinstance(c, Explain)]


def ends(commands):
    return [
        (c.state.id, c.state.error and c.state.error.code)
        for c in commands
        if isinstance(c, Announce) and c.state.state.name == "END"
    ]


def start(servable, *devices, may_grow=True, files=""):
    return StartLoad(servable, data(servable, files), Placement(devices or (CPU_0,), may_grow))


class House(ManagerState):
    """A state with a budget of 100, with what tests often do."""

    def __init__(self, **rules):
        super().__init__(availability_preserving, 1, ResourceTracker(100))
        self.handle(Configured({name: LoadRules(transition=t) for name, t in rules.items()}))

    def load(self, servable, size, **more):
        self.handle(aspire(servable, name=servable.name))
        self.handle(estimated(servable, size, **more))
        return self.handle(LoadSucceeded(servable))

    def unload(self, servable):
        self.handle(Drained(servable))
        return self.handle(Unloaded(servable))

    def state_of(self, servable):
        return next((h.state for h in self.harnesses() if h.id == servable), None)

    def in_use(self):
        return sum(v.holds.ram + v.growth.ram for v in self.plan().versions)


@pytest.fixture
def house():
    return House()


# Starting ---------------------------------------------------------------------------------------


def test_a_load_is_estimated_then_reserved_then_started(house):
    assert deeds(house.handle(aspire(M1))) == [StartEstimate(M1, data(M1))]
    commands = house.handle(estimated(M1, 40, peak=60))
    assert deeds(commands) == [start(M1)]
    assert told(commands) == [
        "Successfully reserved resources to load servable {name: m version: 1} on CPU:0: "
        "0.0 MiB RAM"
    ]
    assert house.in_use() == 60
    assert deeds(house.handle(LoadSucceeded(M1))) == [Publish(M1)]
    assert house.in_use() == 40


def test_what_was_measured_is_held(house):
    house.handle(aspire(M1))
    house.handle(estimated(M1, 40, peak=60))
    house.handle(LoadSucceeded(M1, Measured(Resources(30), Resources(50))))
    (planned,) = house.plan().versions
    assert (planned.holds.ram, planned.measured) == (30, True)


def test_what_is_not_known_is_loaded(house):
    house.load(M1, 100)
    house.handle(aspire(N1, name="n"))
    assert deeds(house.handle(Estimated(N1, UNKNOWN, {}))) == [start(N1)]


def test_two_that_fit_load_at_the_same_time(house):
    house.handle(aspire(M1))
    house.handle(aspire(N1, name="n"))
    assert deeds(house.handle(estimated(M1, 50))) == [start(M1)]
    assert deeds(house.handle(estimated(N1, 50))) == [start(N1)]


def test_an_estimate_that_fails_is_an_attempt_that_failed(house):
    house.handle(aspire(M1))
    assert deeds(house.handle(LoadFailed(M1, BROKEN))) == [ScheduleRetry(M1, 60.0)]
    assert deeds(house.handle(RetryDue(M1))) == [StartEstimate(M1, data(M1))]
    assert ends(house.handle(LoadFailed(M1, BROKEN))) == [(M1, Code.DATA_LOSS)]


def test_between_two_attempts_nothing_is_held(house):
    house.handle(aspire(M1))
    house.handle(estimated(M1, 60))
    house.handle(LoadFailed(M1, BROKEN))
    assert house.in_use() == 0
    assert deeds(house.handle(RetryDue(M1))) == [start(M1)], "it need not be estimated again"
    house.handle(LoadFailed(M1, BROKEN))
    assert house.in_use() == 0


def test_a_cancelled_estimate_ends_without_a_load(house):
    house.handle(aspire(M1))
    assert house.handle(aspire()) == [CancelLoad(M1)]
    commands = house.handle(estimated(M1, 40))
    assert deeds(commands) == [Discard(M1)]
    assert ends(commands) == [(M1, Code.CANCELLED)]
    assert house.harnesses() == []


# Refused ----------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_and_the_old_version_serves_on():
    house = House(m="availability_preserving")
    house.load(M1, 60)
    house.handle(aspire(M2))
    commands = house.handle(estimated(M2, 60))
    assert deeds(commands) == [Discard(M2)]
    assert ends(commands) == [(M2, Code.RESOURCE_EXHAUSTED)]
    assert house.state_of(M1) is HarnessState.READY
    assert house.handle(aspire(M2)) == []
    assert is_settled(house) is False  # version 1 is not wanted any more, but serves


def test_what_was_refused_is_tried_again_when_another_model_is_unloaded():
    house = House(m="availability_preserving")
    house.load(N1, 30)
    house.load(M1, 50)
    house.handle(aspire(M2))
    assert ends(house.handle(estimated(M2, 50))) == [(M2, Code.RESOURCE_EXHAUSTED)]
    commands = house.handle(aspire(name="n"))  # its memory is on its way
    assert [c.state.state.name for c in commands if isinstance(c, Announce)] == [
        "UNLOADING",
        "START",
        "LOADING",
    ]
    assert told(commands) == ["{name: m version: 2} waits for memory that others give back"]
    assert deeds(house.handle(Drained(N1))) == [StartUnload(N1)]
    assert deeds(house.handle(Unloaded(N1))) == [start(M2)]
    assert deeds(house.handle(LoadSucceeded(M2))) == [Publish(M2), Quiesce(M1)]


def test_what_was_refused_is_tried_again_when_a_load_fails_or_takes_less(house):
    for event in (
        LoadFailed(M1, BROKEN, retriable=False),
        LoadSucceeded(M1, Measured(Resources(10), Resources(10))),
    ):
        house = House()
        house.handle(aspire(M1))
        house.handle(estimated(M1, 60))
        house.handle(aspire(N1, name="n"))
        assert ends(house.handle(estimated(N1, 60))) == [(N1, Code.RESOURCE_EXHAUSTED)]
        assert start(N1) in house.handle(event)


def test_what_was_refused_and_still_does_not_fit_stays_quiet(house):
    house.load(M1, 60)
    house.load(N1, 10)
    house.handle(aspire(O1, name="o"))
    assert ends(house.handle(estimated(O1, 90))) == [(O1, Code.RESOURCE_EXHAUSTED)]
    house.handle(aspire(name="n"))
    assert house.unload(N1)
    assert house.state_of(O1) is HarnessState.ERROR


def test_what_was_refused_is_tried_again_when_its_files_or_its_rules_change(house):
    house.load(M1, 60)
    house.handle(aspire(N1, name="n"))
    house.handle(estimated(N1, 60))
    smaller = house.handle(aspire(N1, name="n", files="other"))
    assert deeds(smaller) == [StartEstimate(N1, data(N1, "other"))]
    assert ends(house.handle(estimated(N1, 60))) == [(N1, Code.RESOURCE_EXHAUSTED)]
    again = house.handle(Configured({"n": LoadRules(devices=("CPU:0",))}))
    assert deeds(again) == [StartEstimate(N1, data(N1, "other"))]


def test_a_device_that_is_not_there_is_refused_until_the_rules_change(house):
    house.handle(Configured({"m": LoadRules(devices=("GPU:0",))}))
    house.handle(aspire(M1))
    assert ends(house.handle(estimated(M1, 1))) == [(M1, Code.INVALID_ARGUMENT)]
    assert deeds(house.handle(Configured({"m": LoadRules()}))) == [StartEstimate(M1, data(M1))]
    assert house.handle(Configured({"m": LoadRules()})) == []


def test_one_that_is_refused_is_forgotten_when_nobody_wants_it(house):
    house.load(M1, 60)
    house.handle(aspire(N1, name="n"))
    house.handle(estimated(N1, 60))
    house.handle(aspire(name="n"))
    house.handle(aspire())
    assert deeds(house.unload(M1)) == []
    assert house.harnesses() == []


# Waiting ----------------------------------------------------------------------------------------


@pytest.fixture
def waiting():
    """Version 2 of m waits until n is gone."""
    house = House()
    house.load(N1, 60)
    house.handle(aspire(name="n"))
    house.handle(aspire(M2))
    assert told(house.handle(estimated(M2, 60))) == [
        "{name: m version: 2} waits for memory that others give back"
    ]
    return house


def test_a_load_waits_for_unloads_under_way(waiting):
    assert deeds(waiting.handle(Drained(N1))) == [StartUnload(N1)]
    assert deeds(waiting.handle(Unloaded(N1))) == [start(M2)]


def test_one_that_waits_can_be_withdrawn_at_once(waiting):
    commands = waiting.handle(aspire())
    assert deeds(commands) == [Discard(M2)]
    assert ends(commands) == [(M2, Code.CANCELLED)]
    assert deeds(waiting.unload(N1)) == []


def test_one_that_waits_begins_again_when_its_files_change(waiting):
    commands = waiting.handle(aspire(M2, files="other"))
    assert deeds(commands) == [Discard(M2), StartEstimate(M2, data(M2, "other"))]


def test_of_those_that_wait_the_first_starts_first(waiting):
    waiting.handle(aspire(O1, name="o"))
    assert deeds(waiting.handle(estimated(O1, 40))) == [start(O1)], "it takes nothing from them"
    waiting.handle(LoadFailed(O1, BROKEN, retriable=False))
    waiting.handle(aspire(M2, M3))
    assert ends(waiting.handle(estimated(M3, 60))) == [(M3, Code.RESOURCE_EXHAUSTED)]
    assert deeds(waiting.unload(N1)) == [start(M2)]


def test_a_load_that_is_cancelled_is_as_good_as_gone(house):
    house.handle(aspire(M1))
    house.handle(estimated(M1, 60))
    house.handle(aspire())
    house.handle(aspire(N1, name="n"))
    assert deeds(house.handle(estimated(N1, 60))) == []
    assert deeds(house.handle(LoadSucceeded(M1))) == [StartUnload(M1)]
    assert deeds(house.handle(Unloaded(M1))) == [start(N1)]


def test_who_waited_is_refused_if_the_room_does_not_come(waiting):
    """What was promised was not kept: a load took more than was known."""
    waiting.handle(aspire(O1, name="o"))
    waiting.handle(estimated(O1, 40))
    commands = waiting.handle(LoadSucceeded(O1, Measured(Resources(50), Resources(50))))
    assert ends(commands) == [(M2, Code.RESOURCE_EXHAUSTED)]
    assert deeds(waiting.unload(N1)) == []


def test_stop_withdraws_what_waits_and_tries_nothing_again(waiting):
    waiting.handle(aspire(O1, name="o"))
    waiting.handle(estimated(O1, 90))
    commands = waiting.handle(Stop())
    assert deeds(commands) == [Discard(M2)]
    assert deeds(waiting.unload(N1)) == []
    assert waiting.harnesses() == []


# Transitions ------------------------------------------------------------------------------------


def test_auto_keeps_the_old_version_while_both_fit():
    house = House(m="auto")
    house.load(M1, 50)
    house.handle(aspire(M2))
    assert deeds(house.handle(estimated(M2, 50))) == [start(M2)]


def test_auto_gives_the_old_version_up_if_both_do_not_fit_and_says_so():
    house = House(m="auto")
    house.load(M1, 60)
    house.handle(aspire(M2))
    commands = house.handle(estimated(M2, 60))
    assert deeds(commands) == [Quiesce(M1)]
    (text,) = told(commands)
    assert text == (
        "{name: m version: 2} and version 1 do not fit beside each other: version 1 is unloaded "
        "first, and the model is unavailable until version 2 is loaded"
    )
    assert [v.note for v in house.plan().versions if v.id == M2] == [text]
    assert deeds(house.unload(M1)) == [start(M2)]


def test_auto_gives_nothing_up_for_what_would_not_fit_even_then():
    house = House(m="auto")
    house.load(N1, 50)
    house.load(M1, 40)
    house.handle(aspire(M2))
    commands = house.handle(estimated(M2, 60))
    assert deeds(commands) == [Discard(M2)]
    assert ends(commands) == [(M2, Code.RESOURCE_EXHAUSTED)]
    assert house.state_of(M1) is HarnessState.READY


def test_auto_gives_nothing_up_that_is_wanted():
    house = House(m="auto")
    house.load(M1, 60)
    house.handle(aspire(M1, M2))
    assert ends(house.handle(estimated(M2, 60))) == [(M2, Code.RESOURCE_EXHAUSTED)]


def test_auto_gives_the_old_version_up_once_it_is_wanted_no_more():
    """Version 2 was refused in its favour, and no memory was given back since."""
    house = House(m="auto")
    house.load(M1, 60)
    house.handle(aspire(M1, M2))
    assert ends(house.handle(estimated(M2, 60))) == [(M2, Code.RESOURCE_EXHAUSTED)]
    assert deeds(house.handle(aspire(M2))) == [Quiesce(M1)]
    assert deeds(house.unload(M1)) == [start(M2)]


def test_without_rules_nothing_is_given_up(house):
    house.load(M1, 60)
    house.handle(aspire(M2))
    assert ends(house.handle(estimated(M2, 60))) == [(M2, Code.RESOURCE_EXHAUSTED)]
    assert house.state_of(M1) is HarnessState.READY


def test_auto_would_rather_wait_for_others_than_give_the_old_version_up():
    house = House(m="auto")
    house.load(N1, 50)
    house.load(M1, 40)
    house.handle(aspire(name="n"))
    house.handle(aspire(M2))
    assert deeds(house.handle(estimated(M2, 60))) == []
    assert deeds(house.unload(N1)) == [start(M2)]


def test_resource_preserving_unloads_first_in_any_case():
    house = House(m="resource_preserving")
    house.load(M1, 10)
    assert deeds(house.handle(aspire(M2))) == [Quiesce(M1)]
    assert deeds(house.unload(M1)) == [StartEstimate(M2, data(M2))]


# Devices and growth -----------------------------------------------------------------------------


def test_where_it_goes_is_planned_and_shown(house):
    house.handle(Configured({"m": LoadRules(replicas=2)}))
    house.handle(aspire(M1))
    devices = {CPU_0: 0, GPU_0: 100, Device("GPU", 1): 100}
    commands = house.handle(estimated(M1, 40, devices=devices))
    assert deeds(commands) == [start(M1, GPU_0, Device("GPU", 1))]
    (planned,) = house.plan().versions
    assert planned.placement.devices == (GPU_0, Device("GPU", 1))
    assert planned.holds == Resources(0, {GPU_0: 40, Device("GPU", 1): 40})


def test_a_version_grows_when_there_is_room(house):
    house.load(N1, 60)
    house.handle(aspire(M1))
    growth = {"growth": 50, "grown": 30}
    assert deeds(house.handle(estimated(M1, 20, **growth))) == [start(M1, may_grow=False)]
    commands = house.handle(LoadSucceeded(M1))
    assert told(commands) == [
        "{name: m version: 1} is served as it was exported: there is no memory for its optimised "
        "form"
    ]
    house.handle(aspire(name="n"))
    assert deeds(house.unload(N1)) == [LetGrow(M1)]
    assert house.in_use() == 70
    assert house.handle(Grown(M1, True)) == []
    assert house.in_use() == 30


def test_news_of_a_growth_may_come_too_late(house):
    assert house.handle(Grown(M1, True)) == []


def test_growth_never_stands_in_the_way_of_loads():
    house = House(m="availability_preserving")
    house.load(M1, 20, growth=60, grown=30)
    house.handle(aspire(M2))
    assert deeds(house.handle(estimated(M2, 70))) == []  # it waits
    assert deeds(house.handle(Grown(M1, False))) == [start(M2)]


def test_a_removed_model_leaves_nothing_behind(house):
    house.load(M1, 60)
    house.handle(aspire())
    house.unload(M1)
    assert house.plan().versions == ()
    assert house._streams == {}
    assert house._tracker.reservations == {}


def test_a_retry_that_waits_is_withdrawn(house):
    house.handle(aspire(M1))
    house.handle(estimated(M1, 60))
    house.handle(LoadFailed(M1, BROKEN))
    assert deeds(house.handle(aspire())) == [CancelRetry(M1), Discard(M1)]


# Devices that fail ------------------------------------------------------------------------------


def test_a_replica_that_failed_is_loaded_elsewhere(house):
    devices = {CPU_0: 0, Device("CPU", 1): 0}
    house.load(M1, 40, devices=devices)
    assert house.handle(ReplicaFailed(M1, CPU_0)) == [Relocate(M1, CPU_0, Device("CPU", 1))]
    assert house.in_use() == 80
    house.handle(Relocated(M1, (Device("CPU", 1),)))
    (planned,) = house.plan().versions
    assert (planned.placement.devices, planned.holds.ram) == ((Device("CPU", 1),), 40)


def test_one_that_fits_nowhere_else_is_told_so(house):
    house.load(M1, 40)
    assert house.handle(ReplicaFailed(M1, CPU_0)) == [Relocate(M1, CPU_0, None)]
    house.handle(Relocated(M1, (CPU_0,)))
    assert house.in_use() == 40


def test_a_replica_of_a_version_on_its_way_out_is_left_alone(house):
    house.load(M1, 40)
    house.handle(aspire())
    assert house.handle(ReplicaFailed(M1, CPU_0)) == []
    house.unload(M1)
    assert house.handle(ReplicaFailed(M1, CPU_0)) == []
    assert house.handle(Relocated(M1, (CPU_0,))) == []
