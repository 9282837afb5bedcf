"""What is known of every version, and who is told."""

import logging
import threading

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ServableId
from servingd.errors import DataLoss
from servingd.observability.state_log import log_incomplete
from servingd.runtime.manager.state_monitor import StateMonitor
from tests.threads.fakes import TIMEOUT


def state(name, version, which, error=None):
    return ServableState(ServableId(name, version), PublicState[which], error)


def test_the_last_state_of_each_version_is_told_newest_version_first():
    monitor = StateMonitor()
    for version, which in ((1, "AVAILABLE"), (3, "LOADING"), (2, "START"), (3, "END")):
        monitor.announce(state("m", version, which))
    assert [(s.id.version, s.state.name) for s in monitor.of_model("m")] == [
        (3, "END"),
        (2, "START"),
        (1, "AVAILABLE"),
    ]
    assert monitor.of_model("unknown") == []


def test_subscribers_are_told_in_order_and_may_ask_the_monitor():
    monitor, told = StateMonitor(), []
    for number in (1, 2):
        monitor.subscribe(
            lambda s, number=number: told.append((number, s, monitor.of_model("m")[0]))
        )
    states = [state("m", 1, "START"), state("m", 1, "LOADING")]
    for s in states:
        monitor.announce(s)
    assert told == [(number, s, s) for s in states for number in (1, 2)]


def test_a_waiter_is_called_once_when_every_model_is_up():
    monitor, answers = StateMonitor(), []
    monitor.notify_when(["a", "b"], PublicState.AVAILABLE, answers.append)
    monitor.announce(state("a", 1, "AVAILABLE"))
    assert answers == []
    monitor.announce(state("b", 7, "AVAILABLE"))
    monitor.announce(state("b", 8, "AVAILABLE"))
    assert answers == [True]


def test_a_waiter_is_told_that_a_model_has_ended_instead():
    monitor, answers = StateMonitor(), []
    monitor.announce(state("a", 1, "AVAILABLE"))
    monitor.announce(state("b", 1, "END", DataLoss("short")))
    monitor.notify_when(["a", "b"], PublicState.AVAILABLE, answers.append)
    assert answers == [False]


def test_a_waiter_may_ask_and_wait_again_from_its_call():
    monitor, answers = StateMonitor(), []

    def first(reached):
        answers.append(("first", reached, monitor.available()))
        monitor.notify_when(["m"], PublicState.END, lambda r: answers.append(("second", r)))

    monitor.notify_when(["m"], PublicState.AVAILABLE, first)
    monitor.announce(state("m", 1, "AVAILABLE"))
    monitor.announce(state("m", 1, "END"))
    assert answers == [("first", True, {"m"}), ("second", True)]


def test_a_forgotten_waiter_is_not_called_and_others_are():
    monitor, answers = StateMonitor(), []
    event = threading.Event()
    monitor.notify_when(["m"], PublicState.AVAILABLE, answers.append)

    def notify(reached):
        event.set()

    monitor.notify_when(["m"], PublicState.AVAILABLE, notify)
    monitor.forget(notify)
    monitor.announce(state("m", 1, "AVAILABLE"))
    assert answers == [True]
    assert not event.is_set()


def test_a_bound_method_can_be_forgotten():
    monitor, answers = StateMonitor(), []
    monitor.notify_when(["m"], PublicState.AVAILABLE, answers.append)
    monitor.forget(answers.append)  # another object of the same method
    monitor.announce(state("m", 1, "AVAILABLE"))
    assert answers == []


def test_incomplete_versions_are_remembered_logged_and_told_until_they_are_whole(caplog):
    monitor, told = StateMonitor(), []
    monitor.subscribe_incomplete(log_incomplete)
    monitor.subscribe_incomplete(lambda name, incomplete: told.append((name, dict(incomplete))))
    with caplog.at_level(logging.WARNING):
        monitor.report_incomplete("m", {3: "a shard is short"})
    assert monitor.incomplete("m") == {3: "a shard is short"}
    assert "version 3 of model m is incomplete: a shard is short" in caplog.text
    monitor.report_incomplete("m", {})
    assert monitor.incomplete("m") == {}
    assert told == [("m", {3: "a shard is short"}), ("m", {})]


def test_names_are_those_configured_and_those_with_a_state():
    monitor = StateMonitor()
    monitor.configure(["c", "a"])
    monitor.announce(state("b", 1, "AVAILABLE"))
    monitor.report_incomplete("d", {1: "no"})
    assert monitor.names() == ["a", "b", "c", "d"]
    assert monitor.configured() == {"a", "c"}
    monitor.configure(["c"])
    assert monitor.names() == ["b", "c", "d"]


def test_available_are_the_models_with_a_version_that_serves():
    monitor = StateMonitor()
    for s in (state("a", 1, "AVAILABLE"), state("a", 2, "END"), state("b", 1, "LOADING")):
        monitor.announce(s)
    assert monitor.available() == {"a"}
    monitor.announce(state("a", 1, "UNLOADING"))
    assert monitor.available() == set()


def test_readers_on_other_threads_see_whole_answers():
    """Readers and the announcing thread share no unguarded state."""
    monitor, wrong, stop = StateMonitor(), [], threading.Event()

    def read():
        while not stop.is_set():
            versions = [s.id.version for s in monitor.of_model("m")]
            if versions != sorted(versions, reverse=True):
                wrong.append(versions)
            monitor.names()
            monitor.available()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in range(300):
        monitor.announce(state("m", version, "AVAILABLE"))
        monitor.announce(state("m", version, "END"))
    stop.set()
    for reader in readers:
        reader.join(TIMEOUT)
    assert wrong == []
    assert len(monitor.of_model("m")) == 10
