"""Who is ready, who uses it, and what is answered when nobody is."""

import threading

import pytest

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ModelSpec, ServableId
from servingd.errors import Cancelled, Code, DataLoss, InvalidArgument, NotFound, Unavailable
from servingd.runtime.batching.dispatcher import Dispatcher
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.runtime.versions.serving_map import ServingMap
from tests.threads.fakes import TIMEOUT, FakeServable

M1, M2, M3 = (ServableId("m", v) for v in (1, 2, 3))
LATEST = ModelSpec("m")


class House:
    """A serving map with what it needs; `drained` are the versions that nobody uses any more."""

    def __init__(self):
        self.monitor = StateMonitor()
        self.map = ServingMap(self.monitor, Dispatcher())
        self.drained = []
        self.drained_on = []

    def publish(self, *servables):
        for servable in servables:
            self.map.publish(servable, FakeServable("serving_default", "other"), self._note)

    def say(self, servable, state, error=None):
        self.monitor.announce(ServableState(servable, PublicState[state], error))

    def _note(self, servable):
        self.drained.append(servable)
        self.drained_on.append(threading.current_thread())


@pytest.fixture
def house():
    return House()


def refusal(house, spec):
    with pytest.raises((InvalidArgument, NotFound, Unavailable)) as caught:
        house.map.acquire(spec)
    return caught.value.code, caught.value.message


def test_a_published_version_is_found_by_name_and_by_number(house):
    house.publish(M1)
    assert house.map.acquire(LATEST).id == M1
    handle = house.map.acquire(ModelSpec("m", version=1))
    assert handle.id == M1
    assert handle.metadata.keys() == handle.runners.keys() == {"serving_default", "other"}
    assert handle.runners["other"].signature.name == "other"


def test_the_latest_is_the_greatest_number_whatever_the_order_of_publication(house):
    house.publish(M2, M3, M1)
    assert house.map.acquire(LATEST).id == M3
    assert house.map.acquire(ModelSpec("m", version=1)).id == M1


def test_the_latest_falls_back_as_soon_as_the_greatest_is_withdrawn(house):
    house.publish(M1, M2)
    held = house.map.acquire(LATEST)
    house.map.withdraw(M2)
    assert held.id == M2
    assert house.map.acquire(LATEST).id == M1
    assert house.drained == []


def test_an_unused_version_is_drained_at_once(house):
    house.publish(M1)
    house.map.acquire(LATEST).release()
    house.map.withdraw(M1)
    assert house.drained == [M1]


def test_a_version_is_drained_once_when_its_last_lease_returns_on_whatever_thread(house):
    house.publish(M1)
    first, second = house.map.acquire(LATEST), house.map.acquire(LATEST)
    house.map.withdraw(M1)
    first.release()
    assert house.drained == []
    last = threading.Thread(target=second.release)
    last.start()
    last.join(TIMEOUT)
    assert house.drained == [M1]
    assert house.drained_on == [last]


def test_a_version_in_use_delays_no_other_of_any_model(house):
    house.publish(M1, M2, ServableId("n", 1))
    house.map.acquire(ModelSpec("m", version=1))
    for servable in (M1, M2, ServableId("n", 1)):
        house.map.withdraw(servable)
    assert house.drained == [M2, ServableId("n", 1)]


def test_no_lease_is_granted_once_closing_has_begun(house):
    house.publish(M1)
    ready = house.map.acquire(LATEST)
    house.map.withdraw(M1)
    assert not ready.enter()
    ready.release()
    assert house.drained == [M1]


def test_lookups_and_withdrawals_race_without_a_lease_on_a_drained_version(house):
    """Clients hammer the latest while versions come and go; a drained one has no user."""
    house.publish(ServableId("m", 0))
    wrong, stop = [], threading.Event()

    def call():
        while not stop.is_set():
            handle = house.map.acquire(LATEST)
            if handle.id in house.drained:
                wrong.append(handle.id)
            handle.release()

    clients = [threading.Thread(target=call) for _ in range(3)]
    for client in clients:
        client.start()
    for version in range(1, 200):
        house.publish(ServableId("m", version))
        house.map.withdraw(ServableId("m", version - 1))
    stop.set()
    for client in clients:
        client.join(TIMEOUT)
    assert wrong == []
    assert sorted(house.drained) == [ServableId("m", v) for v in range(199)]


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (LATEST, "Servable not found for request: Latest(m)"),
        (ModelSpec("m", version=3), "Servable not found for request: Specific(m, 3)"),
    ],
)
def test_an_unknown_model_is_not_found(house, spec, text):
    house.publish(ServableId("n", 3))
    assert refusal(house, spec) == (Code.NOT_FOUND, text)


def test_a_configured_model_with_nothing_ready_is_unavailable(house):
    house.monitor.configure(["m"])
    code, text = refusal(house, LATEST)
    assert code is Code.UNAVAILABLE
    assert "m" in text


def test_a_version_that_nobody_wants_of_a_configured_model_is_not_found(house):
    house.monitor.configure(["m"])
    house.publish(M1)
    house.say(M1, "AVAILABLE")
    assert refusal(house, ModelSpec("m", version=3)) == (
        Code.NOT_FOUND,
        "Servable not found for request: Specific(m, 3)",
    )


@pytest.mark.parametrize("state", ["START", "LOADING"])
def test_a_version_that_is_not_ready_is_unavailable_with_its_state(house, state):
    house.say(M3, state)
    for spec in (LATEST, ModelSpec("m", version=3)):
        code, text = refusal(house, spec)
        assert code is Code.UNAVAILABLE
        assert state in text
        assert "{name: m version: 3}" in text


def test_a_failed_version_is_unavailable_with_the_load_error(house):
    house.say(M3, "END", DataLoss("a shard is short"))
    for spec in (LATEST, ModelSpec("m", version=3)):
        code, text = refusal(house, spec)
        assert code is Code.UNAVAILABLE
        assert text.endswith("DATA_LOSS: a shard is short")


def test_a_version_that_serves_hides_the_failure_of_a_newer_one(house):
    house.publish(M1)
    house.say(M2, "END", DataLoss("a shard is short"))
    assert house.map.acquire(LATEST).id == M1


@pytest.mark.parametrize("error", [None, Cancelled("Loading of servable cancelled")])
def test_a_version_that_ended_as_wanted_is_not_found(house, error):
    house.say(M3, "END", error)
    assert refusal(house, LATEST) == (
        Code.NOT_FOUND,
        "Servable not found for request: Latest(m)",
    )


@pytest.mark.parametrize(
    "spec", [ModelSpec(""), ModelSpec("", version=3), ModelSpec("", label="stable")]
)
def test_no_name_is_an_invalid_argument(house, spec):
    """TensorFlow Serving looks at the name first: ServableRequestFromModelSpec."""
    assert refusal(house, spec) == (Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")


def test_an_unknown_label_is_an_invalid_argument(house):
    house.publish(M1)
    assert refusal(house, ModelSpec("m", label="stable")) == (
        Code.INVALID_ARGUMENT,
        "Unrecognized servable version label: stable",
    )
