"""Which devices a load gets, and which replica a call: properties first, then examples."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.resources.placement import (
    PER_DEVICE,
    Cost,
    LoadRules,
    Room,
    blames_device,
    candidates,
    choose_replica,
    is_broken,
    parse_devices,
    parse_replicas,
    plan,
)
from servingd.core.types import NO_BYTES, Device, Resources
from servingd.errors import (
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

CPUS = tuple(Device("CPU", i) for i in range(4))
GPUS = tuple(Device("GPU", i) for i in range(4))

devices = st.lists(st.sampled_from(CPUS + GPUS), min_size=1, unique=True)
costs = st.builds(
    Cost, shared=st.integers(0, 5), on_host=st.integers(0, 9), on_accelerator=st.integers(0, 9)
)


@st.composite
def rooms(draw):
    limits = Resources(draw(st.integers(0, 60)), {d: draw(st.integers(0, 20)) for d in CPUS + GPUS})
    used = tuple(
        Resources(draw(st.integers(0, 30)), {d: draw(st.integers(0, 12)) for d in CPUS + GPUS})
        for _ in range(draw(st.integers(1, 2)))
    )
    return Room(limits, used, {d: draw(st.integers(0, 3)) for d in CPUS})


def empty(limits=NO_BYTES):
    return Room(limits, (NO_BYTES,), {})


# Plans ------------------------------------------------------------------------------------------


@given(costs, devices, st.integers(1, 6), rooms(), st.lists(st.sampled_from(CPUS + GPUS)))
def test_a_plan_never_goes_over_a_budget(cost, choice, replicas, room, keep):
    chosen = plan(cost, choice, replicas, room, keep)
    if chosen is None:
        return
    more = cost.total(chosen)
    for used in room.used:
        after = used + more
        assert not more.ram or not room.limits.ram or after.ram <= room.limits.ram
        for device in set(chosen):
            limit = room.limits.on(device)
            assert not more.on(device) or not limit or after.on(device) <= limit


@given(costs, devices, st.integers(1, 6), rooms())
def test_every_replica_has_a_device_that_was_allowed(cost, choice, replicas, room):
    chosen = plan(cost, choice, replicas, room)
    assert chosen is None or (len(chosen) == replicas and set(chosen) <= set(choice))


@given(costs, devices, rooms())
def test_one_per_device_is_on_each_device_once(cost, choice, room):
    chosen = plan(cost, choice, PER_DEVICE, room)
    assert chosen is None or sorted(chosen) == sorted(choice)


@given(costs, devices, st.integers(1, 6), rooms(), st.randoms(use_true_random=False))
def test_a_plan_moves_nothing_that_need_not_move(cost, choice, replicas, room, random):
    """Made again, in the same room or a larger one, whatever the order of devices: the same."""
    first = plan(cost, choice, replicas, room)
    if first is None:
        return
    shuffled = random.sample(choice, len(choice))
    assert Counter(plan(cost, shuffled, replicas, room, keep=first)) == Counter(first)
    emptier = Room(room.limits, tuple(NO_BYTES for _ in room.used), {})
    assert Counter(plan(cost, choice, replicas, emptier, keep=first)) == Counter(first)


@given(costs, devices, st.integers(1, 6), st.integers(0, 5))
def test_what_still_fits_stays_when_a_device_is_lost(cost, choice, replicas, lost):
    first = plan(cost, choice, replicas, empty())
    left = [device for device in choice if device != choice[lost % len(choice)]]
    if first is None or not left:
        return
    again = Counter(plan(cost, left, replicas, empty(), keep=first))
    for device, count in Counter(first).items():
        assert device not in left or again[device] >= count


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(2, 4))
def test_no_device_starves(sizes, count):
    """Where memory is no limit, as many devices are in use as there are loads for."""
    choice, used, replicas = GPUS[:count], NO_BYTES, Counter()
    for size in sizes:
        cost = Cost(on_accelerator=size)
        (device,) = plan(cost, choice, 1, Room(NO_BYTES, (used,), dict(replicas)))
        used = used + cost.on(device)
        replicas[device] += 1
    assert len(replicas) == min(count, len(sizes))
    shares = [used.on(device) for device in choice]
    assert max(shares) - min(shares) <= max(sizes)


def test_of_devices_with_equal_shares_the_one_with_fewest_replicas_is_taken():
    room = Room(NO_BYTES, (NO_BYTES,), {CPUS[0]: 2, CPUS[1]: 1, CPUS[2]: 1})
    assert plan(Cost(), CPUS[:3], 1, room) == (CPUS[1],)


def test_the_device_with_the_smallest_share_in_use_is_taken():
    limits = Resources(0, {GPUS[0]: 100, GPUS[1]: 10})
    room = Room(limits, (Resources(0, {GPUS[0]: 20, GPUS[1]: 1}),), {})
    assert plan(Cost(on_accelerator=1), GPUS[:2], 1, room) == (GPUS[1],)
    assert plan(Cost(on_accelerator=5), GPUS[:2], 1, room) == (GPUS[0],)
    assert plan(Cost(on_accelerator=81), GPUS[:2], 1, room) is None


def test_replicas_share_a_device_only_where_they_must():
    cost = Cost(on_accelerator=4)
    limits = Resources(0, {GPUS[0]: 10, GPUS[1]: 3})
    assert Counter(plan(cost, GPUS[:3], 3, empty())) == Counter(GPUS[:3])
    assert plan(cost, GPUS[:2], 2, empty(limits)) == (GPUS[0], GPUS[0])
    assert plan(cost, GPUS[:2], PER_DEVICE, empty(limits)) is None


def test_what_lies_on_cpus_is_the_hosts_memory():
    cost = Cost(shared=1, on_host=4, on_accelerator=4)
    assert plan(cost, CPUS[:2], 2, empty(Resources(9))) is not None
    assert plan(cost, CPUS[:2], 2, empty(Resources(8))) is None
    assert plan(cost, GPUS[:2], 2, empty(Resources(1))) is not None
    assert plan(cost, GPUS[:2], 2, Room(Resources(1), (Resources(1),), {})) is None


def test_who_is_over_a_budget_keeps_nobody_from_what_it_does_not_need():
    limits = Resources(10, {GPUS[0]: 10})
    room = Room(limits, (Resources(99, {GPUS[0]: 5}),), {})
    assert plan(Cost(on_accelerator=5), GPUS[:1], 1, room) == (GPUS[0],)
    assert plan(Cost(shared=1, on_accelerator=5), GPUS[:1], 1, room) is None


# Which devices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "there", "chosen"),
    [
        ((), {CPUS[0]: 0}, CPUS[:1]),
        ((), {CPUS[0]: 0, CPUS[1]: 0}, CPUS[:2]),
        ((), {CPUS[0]: 0, GPUS[0]: 9, GPUS[1]: 3}, GPUS[:1]),  # the other one is too small
        ((), {CPUS[0]: 0, GPUS[0]: 0}, GPUS[:1]),
        ((), {CPUS[0]: 0, GPUS[0]: 3}, CPUS[:1]),
        ((), {GPUS[0]: 3}, GPUS[:1]),
        (("CPU",), {CPUS[0]: 0, GPUS[0]: 9}, CPUS[:1]),
        (("GPU",), {CPUS[0]: 0, GPUS[0]: 9, GPUS[1]: 3}, GPUS[:2]),
        (("GPU:1",), {CPUS[0]: 0, GPUS[0]: 9, GPUS[1]: 3}, GPUS[1:2]),
        (("GPU:1", "CPU:0"), {CPUS[0]: 0, GPUS[1]: 3}, (GPUS[1], CPUS[0])),
        (("GPU", "GPU:1"), {GPUS[0]: 9, GPUS[1]: 9}, GPUS[:2]),
    ],
)
def test_which_devices_may_be_chosen(rules, there, chosen):
    cost = Cost(on_host=4, on_accelerator=4)
    assert candidates(LoadRules(rules), there, cost) == chosen


@pytest.mark.parametrize("name", ["GPU:7", "GPU"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(InvalidArgument) as caught:
        candidates(LoadRules((name,)), {CPUS[1]: 0, CPUS[0]: 0}, Cost())
    assert str(caught.value) == (
        f"device: {name} was asked for, and there is only CPU:0, CPU:1; `servingd devices` shows "
        "what TensorFlow sees"
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("auto", ()),
        ("GPU:1", ("GPU:1",)),
        ("gpu", ("GPU",)),
        ("GPU:0, GPU:1,GPU:0", ("GPU:0", "GPU:1")),
    ],
)
def test_devices_are_read(text, names):
    assert parse_devices(text) == names


@pytest.mark.parametrize("text", ["", "Auto", "GPU:", "GPU:-1", "TPU:0", "GPU:0,", "/device:GPU:0"])
def test_devices_that_make_no_sense(text):
    with pytest.raises(InvalidArgument, match="device: expected auto, CPU, GPU, or names such as"):
        parse_devices(text)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("256", 256), ("per_device", PER_DEVICE)])
def test_replicas_are_read(text, number):
    assert parse_replicas(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "257", "1.5", "two"])
def test_replicas_that_make_no_sense(text):
    with pytest.raises(InvalidArgument, match="replicas: expected a whole number from 1 to 256"):
        parse_replicas(text)


# Calls ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(0, 10**9))
def test_a_call_goes_where_the_least_work_is(outstanding, turn):
    assert outstanding[choose_replica(outstanding, turn)] == min(outstanding)


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(0, 10**9))
def test_every_replica_is_reachable(outstanding, start):
    """Each of those with the least work gets one of as many calls in a row."""
    least = [i for i, n in enumerate(outstanding) if n == min(outstanding)]
    turns = range(start, start + len(outstanding))
    assert {choose_replica(outstanding, turn) for turn in turns} == set(least)


@given(st.integers(1, 8), st.integers(0, 50))
def test_calls_that_do_not_end_are_spread_evenly(count, calls):
    outstanding = [0] * count
    for turn in range(calls):
        outstanding[choose_replica(outstanding, turn)] += 1
    assert max(outstanding) - min(outstanding) <= 1


# Devices that fail ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (ResourceExhausted("OOM when allocating tensor with shape[1024]"), True),
        (Internal("GPU sync failed"), True),
        (Internal("Failed to launch kernel: CUDA_ERROR_LAUNCH_FAILED"), True),
        (Unavailable("the device is lost"), True),
        (Internal("Blas GEMM launch failed : a.shape=(1,2)"), False),
        (Unavailable("the servable is closed"), False),
        (InvalidArgument("device lost"), False),
        (NotFound("cuda_error"), False),
    ],
)
def test_whose_fault_a_failure_is(error, blamed):
    assert blames_device(error) is blamed


def test_a_replica_is_broken_once_by_failures_in_a_row():
    assert [is_broken(n) for n in range(6)] == [False, False, False, True, False, False]
