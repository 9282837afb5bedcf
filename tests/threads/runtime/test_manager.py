"""The manager with its real threads, serving map, monitor and dispatcher, over fake loaders."""

import gc
import threading
import time
import weakref

import pytest

from servingd.core.lifecycle.events import Grown, LoadOverdue, ReplicaFailed
from servingd.core.lifecycle.policies import availability_preserving, resource_preserving
from servingd.core.lifecycle.reconcile import ManagerState
from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.resources.placement import LoadRules
from servingd.core.resources.tracker import ResourceTracker
from servingd.core.types import (
    ANYWHERE,
    CPU_0,
    AspiredVersion,
    AspiredVersions,
    Device,
    ModelSpec,
    Resources,
    ServableId,
)
from servingd.errors import (
    Code,
    DataLoss,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
)
from servingd.runtime.batching.dispatcher import Dispatcher
from servingd.runtime.batching.options import DispatchOptions
from servingd.runtime.manager.manager import Manager
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.runtime.versions.memory_meter import MemoryMeter
from servingd.runtime.versions.options import LoadOptions
from servingd.runtime.versions.serving_map import ServingMap
from servingd.runtime.versions.versions import Versions
from tests.threads.fakes import (
    TIMEOUT,
    FakeLoader,
    FakeLoaders,
    FakeServable,
    Heard,
    RecordingCompletion,
    aspire,
    inputs,
)

M1, M2 = ServableId("m", 1), ServableId("m", 2)
FOR_EVER = 3600.0


def broken():
    return DataLoss("a shard is short")


def said(error):
    return error.code, error.message


class ReloadableLoader(FakeLoader):
    """Makes another servable each time."""

    def load(self, placement=ANYWHERE):
        self.servable = FakeServable()
        return super().load(placement)


class House:
    """A manager and all that it needs."""

    def __init__(self, retries, policy, budget, pause_s, options):
        self.loaders = FakeLoaders()
        self.heard = Heard()
        self.monitor = StateMonitor()
        self.attempts = []  # (id, succeeded), in order
        dispatcher = Dispatcher(DispatchOptions(inline_below_s=0.0))
        self.models = ServingMap(self.monitor, dispatcher)
        self.versions = Versions(
            self.loaders,
            self.models,
            dispatcher,
            LoadOptions(**options),
            lambda servable, seconds, succeeded: self.attempts.append((servable, succeeded)),
        )
        self.manager = Manager(
            ManagerState(
                policy, retries, None if budget is None else ResourceTracker(budget), pause_s
            ),
            self.versions,
            self.monitor,
        )
        self.running = False

    def start(self):
        self.monitor.subscribe(self.heard)
        self.manager.start()
        self.running = True
        return self

    def stop(self):
        self.running = False
        return self.manager.stop(TIMEOUT)

    def aspire(self, *args, **kwargs):
        self.manager.aspire(aspire(*args, **kwargs))

    def serve(self, name, *versions):
        """Aspire versions and wait until they are available."""
        self.aspire(name, *versions)
        for version in versions:
            self.heard.wait(name, version, "AVAILABLE")

    def acquire(self, name="m", version=None):
        return self.models.acquire(ModelSpec(name, version=version))

    def call(self, name="m", version=None):
        """One whole call; the version that answered."""
        handle = self.acquire(name, version)
        try:
            done = RecordingCompletion()
            handle.runners["serving_default"].run(inputs(), done)
            assert done.outcome.keys() == {"y"}
            return handle.id.version
        finally:
            handle.release()

    def settle(self, name="zzz"):
        """Return when everything that is in the inbox by now has been handled."""
        self.serve(name, 1)


@pytest.fixture
def build():
    """Make a house that is not started: `build(retries=..., policy=..., budget=..., **options)`."""
    houses = []

    def make(
        retries=0,
        policy=availability_preserving,
        budget=None,
        load_retry_interval_s=FOR_EVER,
        **options,
    ):
        houses.append(House(retries, policy, budget, load_retry_interval_s, options))
        return houses[-1]

    yield make
    for house in houses:
        house.loaders.let_go()
        if house.running:
            assert house.stop(), "the manager did not stop"


@pytest.fixture
def house(build):
    return build().start()


# Loading ----------------------------------------------------------------------------------------


def test_a_version_loads_and_answers(house):
    house.serve("m", 1)
    assert house.call() == 1
    assert house.call(version=1) == 1
    assert house.heard.names_of("m", 1) == ["START", "LOADING", "AVAILABLE"]
    assert house.attempts == [(M1, True)]
    assert [s.state.name for s in house.monitor.of_model("m")] == ["AVAILABLE"]


def test_loaders_are_made_and_used_on_the_load_pool_only(house):
    house.serve("m", 1)
    assert house.loaders[M1].made_on.name.startswith("load-")


def test_available_is_announced_only_when_lookup_works_and_unloading_before_it_fails(build):
    house, found = build(), []

    def look(state):
        try:
            handle = house.acquire(version=state.id.version)
        except (NotFound, Unavailable):
            found.append((state.state.name, False))
        else:
            found.append((state.state.name, True))
            handle.release()

    house.monitor.subscribe(look)
    house.start().serve("m", 1)
    house.aspire("m")
    house.heard.wait("m", 1, "END")
    assert found == [
        ("START", False),
        ("LOADING", False),
        ("AVAILABLE", True),
        ("UNLOADING", True),
        ("END", False),
    ]


def test_a_version_on_its_way_is_unavailable_and_not_unknown(house):
    house.loaders.prepare("m", 1).may_load.clear()
    house.aspire("m", 1)
    house.heard.wait("m", 1, "LOADING")
    with pytest.raises(Unavailable, match="LOADING"):
        house.acquire()


def test_a_new_version_takes_over_while_clients_call_without_a_failed_acquire(house):
    house.serve("m", 1)
    failures, versions, stop = [], [], threading.Event()

    def client():
        seen = []
        while not stop.is_set():
            try:
                seen.append(house.call())
            except Exception as error:
                failures.append(error)
                return
        versions.append(seen)

    clients = [threading.Thread(target=client) for _ in range(3)]
    for thread in clients:
        thread.start()
    for version in range(2, 12):
        house.serve("m", version)
    stop.set()
    for thread in clients:
        thread.join(TIMEOUT)
    assert failures == []
    assert len(versions) == 3
    for seen in versions:
        assert seen == sorted(seen), "a client saw an older version after a newer one"
    for version in range(1, 11):
        house.heard.wait("m", version, "END")
    assert house.call() == 11


def test_loads_of_two_models_run_at_the_same_time(house):
    loaders = [house.loaders.prepare(name, 1) for name in "ab"]
    for loader in loaders:
        loader.may_load.clear()
    for name in "ab":
        house.aspire(name, 1)
    for loader in loaders:
        assert loader.loading.wait(TIMEOUT)
    for loader, name in zip(loaders, "ab", strict=True):
        loader.may_load.set()
        house.heard.wait(name, 1, "AVAILABLE")


def test_a_stuck_load_delays_no_other_model_and_no_call(house):
    house.serve("a", 1)
    stuck = house.loaders.prepare("m", 1)
    stuck.may_load.clear()
    house.aspire("m", 1)
    assert stuck.loading.wait(TIMEOUT)
    for version in (2, 3):
        house.serve("a", version)
        assert house.call("a") == version
    house.serve("b", 1)
    house.heard.wait("a", 2, "END")
    assert house.heard.names_of("m", 1) == ["START", "LOADING"]


def test_of_one_thread_loads_take_turns(build):
    house = build(num_load_threads=1).start()
    first, second = house.loaders.prepare("a", 1), house.loaders.prepare("b", 1)
    first.may_load.clear()
    house.aspire("a", 1)
    assert first.loading.wait(TIMEOUT)
    house.aspire("b", 1)
    house.heard.wait("b", 1, "LOADING")
    assert not second.loading.is_set()
    first.may_load.set()
    house.heard.wait("b", 1, "AVAILABLE")


def test_resource_preserving_unloads_before_it_loads(build):
    house = build(policy=resource_preserving).start()
    house.serve("m", 1)
    handle = house.acquire()
    house.aspire("m", 2)
    house.heard.wait("m", 1, "UNLOADING")
    house.settle()
    assert house.heard.names_of("m", 2) == ["START"]
    handle.release()
    house.heard.wait("m", 2, "AVAILABLE")
    assert house.loaders[M1].unloaded.is_set()


def test_a_load_that_does_not_end_does_not_hold_up_the_stop(build):
    house = build().start()
    house.serve("m", 1)
    loading = house.loaders.prepare("loading", 1)
    loading.may_load.clear()
    house.aspire("loading", 1)
    assert loading.loading.wait(TIMEOUT)
    started = time.monotonic()
    assert not house.stop()
    assert time.monotonic() - started < TIMEOUT / 2
    house.heard.wait("m", 1, "END")
    loading.may_load.set()


# Failures ---------------------------------------------------------------------------------------


def test_a_failed_load_is_tried_again_with_the_same_loader(build):
    house = build(retries=3, load_retry_interval_s=0.01).start()
    loader = house.loaders.prepare("m", 1, Unavailable("later"), broken())
    house.serve("m", 1)
    assert loader.attempts == 3
    assert house.loaders.made[M1] == [loader]
    assert house.attempts == [(M1, False), (M1, False), (M1, True)]
    assert house.heard.names_of("m", 1) == ["START", "LOADING", "LOADING", "LOADING", "AVAILABLE"]
    assert house.call() == 1


def test_what_is_not_installed_is_not_tried_again(build):
    house = build(retries=3, load_retry_interval_s=0.01).start()
    loader = house.loaders.prepare("m", 1, Unimplemented("TensorFlow cannot be imported"))
    house.aspire("m", 1)
    assert house.heard.wait("m", 1, "END").error.code is Code.UNIMPLEMENTED
    assert loader.attempts == 1


@pytest.mark.parametrize("interval", [0.0, -1.0])
def test_without_a_pause_it_is_tried_again_at_once(build, interval):
    house = build(retries=2, load_retry_interval_s=interval).start()
    loader = house.loaders.prepare("m", 1, broken(), broken())
    house.serve("m", 1)
    assert loader.attempts == 3


def test_a_load_that_goes_on_failing_ends_with_its_last_error(build):
    house = build(retries=2, load_retry_interval_s=0.01).start()
    loader = house.loaders.prepare("m", 1, Unavailable("1"), Unavailable("2"), broken())
    house.aspire("m", 1)
    assert said(house.heard.wait("m", 1, "END").error) == (Code.DATA_LOSS, "a shard is short")
    assert loader.attempts == 3
    with pytest.raises(Unavailable, match="DATA_LOSS: a shard is short"):
        house.acquire()


def test_an_exception_in_a_loader_is_an_internal_failure(house):
    house.loaders.prepare("m", 1, ValueError("boom"))
    house.aspire("m", 1)
    assert said(house.heard.wait("m", 1, "END").error) == (Code.INTERNAL, "ValueError: boom")


def test_a_failed_version_leaves_the_one_that_serves_in_place(house):
    house.serve("m", 1)
    house.loaders.prepare("m", 2, broken())
    house.aspire("m", 2)
    house.heard.wait("m", 2, "END")
    assert house.call() == 1
    assert house.heard.names_of("m", 1) == ["START", "LOADING", "AVAILABLE"]


def test_a_version_of_an_unknown_platform_fails_alone(house):
    house.loaders.impossible[M2] = InvalidArgument("unsupported platform 'x'")
    house.aspire("m", 1, 2)
    error = house.heard.wait("m", 2, "END").error
    assert said(error) == (Code.INVALID_ARGUMENT, "unsupported platform 'x'")
    house.heard.wait("m", 1, "AVAILABLE")
    assert house.call() == 1


def test_a_version_that_is_aspired_as_an_error_gets_no_loader(house):
    house.manager.aspire(AspiredVersions("m", (AspiredVersion(1, error=broken()),)))
    assert said(house.heard.wait("m", 1, "END").error) == (Code.DATA_LOSS, "a shard is short")
    assert house.heard.names_of("m", 1) == ["END"]
    assert not house.loaders.made[M1]


def test_a_failed_version_is_loaded_again_when_its_files_change(house):
    house.loaders.prepare("m", 1, broken())
    house.aspire("m", 1, files="short")
    house.heard.wait("m", 1, "END")
    house.aspire("m", 1, files="short")
    house.settle()
    assert len(house.loaders.made[M1]) == 1
    house.aspire("m", 1, files="whole")
    house.heard.wait("m", 1, "AVAILABLE")
    assert len(house.loaders.made[M1]) == 2


def test_files_that_change_during_the_pause_are_tried_at_once_with_a_new_loader(build):
    house = build(retries=1, num_load_threads=1, load_retry_interval_s=FOR_EVER).start()
    house.loaders.prepare("m", 1, broken())
    house.aspire("m", 1, files="short")
    house.heard.wait("m", 1, "LOADING")
    house.settle()  # on the same load thread: the failure has been handled
    house.aspire("m", 1, files="whole")
    house.heard.wait("m", 1, "AVAILABLE")
    assert [loader.attempts for loader in house.loaders.made[M1]] == [1, 1]


def test_a_load_that_failed_gives_back_what_it_held(house):
    """What is remembered of a failure is its code and text, not the frames that it came from."""
    freed = threading.Event()

    class Weights:
        pass

    class HalfWay(FakeLoader):
        def load(self, placement=ANYWHERE):
            weights = Weights()
            weakref.finalize(weights, freed.set)
            try:
                raise OSError("a disk is full")
            except OSError as error:
                raise DataLoss("a shard is short") from error

    house.loaders.prepare_this(M1, HalfWay())
    house.aspire("m", 1)
    house.heard.wait("m", 1, "END")
    house.settle()
    gc.collect()
    assert freed.is_set()


# Cancelling -------------------------------------------------------------------------------------


def test_a_load_under_way_is_told_that_it_is_not_wanted_any_more(house):
    loader = house.loaders.prepare("m", 1)
    loader.may_load.clear()
    house.aspire("m", 1)
    assert loader.loading.wait(TIMEOUT)
    house.aspire("m")
    assert loader.cancelled.wait(TIMEOUT)
    loader.may_load.set()
    assert house.heard.wait("m", 1, "END").error.code is Code.CANCELLED


def test_a_load_that_was_not_begun_yet_does_not_begin_once_it_is_not_wanted(build):
    house = build(num_load_threads=1).start()
    busy = house.loaders.prepare("busy", 1)
    busy.may_load.clear()
    house.aspire("busy", 1)
    assert busy.loading.wait(TIMEOUT)
    waiting = house.loaders.prepare("m", 1)
    house.aspire("m", 1)
    house.heard.wait("m", 1, "LOADING")
    house.aspire("m")
    house.aspire("busy")  # in the inbox after it: once this is handled, so is the other
    assert busy.cancelled.wait(TIMEOUT)
    busy.may_load.set()
    assert house.heard.wait("m", 1, "END").error.code is Code.CANCELLED
    assert waiting.attempts == 0


def test_a_cancel_during_the_pause_before_a_retry_takes_effect_at_once(build):
    house = build(retries=5, num_load_threads=1, load_retry_interval_s=60).start()
    loader = house.loaders.prepare("m", 1, broken())
    house.aspire("m", 1)
    house.heard.wait("m", 1, "LOADING")
    house.settle()  # on the same load thread: the failure has been handled
    house.aspire("m")
    assert house.heard.wait("m", 1, "END").error.code is Code.CANCELLED
    house.aspire("m", 1)
    house.heard.wait("m", 1, "AVAILABLE")
    assert loader.attempts == 1
    assert len(house.loaders.made[M1]) == 2


def test_a_load_that_is_cancelled_while_it_runs_never_becomes_available(house):
    loader = house.loaders.prepare("m", 1)
    loader.may_load.clear()
    house.aspire("m", 1)
    assert loader.loading.wait(TIMEOUT)
    house.aspire("m")
    loader.may_load.set()
    assert house.heard.wait("m", 1, "END").error.code is Code.CANCELLED
    assert house.heard.names_of("m", 1) == ["START", "LOADING", "END"]
    assert loader.unloaded.is_set()
    assert loader.servable.closed_on is not None
    with pytest.raises(NotFound):
        house.acquire()


def test_a_load_that_is_cancelled_while_it_runs_and_fails_is_not_tried_again(build):
    house = build(retries=5, load_retry_interval_s=0.0).start()
    loader = house.loaders.prepare("m", 1, broken())
    loader.may_load.clear()
    house.aspire("m", 1)
    assert loader.loading.wait(TIMEOUT)
    house.aspire("m")
    loader.may_load.set()
    house.heard.wait("m", 1, "END")
    house.settle()
    assert loader.attempts == 1
    assert not loader.unloading.is_set()
    assert house.heard.names_of("m", 1) == ["START", "LOADING", "END"]


def test_a_version_that_is_wanted_again_is_loaded_when_the_old_one_has_gone(house):
    house.serve("m", 1)
    first = house.loaders[M1]
    handle = house.acquire()
    house.aspire("m")
    house.heard.wait("m", 1, "UNLOADING")
    house.aspire("m", 1)
    house.settle()
    assert house.loaders.made[M1] == [first]
    handle.release()
    house.heard.wait("m", 1, "AVAILABLE", times=2)
    assert first.unloaded.is_set()
    assert house.loaders[M1] is not first
    assert house.call() == 1


# Unloading --------------------------------------------------------------------------------------


def test_a_held_lease_delays_the_unload_of_its_version_and_of_no_other_model(house):
    house.serve("a", 1)
    house.serve("b", 1)
    handle = house.acquire("a")
    held = house.loaders[ServableId("a", 1)]
    house.serve("a", 2)
    house.serve("b", 2)
    house.aspire("a", 3)
    for name, version in (("b", 1), ("a", 2)):
        house.heard.wait(name, version, "END")
    assert house.heard.names_of("a", 1)[-1] == "UNLOADING"
    assert not held.unloading.is_set()
    done = RecordingCompletion()
    handle.runners["serving_default"].run(inputs(), done)  # it still answers its holder
    assert done.outcome.keys() == {"y"}
    handle.release()
    house.heard.wait("a", 1, "END")
    assert held.unloaded.is_set()


def test_nothing_is_unloaded_or_closed_on_a_thread_that_returns_a_lease(house):
    house.serve("m", 1)
    handle = house.acquire()
    house.aspire("m", 2)
    house.heard.wait("m", 1, "UNLOADING")
    client = threading.Thread(target=handle.release)
    client.start()
    client.join(TIMEOUT)
    assert not client.is_alive()
    house.heard.wait("m", 1, "END")
    closed_on = house.loaders[M1].servable.closed_on
    assert closed_on is not client
    assert closed_on.name.startswith("unload-")


def test_a_stuck_unload_holds_up_no_load_no_call_and_no_lease(house):
    house.serve("m", 1)
    stuck = house.loaders[M1]
    stuck.may_unload.clear()
    house.serve("m", 2)
    assert stuck.unloading.wait(TIMEOUT)
    house.serve("m", 3)
    house.serve("n", 1)
    assert house.call("m") == 3
    assert house.call("n") == 1
    assert house.heard.names_of("m", 1)[-1] == "UNLOADING"
    stuck.may_unload.set()
    for version in (1, 2):
        house.heard.wait("m", version, "END")


def test_an_unload_that_fails_still_ends_the_version(house):
    house.serve("m", 1)
    house.loaders[M1].unload_failure = ValueError("boom")
    house.serve("m", 2)
    house.heard.wait("m", 1, "END")
    house.aspire("m", 1, 2)
    house.heard.wait("m", 1, "AVAILABLE", times=2)


def test_incomplete_versions_reach_the_monitor(house):
    house.aspire("m", 1, incomplete={2: "done is not there"})
    house.heard.wait("m", 1, "AVAILABLE")
    assert house.monitor.incomplete("m") == {2: "done is not there"}
    house.aspire("m", 1, 2)
    house.heard.wait("m", 2, "AVAILABLE")
    assert house.monitor.incomplete("m") == {}


# Stopping ---------------------------------------------------------------------------------------


def test_stop_unloads_everything_and_ends_each_version_once(build):
    house = build(retries=1, num_load_threads=3, load_retry_interval_s=FOR_EVER).start()
    house.loaders.prepare("failed", 1, broken(), broken())
    house.loaders.prepare("paused", 1, broken())
    house.loaders.impossible[ServableId("never", 1)] = InvalidArgument("unsupported platform")
    loading = house.loaders.prepare("loading", 1)
    loading.may_load.clear()
    house.aspire("loading", 1)
    house.serve("m", 1)
    house.serve("n", 1, 2)
    for name in ("failed", "paused", "never"):
        house.aspire(name, 1)
        house.heard.wait(name, 1, "LOADING")
    assert loading.loading.wait(TIMEOUT)
    stopped = []
    stopper = threading.Thread(target=lambda: stopped.append(house.stop()))
    stopper.start()
    house.heard.wait("m", 1, "END")
    assert stopper.is_alive()  # it waits for the load
    loading.may_load.set()
    stopper.join(TIMEOUT)
    assert stopped == [True]
    versions = [("m", 1), ("n", 1), ("n", 2), ("failed", 1), ("paused", 1), ("never", 1)]
    for name, version in [*versions, ("loading", 1)]:
        assert house.heard.names_of(name, version).count("END") == 1, (name, version)
        assert house.heard.names_of(name, version)[-1] == "END"
    for servable in (M1, ServableId("n", 1), ServableId("n", 2), ServableId("loading", 1)):
        assert house.loaders[servable].servable.closed_on.name.startswith("unload-")
    with pytest.raises(NotFound):
        house.acquire()


def test_stop_with_nothing_loaded_is_quick(build):
    assert build().start().stop()


def test_after_stop_no_statement_is_taken(house):
    house.serve("m", 1)
    assert house.stop()
    house.aspire("m", 2)
    assert house.heard.names_of("m", 2) == []
    names = {t.name for t in threading.enumerate()}
    assert not [n for n in names if n == "manager" or n.startswith(("load-", "unload-"))]


def test_a_statement_that_arrives_while_it_stops_loads_nothing(house):
    house.serve("m", 1)
    handle = house.acquire()
    stopped = []
    stopper = threading.Thread(target=lambda: stopped.append(house.stop()))
    stopper.start()
    house.heard.wait("m", 1, "UNLOADING")
    house.aspire("m", 1, 2)
    house.aspire("n", 1)
    handle.release()
    stopper.join(TIMEOUT)
    assert stopped == [True]
    assert house.heard.names_of("m", 2) == house.heard.names_of("n", 1) == []


def test_stop_says_so_if_a_lease_is_not_returned_in_time(house):
    house.serve("m", 1)
    house.serve("n", 1)
    handle = house.acquire()
    house.running = False
    assert not house.manager.stop(0.2)
    assert house.heard.names_of("n", 1)[-1] == "END"
    assert not house.loaders[M1].unloading.is_set()
    handle.release()  # late, and harmless


# Faults of those around it ----------------------------------------------------------------------


def test_a_subscriber_that_fails_stops_no_load(build):
    house = build()

    def fail(state):
        raise ValueError("boom")

    house.monitor.subscribe(fail)
    house.start()
    house.aspire("m", 1)
    assert house.loaders.prepare("n", 1) is not None
    house.aspire("n", 1)
    for name in "mn":
        house.heard.wait(name, 1, "AVAILABLE")


def test_a_listener_to_loads_that_fails_stops_no_load(build):
    house = build()
    house.attempts = None  # the house's listener fails
    house.start()
    house.loaders.prepare("n", 1, broken())
    house.aspire("m", 1)
    house.aspire("n", 1)
    house.heard.wait("m", 1, "AVAILABLE")
    house.heard.wait("n", 1, "END")


def test_a_version_is_warmed_up_by_its_load_before_it_is_available(build):
    warm, may_end = threading.Event(), threading.Event()
    seen = []

    def warm_up(servable, data, body):
        seen.append((servable, data.path, body, threading.current_thread().name))
        warm.set()
        assert may_end.wait(TIMEOUT)

    house = build(warm_up=warm_up).start()
    loader = house.loaders.prepare("m", 1)
    house.aspire("m", 1)
    assert warm.wait(TIMEOUT)
    assert house.heard.names_of("m", 1) == ["START", "LOADING"]
    may_end.set()
    house.heard.wait("m", 1, "AVAILABLE")
    ((servable, path, body, thread),) = seen
    assert (servable, path, body) == (M1, "/models/m/1", loader.servable)
    assert thread.startswith("load-")


@pytest.mark.parametrize("failure", [InvalidArgument("a record is bad"), ZeroDivisionError("odd")])
def test_a_warm_up_that_fails_is_a_load_that_fails_and_its_servable_goes(build, failure):
    def warm_up(servable, data, body):
        raise failure

    house = build(warm_up=warm_up).start()
    loader = house.loaders.prepare("m", 1)
    house.aspire("m", 1)
    error = house.heard.wait("m", 1, "END").error
    assert str(failure) in error.message
    assert loader.servable.closed_on.name.startswith("load-")
    assert house.attempts == [(M1, False)]
    with pytest.raises(Unavailable):
        house.acquire()


def test_a_warm_up_that_fails_is_tried_again_like_any_load(build):
    failures = [DataLoss("half a record")]

    def warm_up(servable, data, body):
        if failures:
            raise failures.pop()

    house = build(retries=1, load_retry_interval_s=0.01, warm_up=warm_up).start()
    loader = ReloadableLoader()
    house.loaders.prepare_this(M1, loader)
    house.serve("m", 1)
    assert loader.attempts == 2
    assert house.call() == 1
    assert house.attempts == [(M1, False), (M1, True)]


def test_a_servable_that_cannot_be_unloaded_after_its_warm_up_fails_with_the_warm_ups_error(build):
    def warm_up(servable, data, body):
        raise DataLoss("half a record")

    house = build(warm_up=warm_up).start()
    house.loaders.prepare("m", 1).unload_failure = RuntimeError("stuck")
    house.aspire("m", 1)
    assert house.heard.wait("m", 1, "END").error.message == "half a record"


def test_a_servable_that_cannot_tell_its_signatures_ends_alone(house):
    loader = house.loaders.prepare("m", 1)
    del loader.servable.signatures
    house.aspire("m", 1)
    house.heard.wait("m", 1, "END")
    assert loader.servable.closed_on is not None
    house.serve("n", 1)


# Memory -----------------------------------------------------------------------------------------


def needs(size, **more):
    sizes = {name: Footprint(0, bytes_) for name, bytes_ in {"steady": size, **more}.items()}
    return Estimate(**sizes, on_devices=True, measurable=True)


def reservations(house):
    return {(v.id.name, v.id.version): v.holds.ram for v in house.manager.plan.versions}


@pytest.fixture
def small(build):
    """A house with a budget of 100."""
    return build(budget=100).start()


def load(house, name, version, size, **more):
    loader = house.loaders.prepare(name, version)
    loader.needs = needs(size, **more)
    house.aspire(name, version)
    return loader


def test_a_version_is_estimated_on_the_load_pool_and_loaded_where_it_was_planned(build):
    devices = {CPU_0: 0, Device("GPU", 0): 50, Device("GPU", 1): 90}
    house = build(budget=100, devices=lambda: devices).start()
    house.manager.configure({"m": LoadRules(("GPU",), 2)})
    loader = load(house, "m", 1, 40)
    house.heard.wait("m", 1, "AVAILABLE")
    assert loader.estimated_on.name.startswith("load-")
    assert [p.devices for p in loader.placements] == [(Device("GPU", 1), Device("GPU", 0))]
    assert len(house.loaders.made[M1]) == 1, "what estimates is what loads"


def test_a_version_that_does_not_fit_is_refused_and_the_other_serves_on(small):
    load(small, "m", 1, 60)
    small.heard.wait("m", 1, "AVAILABLE")
    load(small, "m", 2, 60)
    error = small.heard.wait("m", 2, "END").error
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert error.message.startswith(
        "Insufficient resources to load servable {name: m version: 2}: it needs 0.0 MiB of RAM"
    )
    assert small.call() == 1


def test_what_was_refused_serves_when_another_model_has_gone(small):
    load(small, "n", 1, 60)
    small.heard.wait("n", 1, "AVAILABLE")
    handle = small.acquire("n")
    load(small, "m", 1, 60)
    small.heard.wait("m", 1, "END")
    small.loaders.prepare("m", 1).needs = needs(60)
    small.aspire("n")
    small.heard.wait("n", 1, "UNLOADING")
    small.settle()
    assert small.heard.names_of("m", 1) == ["START", "LOADING", "END", "START", "LOADING"]
    handle.release()  # now it is really gone
    small.heard.wait("m", 1, "AVAILABLE")
    small.settle()
    assert reservations(small) == {("m", 1): 60, ("zzz", 1): 0}


def test_by_auto_the_old_version_makes_room_if_it_must(small):
    small.manager.configure({"m": LoadRules(transition="auto")})
    old = load(small, "m", 1, 60)
    small.heard.wait("m", 1, "AVAILABLE")
    new = load(small, "m", 2, 60)
    small.heard.wait("m", 2, "AVAILABLE")
    assert old.unloaded.is_set()
    assert new.loading.is_set()
    assert small.call() == 2


def test_a_stuck_estimate_delays_no_other_model_and_no_call(small):
    small.serve("m", 1)
    may_estimate = threading.Event()

    class Slow(FakeLoader):
        def estimate(self):
            assert may_estimate.wait(TIMEOUT)
            return needs(1)

    small.loaders.prepare_this(M2, Slow())
    small.aspire("m", 2)
    small.serve("n", 1)
    assert small.call() == 1
    may_estimate.set()
    small.heard.wait("m", 2, "AVAILABLE")


def test_a_loader_that_cannot_tell_what_it_takes_loads_all_the_same(small):
    class Ignorant(FakeLoader):
        def estimate(self):
            raise FileNotFoundError("no such file")

    small.loaders.prepare_this(M1, Ignorant())
    small.serve("m", 1)
    assert reservations(small) == {("m", 1): 0}


def test_a_loader_that_cannot_be_made_is_an_attempt_that_failed(build):
    house = build(budget=100, retries=1, load_retry_interval_s=0.01).start()
    house.loaders.impossible[M1] = InvalidArgument("unsupported platform 'x'")
    house.aspire("m", 1)
    error = house.heard.wait("m", 1, "END").error
    assert said(error) == (Code.INVALID_ARGUMENT, "unsupported platform 'x'")
    assert house.attempts == [(M1, False), (M1, False)]


def test_devices_that_cannot_be_listed_are_an_attempt_that_failed(build):
    def devices():
        raise Unavailable("the driver does not answer")

    house = build(budget=100, devices=devices).start()
    load(house, "m", 1, 1)
    assert house.heard.wait("m", 1, "END").error.message == "the driver does not answer"


def test_what_a_load_was_seen_to_take_is_what_it_holds(build):
    sizes = iter([1000, 1030, 1050])  # before, after, at most
    house = build(budget=100, meter=MemoryMeter(read=lambda line: next(sizes, 0))).start()
    load(house, "n", 1, 40)  # the first of its type is not measured
    house.heard.wait("n", 1, "AVAILABLE")
    load(house, "m", 1, 40)
    house.heard.wait("m", 1, "AVAILABLE")
    house.settle("n")
    assert reservations(house) == {("m", 1): 30, ("n", 1): 40}
    assert [v.measured for v in house.manager.plan.versions] == [True, False]


def test_a_version_grows_when_there_is_room_for_it(small):
    load(small, "n", 1, 60)
    small.heard.wait("n", 1, "AVAILABLE")
    loader = load(small, "m", 1, 20, growth=50, grown=30)
    small.heard.wait("m", 1, "AVAILABLE")
    assert [p.may_grow for p in loader.placements] == [False]
    assert not loader.grew.is_set()
    small.aspire("n")
    assert loader.grew.wait(TIMEOUT)
    small.versions.report(Grown(M1, True))
    small.settle()
    assert reservations(small)["m", 1] == 30


def test_everything_is_given_back_at_the_end(small):
    small.serve("n", 1)
    load(small, "m", 1, 60)
    small.heard.wait("m", 1, "AVAILABLE")
    load(small, "o", 1, 60)
    small.heard.wait("o", 1, "END")
    assert small.stop()
    assert small.manager.plan.versions == ()
    assert small.manager.plan.limits == Resources(100, {CPU_0: 0})


# Devices ----------------------------------------------------------------------------------------


class MovableLoader(FakeLoader):
    """One whose replica can be moved."""

    def __init__(self):
        super().__init__()
        self.moves = []
        self.moved = threading.Event()
        self.moved_on = None

    def relocate(self, failed, to):
        self.moves.append((failed, to))
        self.moved_on = threading.current_thread()
        self.moved.set()
        return (to or failed,)


def test_a_replica_that_failed_is_moved_on_the_load_pool(build):
    devices = {CPU_0: 0, Device("CPU", 1): 0}
    house = build(budget=100, devices=lambda: devices).start()
    loader = MovableLoader()
    loader.needs = needs(40)
    house.loaders.prepare_this(M1, loader)
    house.aspire("m", 1)
    house.heard.wait("m", 1, "AVAILABLE")
    house.versions.report(ReplicaFailed(M1, CPU_0))
    assert loader.moved.wait(TIMEOUT)
    assert loader.moves == [(CPU_0, Device("CPU", 1))]
    assert loader.moved_on.name.startswith("load-")
    house.settle()
    (planned,) = [v for v in house.manager.plan.versions if v.id == M1]
    assert planned.placement.devices == (Device("CPU", 1),)


def test_a_loader_that_moves_nothing_leaves_the_plan_as_it_was(small):
    load(small, "m", 1, 40)
    small.heard.wait("m", 1, "AVAILABLE")
    small.versions.report(ReplicaFailed(M1, CPU_0))
    small.settle()
    assert small.call() == 1


def test_each_replica_is_warmed(build):
    warmed = []
    house = build(warm_up=lambda servable, data, body: warmed.append(body)).start()
    loader = house.loaders.prepare("m", 1)
    loader.servable.replicas = parts = [object(), object()]
    loader.servable.runs_at_once = 0
    house.aspire("m", 1)
    house.heard.wait("m", 1, "AVAILABLE")
    assert warmed == parts


# Code that exits --------------------------------------------------------------------------------


def test_a_loader_that_exits_ends_its_load_and_no_thread(house):
    for name in "mno":
        house.loaders.prepare(name, 1, SystemExit(1))
        house.aspire(name, 1)
        error = house.heard.wait(name, 1, "END").error
        assert said(error) == (Code.INTERNAL, "SystemExit: 1")
    house.serve("p", 1)


def test_an_estimate_a_warm_up_and_an_unload_that_exit_end_no_thread(build):
    def warm_up(servable, data, body):
        if servable.name == "n":
            raise SystemExit(1)

    house = build(budget=100, warm_up=warm_up, num_load_threads=1).start()

    class Exits(FakeLoader):
        def estimate(self):
            raise SystemExit(1)

    house.loaders.prepare_this(M1, Exits()).unload_failure = SystemExit(1)
    house.serve("m", 1)  # its needs are not known
    house.aspire("n", 1)
    assert house.heard.wait("n", 1, "END").error.message == "SystemExit: 1"
    house.aspire("m")
    house.heard.wait("m", 1, "END")
    house.serve("o", 1)
    assert house.stop()


def test_a_listener_that_exits_does_not_end_the_manager(build):
    house = build()

    def leave(state):
        raise SystemExit(1)

    house.monitor.subscribe(leave)
    house.start()
    house.serve("m", 1)
    assert house.stop()


# Commands that fail -----------------------------------------------------------------------------


class NoLanes(FakeServable):
    """One that stumbles when its runners are opened."""

    @property
    def ruled_batching(self):
        raise ZeroDivisionError("odd")

    @ruled_batching.setter
    def ruled_batching(self, value):
        pass


def test_a_version_whose_lanes_cannot_be_opened_is_a_load_that_fails(house):
    house.serve("m", 1)
    loader = house.loaders.prepare("m", 2)
    loader.servable = NoLanes()
    house.aspire("m", 2)
    error = house.heard.wait("m", 2, "END").error
    assert said(error) == (Code.INTERNAL, "ZeroDivisionError: odd")
    assert house.heard.names_of("m", 2) == ["START", "LOADING", "END"]
    assert loader.servable.closed_on.name.startswith("load-")
    assert house.call() == 1
    assert house.stop()


class Forgetful(ServingMap):
    """One that cannot take a version out."""

    def withdraw(self, servable):
        super().withdraw(servable)
        raise KeyError(servable)


def test_a_version_that_cannot_be_withdrawn_is_unloaded_all_the_same(build):
    house = build()
    house.models = Forgetful(house.monitor, house.versions._jobs._dispatcher)
    house.versions._serving_map = house.models
    house.start().serve("m", 1)
    house.aspire("m")
    house.heard.wait("m", 1, "END")
    assert house.loaders[M1].unloaded.is_set()
    assert house.stop()


def test_a_load_that_cannot_be_begun_has_failed(build):
    house = build()

    def refuse(job):
        raise RuntimeError("no pool")

    house.versions._jobs._loads.submit = refuse
    house.start()
    house.aspire("m", 1)
    assert house.heard.wait("m", 1, "END").error.message == "RuntimeError: no pool"
    assert house.stop()


# Loads that do not end ---------------------------------------------------------------------------


def hang(house, version, after=()):
    """A version whose load waits until the test lets it go on."""
    loader = house.loaders.prepare("m", version, *after)
    loader.may_load.clear()
    return loader


def test_a_load_that_does_not_end_is_given_up_and_others_load(build):
    house = build(num_load_threads=1, load_timeout_s=0.05).start()
    stuck = hang(house, 1)
    house.aspire("m", 1)
    house.heard.wait("m", 1, "END")
    (state,) = house.monitor.of_model("m")
    assert state.error.code is Code.DEADLINE_EXCEEDED
    assert "has not ended within 0.05 s" in state.error.message
    assert stuck.cancelled.wait(TIMEOUT), "it was not told to end"
    house.serve("n", 1)  # on the thread that took the stuck one's place
    assert (M1, False) in house.attempts
    stuck.may_load.set()
    assert stuck.unloaded.wait(TIMEOUT), "what it brought is not unloaded"
    with pytest.raises(Unavailable, match="failed to load: DEADLINE_EXCEEDED"):
        house.acquire("m")
    assert house.heard.names_of("m", 1) == ["START", "LOADING", "END"]


def test_what_an_overdue_load_brings_does_not_touch_the_one_that_took_its_place(build):
    house = build(retries=1, load_retry_interval_s=0.0, load_timeout_s=0.3, num_load_threads=1)
    house.start()
    stuck = hang(house, 1)
    house.aspire("m", 1)
    assert stuck.loading.wait(TIMEOUT)
    house.loaders.prepare("m", 1)
    house.heard.wait("m", 1, "AVAILABLE")
    stuck.may_load.set()
    assert stuck.unloaded.wait(TIMEOUT)
    house.settle()
    assert house.call() == 1


def test_an_estimate_that_does_not_end_is_given_up(build):
    go_on = threading.Event()

    class Stuck(FakeLoader):
        def estimate(self):
            go_on.wait(TIMEOUT)
            return super().estimate()

    house = build(budget=100, num_load_threads=1, load_timeout_s=0.05).start()
    house.loaders.prepare_this(M1, Stuck())
    house.aspire("m", 1)
    house.heard.wait("m", 1, "END")
    house.serve("n", 1)
    go_on.set()
    house.settle()
    assert house.heard.names_of("m", 1) == ["START", "LOADING", "END"]


def test_a_load_that_ends_in_time_has_no_deadline_any_more(build):
    house = build(load_timeout_s=0.2).start()
    house.serve("m", 1)
    house.manager._inbox.put_after(LoadOverdue(M1, 0.2), 0.0)  # as if it had been on its way
    house.settle()
    assert house.call() == 1


def test_a_version_that_cannot_be_published_ends_as_failed(build):
    house = build()

    def refuse(*args):
        raise RuntimeError("no room for its name")

    house.models.publish, publish = refuse, house.models.publish
    house.start().aspire("m", 1)
    house.heard.wait("m", 1, "END")
    (state,) = house.monitor.of_model("m")
    assert "no room for its name" in state.error.message
    assert house.heard.names_of("m", 1) == ["START", "LOADING", "END"]
    assert house.loaders[M1].servable.closed_on is not None
    house.models.publish = publish
    house.serve("m", 2)
    assert house.call() == 2
