"""Does it fit: reserved, promised, given back, measured, learnt, and refused in so many words."""

import pytest

from servingd.core.resources.footprints import Estimate, Footprint, Measured
from servingd.core.resources.placement import PER_DEVICE, LoadRules
from servingd.core.resources.reservations import ResourceRequest, Verdict
from servingd.core.resources.tracker import ResourceTracker
from servingd.core.types import CPU_0, Device, Resources, ServableId
from servingd.errors import Code

MB = 1 << 20
GPU_0, GPU_1 = Device("GPU", 0), Device("GPU", 1)
RULES = LoadRules()
M1, M2, M3 = (ServableId("m", v) for v in (1, 2, 3))
N1 = ServableId("n", 1)


def request(steady, peak=0, devices=None, **more):
    """Of one replica, in megabytes."""
    sizes = {"steady": steady, "peak": peak, **more}
    return ResourceRequest(
        Estimate(
            **{name: Footprint(0, size * MB) for name, size in sizes.items()},
            on_devices=True,
            measurable=True,
        ),
        devices or {CPU_0: 0},
    )


def seen(steady, peak=None):
    return Measured(Resources(steady * MB), Resources((steady if peak is None else peak) * MB))


class Books(ResourceTracker):
    """A tracker whose loads are one line each."""

    def ask(self, servable, wanted, rules=RULES, gone=()):
        admission = self.judge(servable, wanted, rules, gone)
        if admission.verdict is not Verdict.REFUSE:
            self.enter(servable, wanted, admission)
        return admission

    def load(self, servable, wanted, measured=None):
        assert self.ask(servable, wanted).verdict is Verdict.START
        self.settle(servable, measured)

    def held(self, servable):
        held = self.reservations[servable]
        return (held.holds.ram + held.extra.ram) // MB


@pytest.fixture
def books():
    return Books(100 * MB)


def test_a_load_holds_its_peak_and_then_what_it_takes(books):
    assert books.ask(M1, request(40, 60)).verdict is Verdict.START
    assert books.held(M1) == 60
    books.settle(M1, None)
    assert books.held(M1) == 40
    books.release(M1)
    assert not books.reservations


def test_without_a_budget_everything_fits():
    assert ResourceTracker().judge(M1, request(10**9), RULES).verdict is Verdict.START


def test_what_is_not_known_always_fits(books):
    books.load(M1, request(100))
    assert books.ask(M2, request(0)).verdict is Verdict.START


def test_a_load_waits_for_what_is_leaving_and_its_room_is_promised(books):
    books.load(M1, request(60))
    books.leave(M1)
    assert books.ask(M2, request(60)).verdict is Verdict.WAIT
    assert books.ask(N1, request(40)).verdict is Verdict.START, "that leaves enough"
    assert books.ask(M3, request(1)).verdict is Verdict.REFUSE, "that is promised"
    books.release(M1)
    assert books.ask(M2, request(60)).verdict is Verdict.START


def test_room_that_is_promised_is_not_given_away_although_it_is_there(books):
    books.load(M1, request(50))
    books.load(N1, request(20))
    books.leave(M1)
    assert books.ask(M2, request(70)).verdict is Verdict.WAIT
    assert books.ask(M3, request(30)).verdict is Verdict.REFUSE


def test_what_would_be_given_up_counts_as_leaving(books):
    books.load(M1, request(60))
    assert books.ask(M2, request(60)).verdict is Verdict.REFUSE
    assert books.ask(M2, request(60), gone=[M1]).verdict is Verdict.WAIT


def test_all_that_gives_room_says_so(books):
    def news():
        told, books.more_room = books.more_room, False
        return told

    books.ask(M1, request(60))
    assert not news()
    books.settle(M1, None)
    assert news()
    books.leave(M1)
    assert news()
    books.leave(M1)
    assert not news(), "once"
    books.release(M1)
    assert news()
    books.release(M1)
    assert not news()


# Devices ----------------------------------------------------------------------------------------


def test_replicas_are_held_where_they_lie(books):
    gpus = {CPU_0: 0, GPU_0: 50 * MB, GPU_1: 50 * MB}
    judged = books.ask(M1, request(30, devices=gpus), LoadRules(replicas=2))
    assert judged.placement.devices == (GPU_0, GPU_1)
    assert books.reservations[M1].holds == Resources(0, {GPU_0: 30 * MB, GPU_1: 30 * MB})
    assert books.ask(N1, request(30, devices=gpus)).verdict is Verdict.REFUSE
    assert books.ask(N1, request(20, devices=gpus)).placement.devices == (GPU_0,)


def test_one_that_waits_keeps_its_device_unless_another_is_free(books):
    gpus = {GPU_0: 50 * MB, GPU_1: 50 * MB}
    for servable in (M1, N1):
        books.load(servable, request(50, devices=gpus))
    books.leave(N1)
    assert books.ask(M2, request(40, devices=gpus)).placement.devices == (GPU_1,)
    books.release(N1)
    judged = books.ask(M2, request(40, devices=gpus))
    assert (judged.verdict, judged.placement.devices) == (Verdict.START, (GPU_1,))


def test_what_does_not_run_on_devices_is_on_the_first_cpu(books):
    table = ResourceRequest(Estimate(steady=Footprint(10 * MB)), {})
    assert books.ask(M1, table).placement.devices == (CPU_0,)
    refused = books.ask(N1, table, LoadRules(("GPU:0",)))
    assert refused.error.code is Code.INVALID_ARGUMENT
    assert refused.error.message == (
        "device: GPU:0 was asked for, and there is only CPU:0; `servingd devices` shows what "
        "TensorFlow sees"
    )


# Measured, and learnt ---------------------------------------------------------------------------


def test_a_measurement_takes_the_estimates_place(books):
    books.load(M1, request(40, 60), seen(25))
    assert books.held(M1) == 25
    assert books.reservations[M1].measured
    books.load(N1, request(10), seen(75))
    assert books.held(N1) == 75, "more is more"


def test_no_measurement_goes_below_what_must_be_there(books):
    books.load(M1, request(40, least=30), seen(3))
    assert books.held(M1) == 30


def test_a_measurement_of_nothing_says_nothing(books):
    books.load(M1, request(40, 60), seen(0))
    assert books.held(M1) == 40
    assert books.ask(M2, request(40, 60)).loading.ram == 60 * MB


def test_one_that_cannot_be_measured_is_not(books):
    wanted = ResourceRequest(Estimate(steady=Footprint(40 * MB)), {})
    books.load(M1, wanted, seen(10))
    assert books.held(M1) == 40


def test_the_next_versions_estimate_is_corrected_by_the_last_ones_error(books):
    books.load(M1, request(40, 60), seen(20, 45))
    judged = books.ask(M2, request(80, 80))
    assert judged.steady.ram == 40 * MB
    assert judged.loading.ram == 60 * MB
    assert books.ask(N1, request(10)).steady.ram == 10 * MB, "another model's is not"
    books.forget("m")
    assert books.judge(M3, request(10), RULES).steady.ram == 10 * MB


def test_a_lesson_never_goes_below_what_must_be_there(books):
    books.load(M1, request(40), seen(1))
    assert books.ask(M2, request(40, least=20)).steady.ram == 20 * MB


def test_accelerators_teach_for_accelerators_alone(books):
    both = {CPU_0: 0, GPU_0: 90 * MB}
    wanted = ResourceRequest(
        Estimate(steady=Footprint(10 * MB, 40 * MB), on_devices=True, measurable=True),
        both,
    )
    found = Resources(20 * MB, {GPU_0: 10 * MB})
    books.load(M1, wanted, Measured(found, found))
    assert books.reservations[M1].holds == found
    again = books.judge(M2, wanted, RULES).steady
    assert again == Resources(20 * MB, {GPU_0: 10 * MB})


# Growth -------------------------------------------------------------------------------------------

GROWING = {"growth": 50, "grown": 30}


def test_room_to_grow_is_reserved_with_the_load_where_there_is_some(books):
    judged = books.ask(M1, request(20, **GROWING))
    assert judged.placement.may_grow
    assert books.held(M1) == 70
    books.settle(M1, None)
    assert books.held(M1) == 70
    assert books.grow() == []
    books.grown(M1, True)
    assert books.held(M1) == 30


def test_what_declines_to_grow_gives_its_room_back(books):
    books.ask(M1, request(20, **GROWING))
    books.grown(M1, False)  # before its load has ended
    books.settle(M1, seen(15))
    assert books.held(M1) == 15


def test_what_has_grown_before_its_load_ends_is_not_measured_by_that(books):
    books.ask(M1, request(20, **GROWING))
    books.grown(M1, True)
    books.settle(M1, seen(15))
    assert books.held(M1) == 30


def test_a_load_does_without_room_to_grow_and_gets_it_later(books):
    books.load(N1, request(60))
    assert not books.ask(M1, request(20, **GROWING)).placement.may_grow
    assert books.grow() == [], "it is being loaded"
    books.settle(M1, None)
    assert books.grow() == []
    assert books.waiting_to_grow() == [M1]
    books.release(N1)
    assert books.grow() == [M1]
    assert books.grow() == []
    assert books.waiting_to_grow() == []
    assert books.held(M1) == 70


STARTS_GROWN = {"growth": 50, "grown": 18}


def test_what_takes_no_more_once_it_has_grown_may_start_so_without_room_to_grow(books):
    books.load(N1, request(60))
    judged = books.ask(M1, request(20, **STARTS_GROWN))
    assert (judged.placement.may_grow, judged.placement.may_start_grown) == (False, True)
    assert books.held(M1) == 20, "nothing more is reserved for it"
    books.grown(M1, True)  # it found what it became before
    books.settle(M1, seen(3))
    assert books.held(M1) == 18
    assert books.waiting_to_grow() == []


def test_what_could_not_start_grown_waits_to_grow(books):
    books.load(N1, request(60))
    books.load(M1, request(20, **STARTS_GROWN))
    assert books.waiting_to_grow() == [M1]
    books.grown(M1, False)
    assert books.waiting_to_grow() == [M1]


def test_what_would_take_more_does_not_start_grown(books):
    books.load(N1, request(60))
    assert not books.ask(M1, request(20, **GROWING)).placement.may_start_grown


def test_others_wait_for_the_end_of_a_growth(books):
    books.load(M1, request(20, **GROWING))
    assert books.ask(N1, request(60)).verdict is Verdict.WAIT
    assert books.ask(M2, request(20)).verdict is Verdict.REFUSE, "30 and 60 leave 10"
    books.grown(M1, True)
    assert books.ask(N1, request(60)).verdict is Verdict.START


def test_one_that_leaves_does_not_grow(books):
    books.load(N1, request(60))
    books.load(M1, request(20, **GROWING))
    books.leave(M1)
    books.release(N1)
    assert books.grow() == []
    books.grown(M1, True)
    assert books.held(M1) == 20


# Words ------------------------------------------------------------------------------------------


def test_a_refusal_has_the_numbers(books):
    books.load(M1, request(50))
    books.load(N1, request(30))
    books.leave(N1)
    error = books.judge(M2, request(60, 80), RULES).error
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert error.message == (
        "Insufficient resources to load servable {name: m version: 2}: it needs 80.0 MiB of "
        "RAM for 1 replica; of 100.0 MiB 80.0 MiB are in use (m:1 50.0 MiB, n:1 30.0 MiB leaving)"
    )


def test_a_refusal_names_each_device():
    books = Books(100 * MB)
    gpus = {GPU_0: 50 * MB, GPU_1: 40 * MB}
    books.load(M1, request(30, devices=gpus))
    error = books.judge(N1, request(45, devices=gpus), LoadRules(("GPU",), 2)).error
    assert error.message == (
        "Insufficient resources to load servable {name: n version: 1}: "
        "each replica needs 45.0 MiB on GPU:0; of 50.0 MiB 30.0 MiB are in use (m:1 30.0 MiB); "
        "each replica needs 45.0 MiB on GPU:1; of 40.0 MiB 0.0 MiB are in use"
    )


def test_a_refusal_names_the_largest_users_and_counts_the_rest(books):
    for n in range(1, 9):
        books.load(ServableId("m", n), request(n))
    message = books.judge(N1, request(99), RULES).error.message
    assert message.endswith(
        "36.0 MiB are in use (m:8 8.0 MiB, m:7 7.0 MiB, m:6 6.0 MiB, m:5 5.0 MiB, m:4 4.0 MiB, "
        "3 others)"
    )


def test_a_device_that_is_not_there_is_refused_by_name(books):
    error = books.judge(M1, request(1), LoadRules(("GPU:1",))).error
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message == (
        "device: GPU:1 was asked for, and there is only CPU:0; `servingd devices` shows what "
        "TensorFlow sees"
    )


# Devices that fail ------------------------------------------------------------------------------

CPUS = tuple(Device("CPU", i) for i in range(3))
THREE = dict.fromkeys(CPUS, 30 * MB)


@pytest.fixture
def spread(books):
    """Two replicas of 20 on CPU:0 and CPU:1, and another model's 5 on CPU:2."""
    books.load(N1, request(5, devices={CPUS[2]: 30 * MB}))
    rules = LoadRules(replicas=2)
    assert books.ask(M1, request(20, devices=THREE), LoadRules(("CPU:0", "CPU:1"), 2)).placement
    books.settle(M1, None)
    assert books.reservations[M1].placement.devices == CPUS[:2]
    return books, rules


def test_what_failed_is_planned_anew_and_counted_on_both_until_it_is_there(spread):
    books, rules = spread
    assert books.relocate(M1, CPUS[1], rules) == CPUS[2]
    assert books.reservations[M1].holds.ram == 60 * MB
    books.more_room = False
    books.relocated(M1, (CPUS[0], CPUS[2]))
    held = books.reservations[M1]
    assert held.holds.devices == {CPUS[0]: 20 * MB, CPUS[2]: 20 * MB}
    assert books.more_room, "others may have what it held there"


def test_what_fits_nowhere_else_stays_where_it_was(spread):
    books, rules = spread
    books.load(M2, request(10, devices={CPUS[2]: 30 * MB}))
    assert books.relocate(M1, CPUS[1], rules) is None
    books.relocated(M1, (CPUS[0],))
    assert books.reservations[M1].holds.devices == {CPUS[0]: 20 * MB}


def test_a_device_that_failed_is_not_chosen_again(spread):
    books, rules = spread
    assert books.relocate(M1, CPUS[2], rules) is None, "the others are full"
    assert books.relocate(M1, CPUS[1], rules) is None
    assert books.reservations[M1].failed == {CPUS[1], CPUS[2]}


def test_one_per_device_shares_none(books):
    rules = LoadRules(replicas=PER_DEVICE)
    wanted = request(5, devices=dict.fromkeys(CPUS[:2], 30 * MB))
    books.ask(M1, wanted, rules)
    books.settle(M1, None)
    assert books.relocate(M1, CPUS[1], rules) is None


def test_an_outcome_without_devices_changes_nothing(spread):
    books, _ = spread
    books.relocated(M1, ())
    assert books.reservations[M1].placement.devices == CPUS[:2]
    books.relocated(M3, CPUS[:1])  # it is gone
    assert M3 not in books.reservations
    assert books.relocate(M3, CPUS[0], RULES) is None
