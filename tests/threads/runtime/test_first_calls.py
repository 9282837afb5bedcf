"""Calls that come while the first models load."""

import threading

import pytest

from servingd.core.types import ModelSpec
from servingd.errors import Code, NotFound, Unavailable
from servingd.runtime.first_calls import FirstCallLimits, FirstCalls, HeldCall
from tests.threads.fakes import TIMEOUT


class OneReady:
    """Models, of which only `ready` can be called."""

    def acquire(self, spec):
        if spec.name != "ready":
            raise NotFound(spec.name)
        return self

    def release(self):
        pass


class Caller:
    def __init__(self, size=1, lives=True):
        self.ran_on = None
        self.error = None
        self.over = threading.Event()
        self.lives = lives
        self.held = HeldCall(size, lambda: self.lives, self._run, self._fail)

    def _run(self):
        self.ran_on = threading.current_thread().name
        self.over.set()

    def _fail(self, error):
        self.error = error
        self.over.set()


LIMITS = FirstCallLimits(calls=3, size=100)


@pytest.fixture
def gate():
    return FirstCalls(OneReady(), LIMITS)


def test_calls_of_any_model_wait_until_all_first_models_are_settled(gate):
    gate.expect(["a", "b"])
    callers = [Caller() for _ in range(2)]
    assert gate.hold(ModelSpec("a"), callers[0].held)
    assert gate.hold(ModelSpec("nobody"), callers[1].held)
    gate.settle("a")
    assert not gate.over
    gate.settle("b")
    assert gate.over
    for caller in callers:
        assert caller.over.wait(TIMEOUT)
        assert caller.ran_on == "first-calls"
    assert not gate.hold(ModelSpec("nobody"), Caller().held)


def test_what_can_be_answered_is_not_held_nor_what_names_nobody(gate):
    assert not gate.hold(ModelSpec("ready"), Caller().held)
    assert not gate.hold(ModelSpec(""), Caller().held)
    assert gate.hold(ModelSpec("later"), Caller().held)


def test_models_may_be_settled_before_they_are_known_and_may_be_none(gate):
    gate.settle("a")
    assert not gate.over
    gate.expect(["a"])
    assert gate.over
    none = FirstCalls(OneReady(), LIMITS)
    none.expect([])
    assert none.over


def test_a_model_that_is_configured_away_is_waited_for_no_longer(gate):
    gate.expect(["a", "b"])
    gate.settle("a")
    gate.expect(["a"])
    assert gate.over


@pytest.mark.parametrize("size", [1, 40])
def test_what_is_held_is_bounded_in_number_and_bytes(gate, size):
    gate.expect(["a"])
    most = 3 if size == 1 else 2
    callers = [Caller(size) for _ in range(most)]
    for caller in callers:
        assert gate.hold(ModelSpec("a"), caller.held)
    with pytest.raises(Unavailable, match=f"{most} calls of {most * size} bytes") as refused:
        gate.hold(ModelSpec("a"), Caller(size).held)
    assert refused.value.retry_after_s == 1.0
    callers[0].lives = False  # its place is free
    assert gate.hold(ModelSpec("a"), Caller(size).held)
    gate.settle("a")
    assert callers[1].over.wait(TIMEOUT)
    assert callers[0].ran_on is None


def test_a_stop_refuses_what_is_held(gate):
    caller = Caller()
    gate.expect(["a"])
    assert gate.hold(ModelSpec("a"), caller.held)
    gate.stop()
    assert caller.error.code is Code.UNAVAILABLE
    assert gate.over


def test_it_can_be_switched_off():
    off = FirstCalls(OneReady(), LIMITS, enabled=False)
    off.expect(["a"])
    assert off.over
    assert not off.hold(ModelSpec("a"), Caller().held)


def test_a_call_that_fails_keeps_no_other_waiting(gate):
    def fault():
        raise RuntimeError("a fault of ours")

    gate.expect(["a"])
    caller = Caller()
    assert gate.hold(ModelSpec("a"), HeldCall(1, lambda: True, fault, lambda error: None))
    assert gate.hold(ModelSpec("a"), caller.held)
    gate.settle("a")
    assert caller.over.wait(TIMEOUT)
