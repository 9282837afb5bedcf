"""The guard around other people's servables: what it keeps, for how long, and on which thread."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref

import numpy as np
import pytest

from servingd.core.call_protocols import Completion
from servingd.core.lifecycle.events import Estimated
from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.types import ServableId, VersionData
from servingd.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from servingd.servables.guarding.guard import GuardedServable
from servingd.servables.guarding.loading import GuardedLoader
from servingd.servables.plugin import Loader, Platform, Servable, signature
from servingd.servables.registry import Platforms
from servingd.supervisor.link.messages import decode, encode
from tests.threads.fakes import TIMEOUT, RecordingCompletion

SIGNATURES = {
    "serving_default": signature(inputs={"x": ("FLOAT", None)}, outputs={"y": ("FLOAT", None)})
}
X = {"x": np.ones(1, np.float32)}


class Base(Servable):
    signatures = SIGNATURES


@pytest.fixture
def guard():
    made: list[GuardedServable] = []

    def guarded(servable: Servable) -> GuardedServable:
        made.append(GuardedServable(ServableId("m", 1), servable, {}))
        return made[-1]

    yield guarded
    for each in made:
        each.end()


def ask(guarded: GuardedServable) -> RecordingCompletion:
    told = RecordingCompletion()
    guarded.run(SIGNATURES["serving_default"], X, told)
    return told


def test_a_time_limit_keeps_no_call_that_is_over(guard):
    class Echo(Base):
        time_limit_s = 60.0

        def predict(self, signature, inputs):
            return {"y": inputs["x"]}

    guarded = guard(Echo())
    told = ask(guarded)
    assert len(told.outcomes) == 1
    kept = weakref.ref(told)
    del told
    until = time.monotonic() + TIMEOUT
    while kept() is not None and time.monotonic() < until:
        time.sleep(0.001)
    assert kept() is None


class Hangs(Base):
    """Keeps every call."""

    def __init__(self) -> None:
        self.calls: list[Completion] = []

    def run(self, signature, inputs, done):
        self.calls.append(done)


def test_a_call_that_comes_after_the_end_of_all_is_refused(guard):
    guarded = guard(Hangs())
    guarded.end_runs()
    refused = ask(guarded)
    assert isinstance(refused.outcome, Unavailable)
    assert guarded.guarded.calls == []


def test_what_is_loaded_during_the_stop_runs_nothing():
    platforms = Platforms(plugins=[f"{__name__}:HangingPlatform"])
    loader = platforms.loader(ServableId("m", 1), VersionData("", "hanging"))
    platforms.stop()
    assert isinstance(ask(loader.load()).outcome, Unavailable)


class HangingPlatform(Platform):
    name = "hanging"

    @classmethod
    def load(cls, version):
        return Hangs()


def test_an_asynchronous_generator_has_a_time_limit_as_well(guard):
    class Slow(Base):
        time_limit_s = 0.01

        def __init__(self) -> None:
            self.may_go_on = threading.Event()

        async def predict(self, signature, inputs):
            while not self.may_go_on.is_set():
                await asyncio.sleep(0.001)
            yield {"y": inputs["x"]}

    guarded = guard(Slow())
    told = RecordingCompletion()
    call = threading.Thread(
        target=guarded.run, args=(SIGNATURES["serving_default"], X, told), daemon=True
    )
    call.start()
    came = told.done.wait(1.0)
    guarded.guarded.may_go_on.set()
    call.join(TIMEOUT)
    assert came
    assert isinstance(told.outcome, DeadlineExceeded)


def test_an_exit_in_an_event_loop_ends_its_call_alone(guard):
    class Exits(Base):
        exits = True

        async def predict(self, signature, inputs):
            if self.exits:
                raise SystemExit(3)
            yield {"y": inputs["x"]}

    guarded = guard(Exits())
    assert "SystemExit: 3" in str(ask(guarded).outcome)
    guarded.guarded.exits = False
    assert ask(guarded).outcome["y"].tolist() == [1]


def test_what_lets_go_of_a_call_does_not_complete_it_itself(guard):
    lock = threading.Lock()

    class Locked(RecordingCompletion):
        def fail(self, error) -> None:
            with lock:
                super().fail(error)

    guarded, told = guard(Hangs()), Locked()
    call = threading.Thread(
        target=guarded.run, args=(SIGNATURES["serving_default"], X, told), daemon=True
    )

    def let_go() -> None:
        while not guarded.guarded.calls:
            time.sleep(0.001)
        with lock:  # as a collection of garbage may find a thread
            guarded.guarded.calls.clear()

    collector = threading.Thread(target=let_go, daemon=True)
    for thread in (call, collector):
        thread.start()
    collector.join(1.0)
    assert not collector.is_alive()
    assert "did not complete the call" in str(told.outcome)


def test_what_it_says_of_its_signatures_is_asked_once_at_the_load(guard):
    class Asked(Base):
        asked = 0

        def rows_worth_merging(self, signature):
            self.asked += 1
            return 8

    guarded = guard(Asked())
    assert [guarded.rows_worth_merging("serving_default") for _ in range(3)] == [8, 8, 8]
    assert guarded.guarded.asked == 1


@pytest.mark.parametrize("said", [None, "many", float("nan"), -3])
def test_a_number_of_rows_that_is_none_merges_nothing(guard, said):
    class Lies(Base):
        def rows_worth_merging(self, signature):
            return said

    assert guard(Lies()).rows_worth_merging("serving_default") == 0


class HangingLoader(Loader):
    """Hangs where it is told something."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.may_return = threading.Event()

    def cancel(self):
        self.told.set()
        self.may_return.wait(TIMEOUT)

    grow = cancel


@pytest.mark.parametrize("command", ["cancel", "grow"])
def test_what_commands_a_loader_does_not_wait_for_it(command):
    loader = HangingLoader()
    guarded = GuardedLoader(ServableId("m", 1), loader, {})
    commanding = threading.Thread(target=getattr(guarded, command), daemon=True)
    commanding.start()
    commanding.join(1.0)
    hung = commanding.is_alive()
    assert loader.told.wait(TIMEOUT)
    loader.may_return.set()
    assert not hung


def estimated(steady: object) -> Estimate:
    class Estimates(Loader):
        def estimate(self):
            return Estimate(steady=steady, on_devices=True)

    return GuardedLoader(ServableId("m", 1), Estimates(), {}).estimate()


@pytest.mark.parametrize("size", [1.5, np.int64(2), np.float32(1.5)])
def test_an_estimate_is_whole_bytes_that_can_be_sent(size):
    event = Estimated(ServableId("m", 1), estimated(Footprint(size, size)), {})
    assert decode(encode(event)).estimate == Estimate(steady=Footprint(2, 2), on_devices=True)


@pytest.mark.parametrize("steady", [None, 5, Footprint("x"), Footprint(float("nan"))])
def test_an_estimate_that_is_none_is_said_to_be(steady):
    with pytest.raises(FailedPrecondition, match="expected an Estimate in bytes"):
        estimated(steady)
