"""Calls that a transport read together are queued together."""

from __future__ import annotations

import threading

import pytest

from servingd.core.batching.refusal import AdmissionLimits
from servingd.core.types import ServableId
from servingd.errors import ResourceExhausted, Unavailable
from servingd.runtime.batching.dispatcher import Dispatcher
from servingd.runtime.batching.gathering import Gathering
from servingd.runtime.batching.options import DispatchOptions
from tests.threads.fakes import FakeServable, RecordingCompletion, inputs


@pytest.fixture
def opened():
    """Open one runner per servable, none of whose calls run inline: `opened(*servables)`."""
    made = []

    def begin(*servables, **options):
        dispatcher = Dispatcher(DispatchOptions(inline_below_s=0.0, **options))
        made.append((dispatcher, servables))
        ids = [ServableId(f"m{i}", 1) for i in range(len(servables))]
        runners = [
            dispatcher.open(servable_id, servable)["serving_default"]
            for servable_id, servable in zip(ids, servables, strict=True)
        ]
        return dispatcher, runners

    yield begin
    for dispatcher, servables in made:
        for i, servable in enumerate(servables):
            servable.may_run.set()
            dispatcher.close(ServableId(f"m{i}", 1))


def merging():
    servable = FakeServable()
    servable.rows_worth = 64
    return servable


def patient(dispatcher):
    """A gathering of this thread that waits for `flush`, however slow the machine is."""
    gathering = dispatcher.gatherings[threading.get_ident()] = Gathering(together_s=3600.0)
    return gathering


def call(runner, rows=1):
    done = RecordingCompletion()
    runner.run(inputs(rows), done)
    return done


def test_calls_are_queued_by_flush_and_those_of_one_signature_run_as_one_batch(opened):
    servables = merging(), merging()
    dispatcher, (a, b) = opened(*servables)
    gathering = patient(dispatcher)
    calls = [call(runner, rows) for rows in (1, 2, 3) for runner in (a, b)]
    assert not any(done.done.is_set() for done in calls)
    assert not servables[0].ran_on
    gathering.flush()
    for done, rows in zip(calls, (1, 1, 2, 2, 3, 3), strict=True):
        assert done.outcome["y"].tolist() == [1] * rows
    assert [len(s.ran_on) for s in servables] == [1, 1]


def test_a_call_is_not_held_for_long(opened):
    servable = merging()
    dispatcher, (runner,) = opened(servable)
    dispatcher.gatherings[threading.get_ident()] = Gathering(together_s=0.0)
    assert call(runner).outcome  # though nobody flushes


def test_whoever_is_to_flush_is_told_of_the_first_call_alone(opened):
    dispatcher, (runner,) = opened(merging())
    told = []
    gathering = Gathering(lambda: told.append(1), together_s=3600.0)
    dispatcher.gatherings[threading.get_ident()] = gathering
    for _ in range(2):
        calls = [call(runner) for _ in range(3)]
        gathering.flush()
        assert all(done.outcome for done in calls)
    assert len(told) == 2


def test_other_threads_and_a_thread_that_has_closed_its_gathering_queue_at_once(opened):
    dispatcher, (runner,) = opened(merging())
    patient(dispatcher)
    others = []
    thread = threading.Thread(target=lambda: others.append(call(runner)))
    thread.start()
    thread.join()
    assert others[0].outcome
    waiting = call(runner)
    dispatcher.gatherings.close()
    assert waiting.outcome
    assert call(runner).outcome


def test_a_call_that_is_refused_fails_and_the_others_run(opened):
    servable = FakeServable()
    servable.may_run.clear()
    dispatcher, (runner,) = opened(servable, workers=1, limits=AdmissionLimits(max_bytes=64))
    gathering = patient(dispatcher)
    calls = [call(runner, rows) for rows in (1, 100, 1)]
    gathering.flush()
    assert isinstance(calls[1].outcome, (ResourceExhausted, Unavailable))
    servable.may_run.set()
    assert calls[0].outcome["y"].tolist() == [1]
    assert calls[2].outcome["y"].tolist() == [1]


def test_calls_gathered_when_the_queue_closes_fail(opened):
    dispatcher, (runner,) = opened(FakeServable())
    gathering = patient(dispatcher)
    waiting = call(runner)
    dispatcher.close(ServableId("m0", 1))
    gathering.flush()
    assert isinstance(waiting.outcome, Unavailable)


def test_a_call_that_a_refused_one_leads_to_is_queued_by_the_same_flush(opened):
    """As the next replica of a shard is asked."""
    full, other = merging(), merging()
    dispatcher, (refuses, takes) = opened(full, other)
    gathering = patient(dispatcher)
    dispatcher.close(ServableId("m0", 1))
    second = RecordingCompletion()

    class First(RecordingCompletion):
        def fail(self, error) -> None:
            takes.run(inputs(1), second)

    refuses.run(inputs(1), First())
    gathering.flush()
    assert second.outcome["y"].tolist() == [1]
