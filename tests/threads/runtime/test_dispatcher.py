"""Where calls run: in the caller's thread, or from their signature's queue."""

import threading
import time
import weakref

import numpy as np
import pytest

from servingd.core.batching.batch_limits import BatchRules
from servingd.core.batching.refusal import AdmissionLimits
from servingd.core.servable import RuledBatching
from servingd.core.types import ServableId
from servingd.errors import (
    Code,
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from servingd.runtime.batching.dispatcher import Dispatcher
from servingd.runtime.batching.options import DispatchOptions, ModelBatching
from tests.threads.fakes import TIMEOUT, FakeServable, RecordingCompletion, inputs

M1 = ServableId("m", 1)
NEVER_INLINE = 0.0
ALWAYS_CHEAP = 10.0


@pytest.fixture
def opened():
    """Open a runner to a servable: `opened(servable, **options)`."""
    opened = []

    def open_lane(servable, name="serving_default", **options):
        dispatcher = Dispatcher(DispatchOptions(**options))
        opened.append((dispatcher, servable))
        return dispatcher.open(M1, servable)[name]

    yield open_lane
    for dispatcher, servable in opened:
        servable.may_run.set()
        dispatcher.close(M1)


def call(runner, size=1, completion=None):
    """Start a call; its completion."""
    done = completion or RecordingCompletion()
    runner.run(inputs(size), done)
    return done


def call_and_wait(runner, size=1):
    return call(runner, size).outcome


def runs_here(runner, servable, size=1):
    """Whether one more call runs in this thread."""
    call_and_wait(runner, size)
    return servable.ran_on[-1] is threading.current_thread()


def become_cheap(runner, servable, size=1):
    """Call until calls of a size run here. A call that the machine holds up only delays that."""
    assert any(runs_here(runner, servable, size) for _ in range(500))


def test_while_an_inline_run_is_stuck_no_other_call_runs_inline():
    """Else who stands in for a transport's blocked thread gets stuck too."""
    dispatcher = Dispatcher(DispatchOptions(inline_below_s=ALWAYS_CHEAP))
    servables = [FakeServable(), FakeServable()]
    slow, quick = (
        dispatcher.open(ServableId(name, 1), servable)["serving_default"]
        for name, servable in zip("ab", servables, strict=True)
    )
    for runner, servable in zip((slow, quick), servables, strict=True):
        become_cheap(runner, servable)
    servables[0].may_run.clear()
    stuck = threading.Thread(target=call, args=(slow,))
    stuck.start()
    assert wait_for(lambda: servables[0].ran_on[-1] is stuck)
    assert wait_for(lambda: not runs_here(quick, servables[1]))
    assert not any(runs_here(quick, servables[1]) for _ in range(10))
    waiting = call(slow)  # returns at once: it is queued
    servables[0].may_run.set()
    stuck.join(TIMEOUT)
    assert waiting.outcome
    become_cheap(quick, servables[1])
    for name in "ab":
        dispatcher.close(ServableId(name, 1))


def wait_for(condition):
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return found


def refuse(inputs, done):
    raise InvalidArgument("not like this")


def crash(inputs, done):
    raise ValueError("boom")


def test_the_first_call_of_a_size_runs_from_the_queue(opened):
    servable = FakeServable()
    runner = opened(servable, inline_below_s=ALWAYS_CHEAP)
    outputs = call_and_wait(runner, 3)
    assert outputs["y"].tolist() == [1, 1, 1]
    assert servable.ran_on[0].name.startswith("run m:1/serving_default")


def test_a_cheap_call_runs_in_the_callers_thread_afterwards(opened):
    servable = FakeServable()
    runner = opened(servable, inline_below_s=ALWAYS_CHEAP, workers=1)
    become_cheap(runner, servable)
    done = call(runner)
    if servable.ran_on[-1] is threading.current_thread():
        assert done.done.is_set()  # nothing is left to wait for


def test_each_size_is_measured_by_itself(opened):
    servable = FakeServable()
    runner = opened(servable, inline_below_s=ALWAYS_CHEAP, workers=1)
    become_cheap(runner, servable, size=1)
    assert not runs_here(runner, servable, size=1000)
    become_cheap(runner, servable, size=1000)


def test_each_signature_is_measured_by_itself(opened):
    servable = FakeServable("one", "two")
    dispatcher = Dispatcher(DispatchOptions(inline_below_s=ALWAYS_CHEAP, workers=1))
    runners = dispatcher.open(M1, servable)
    become_cheap(runners["one"], servable)
    assert not runs_here(runners["two"], servable)
    dispatcher.close(M1)


def test_a_slow_signature_never_runs_in_the_callers_thread(opened):
    def slow(inputs, done):
        threading.Event().wait(0.005)
        done.succeed(inputs)

    servable = FakeServable(body=slow)
    runner = opened(servable, inline_below_s=0.001)
    for _ in range(8):
        assert not runs_here(runner, servable)


def test_a_full_queue_refuses_and_names_itself(opened):
    servable = FakeServable()
    servable.may_run.clear()
    runner = opened(servable, limits=AdmissionLimits(max_calls=2), workers=1)
    running = call(runner)
    assert servable.running.wait(TIMEOUT)
    waiting = [call(runner), call(runner)]
    refused = RecordingCompletion()
    full = r"queue of m:1/serving_default is full \(2 waiting, 2 rows, 0 MiB\)"
    with pytest.raises(Unavailable, match=full):
        call(runner, completion=refused)
    servable.may_run.set()
    for done in (running, *waiting):
        assert done.outcome.keys() == {"y"}
    assert refused.outcomes == []
    assert len(servable.ran_on) == 3


def test_a_queue_is_full_in_bytes_too_and_texts_count(opened):
    servable = FakeServable()
    servable.may_run.clear()
    runner = opened(servable, limits=AdmissionLimits(max_bytes=10_000), workers=1)
    running = call(runner)
    assert servable.running.wait(TIMEOUT)
    waiting = call(runner, size=1000)
    texts = np.array([b"x" * 5000], object)
    with pytest.raises(Unavailable, match="queue of m:1/serving_default is full"):
        runner.run({"x": texts}, RecordingCompletion())
    servable.may_run.set()
    for done in (running, waiting):
        assert done.outcome.keys() == {"y"}
    call_and_wait(runner, size=5000)  # what has left counts no more; and alone, it may have as much


def test_calls_that_nobody_waits_for_are_dropped_before_others_are_refused(opened):
    servable = FakeServable()
    servable.may_run.clear()
    runner = opened(servable, limits=AdmissionLimits(max_calls=2), workers=1)
    running = call(runner)
    assert servable.running.wait(TIMEOUT)
    dead, waiting = call(runner), call(runner)
    dead.lives = False
    new = call(runner)
    assert dead.outcome.code is Code.DEADLINE_EXCEEDED  # at once, not when its turn comes
    with pytest.raises(Unavailable):
        call(runner)
    assert (runner.stats.dropped, dict(runner.stats.refused)) == (1, {"UNAVAILABLE": 1})
    servable.may_run.set()
    for done in (running, waiting, new):
        assert done.outcome.keys() == {"y"}
    assert len(servable.ran_on) == 3


def test_a_queue_that_is_full_by_rule_is_looked_through_as_well(opened):
    servable = FakeServable()
    servable.may_run.clear()
    rules = BatchRules(max_request_rows=1, max_batch_rows=1, max_enqueued_batches=1)
    servable.ruled_batching = RuledBatching(rules=rules, hold_s=0.0, threads=1)
    runner = opened(servable)
    running = call(runner)
    assert servable.running.wait(TIMEOUT)
    dead = call(runner)
    with pytest.raises(Unavailable, match="currently 1 batches enqueued"):
        call(runner)
    assert runner.stats.refused == {"UNAVAILABLE": 1}
    runner._batcher._next_scan = 0.0  # as if a while had passed
    dead.lives = False
    new = call(runner)
    servable.may_run.set()
    for done in (running, new):
        assert done.outcome.keys() == {"y"}
    assert dead.outcome.code is Code.DEADLINE_EXCEEDED


def test_a_call_whose_time_is_up_is_told_so_and_not_that_it_is_refused(opened):
    servable = FakeServable()
    servable.may_run.clear()
    runner = opened(servable, inline_below_s=NEVER_INLINE, workers=1)
    running = call(runner)
    assert servable.running.wait(TIMEOUT)
    waiting = call(runner)
    with pytest.raises(DeadlineExceeded):
        call(runner, completion=RecordingCompletion(deadline=1.0))
    servable.may_run.set()
    assert running.outcome.keys() == waiting.outcome.keys() == {"y"}
    assert (runner.stats.dropped, dict(runner.stats.refused)) == (1, {})


def test_one_full_queue_blocks_no_other_signature():
    servable = FakeServable("one", "two")
    servable.may_run.clear()
    dispatcher = Dispatcher(DispatchOptions(limits=AdmissionLimits(max_calls=1), workers=1))
    runners = dispatcher.open(M1, servable)
    first = call(runners["one"])
    assert servable.running.wait(TIMEOUT)
    second = call(runners["one"])
    other = call(runners["two"])
    servable.may_run.set()
    for done in (first, second, other):
        assert done.outcome.keys() == {"y"}
    dispatcher.close(M1)


def test_a_call_that_nobody_waits_for_is_never_run_and_fails(opened):
    servable = FakeServable()
    servable.may_run.clear()
    runner = opened(servable, inline_below_s=NEVER_INLINE, workers=1)
    running = call(runner)
    assert servable.running.wait(TIMEOUT)
    dead, alive = call(runner), call(runner)
    dead.lives = False  # cancelled, or its deadline has passed, while it waits
    servable.may_run.set()
    assert dead.outcome.code is Code.DEADLINE_EXCEEDED
    assert alive.outcome.keys() == running.outcome.keys() == {"y"}
    assert len(servable.ran_on) == 2


@pytest.mark.parametrize("merging", ["auto", "always"])
def test_a_call_whose_shape_the_signature_does_not_name_runs_by_itself(opened, merging):
    servable = FakeServable()
    servable.rows_worth = 64
    servable.may_run.clear()
    seen = []

    def note(inputs, done):
        seen.append(inputs["x"].shape)
        done.succeed({"y": inputs["x"]})

    servable._body = note
    runner = opened(servable, workers=1, model=ModelBatching(merging=merging))
    first = call(runner)
    assert servable.running.wait(TIMEOUT)
    waiting = [call(runner), call(runner)]
    for _ in range(2):  # of one shape, and still not merged with each other
        waiting.append(RecordingCompletion())
        runner.run({"x": np.ones((1, 4), np.float32)}, waiting[-1])
    servable.may_run.set()
    for done in (first, *waiting):
        assert done.outcome.keys() == {"y"}
    assert sorted(seen) == [(1,), (1, 4), (1, 4), (2,)]


def test_rules_batch_what_the_signature_does_not_name_with_its_like(opened):
    servable = FakeServable()
    servable.ruled_batching = RuledBatching(
        rules=BatchRules(max_request_rows=8, max_batch_rows=8, max_enqueued_batches=8), hold_s=0.0
    )
    servable.may_run.clear()
    seen = []

    def note(inputs, done):
        seen.append(inputs["x"].shape)
        done.succeed({"y": inputs["x"]})

    servable._body = note
    runner = opened(servable, workers=1)
    calls = [call(runner)]
    assert servable.running.wait(TIMEOUT)
    for shape in ((1,), (1, 4), (1, 4), (1,)):
        calls.append(RecordingCompletion())
        runner.run({"x": np.ones(shape, np.float32)}, calls[-1])
    with pytest.raises(InvalidArgument, match="at least one dimension"):
        runner.run({"x": np.float32(1.0)[()]}, RecordingCompletion())
    servable.may_run.set()
    for done in calls:
        assert done.outcome.keys() == {"y"}
    assert sorted(seen) == [(1,), (2,), (2, 4)]


def test_waiting_calls_run_in_order_of_arrival(opened):
    order = []

    def note(inputs, done):
        order.append(inputs["x"].size)
        done.succeed(inputs)

    servable = FakeServable(body=note)
    servable.may_run.clear()
    runner = opened(servable, inline_below_s=NEVER_INLINE, workers=1)
    waiting = [call(runner, size) for size in range(1, 20)]
    servable.may_run.set()
    for done in waiting:
        assert done.outcome is not None
    assert order == list(range(1, 20))


@pytest.mark.parametrize("inline", [False, True])
def test_an_exception_becomes_an_internal_failure(opened, inline):
    servable = FakeServable(body=crash)
    runner = opened(servable, inline_below_s=ALWAYS_CHEAP if inline else NEVER_INLINE)
    if inline:
        become_cheap(runner, servable)
    error = call_and_wait(runner)
    assert error.code is Code.INTERNAL
    assert error.message == "ValueError: boom"


def test_our_own_error_is_passed_on_as_it_is(opened):
    runner = opened(FakeServable(body=refuse))
    error = call_and_wait(runner)
    assert (error.code, error.message) == (Code.INVALID_ARGUMENT, "not like this")


def test_a_worker_outlives_an_exception(opened):
    servable = FakeServable(body=crash)
    runner = opened(servable, inline_below_s=NEVER_INLINE, workers=1)
    for _ in range(3):
        assert call_and_wait(runner).code is Code.INTERNAL
    assert len(set(servable.ran_on)) == 1
    assert servable.ran_on[0].is_alive()


def test_a_worker_ends_after_a_while_without_work_and_another_is_started(opened):
    servable = FakeServable()
    runner = opened(servable, inline_below_s=NEVER_INLINE, idle_s=0.01, workers=1)
    for _ in range(3):
        assert call_and_wait(runner).keys() == {"y"}
        servable.ran_on[-1].join(TIMEOUT)
        assert not servable.ran_on[-1].is_alive()
    assert len(set(servable.ran_on)) == 3


def test_no_thread_runs_before_the_first_call(opened):
    before = threading.active_count()
    runner = opened(FakeServable(), workers=4)
    assert threading.active_count() == before
    call_and_wait(runner)
    assert threading.active_count() == before + 1


class Meeting:
    """Runs that wait for each other: two of them, and the test."""

    def __init__(self):
        self.begun = False
        self._together = threading.Barrier(3)

    def __call__(self, inputs, done):
        if self.begun:
            self._together.wait(1)
        done.succeed(inputs)

    def takes_place(self, runner):
        """Whether two calls in quick succession run at the same time."""
        self.begun = True
        waiting = [call(runner), call(runner)]
        try:
            self._together.wait(1)
        except threading.BrokenBarrierError:
            return False
        return all(done.outcome.keys() == {"x"} for done in waiting)


def test_two_calls_run_on_two_workers(opened):
    meeting = Meeting()
    runner = opened(FakeServable(body=meeting), inline_below_s=NEVER_INLINE, workers=2)
    assert meeting.takes_place(runner)


def test_two_calls_run_on_two_workers_also_when_one_worker_is_idle(opened):
    meeting = Meeting()
    runner = opened(FakeServable(body=meeting), inline_below_s=NEVER_INLINE, workers=2)
    call_and_wait(runner)  # one worker has been started and waits for more
    assert meeting.takes_place(runner)


def test_close_ends_the_threads_and_takes_no_more_calls():
    servable = FakeServable("one", "two")
    dispatcher = Dispatcher(DispatchOptions(inline_below_s=NEVER_INLINE, idle_s=3600))
    runners = dispatcher.open(M1, servable)
    for runner in runners.values():
        call_and_wait(runner)
    dispatcher.close(M1)
    assert len(set(servable.ran_on)) == 2
    assert not any(thread.is_alive() for thread in servable.ran_on)
    for runner in runners.values():
        with pytest.raises(Unavailable):
            call(runner)


def test_closing_one_servable_ends_no_thread_of_another():
    dispatcher = Dispatcher(DispatchOptions(inline_below_s=NEVER_INLINE))
    old, new, m2 = FakeServable(), FakeServable(), ServableId("m", 2)
    runners = {s: dispatcher.open(s, body)["serving_default"] for s, body in ((M1, old), (m2, new))}
    for runner in runners.values():
        call_and_wait(runner)
    dispatcher.close(M1)
    assert not old.ran_on[0].is_alive()
    assert new.ran_on[0].is_alive()
    assert call_and_wait(runners[m2]).keys() == {"y"}
    dispatcher.close(m2)


def test_closing_what_is_not_open_does_nothing():
    Dispatcher().close(M1)


def test_a_queue_keeps_no_tensors_of_a_call_that_is_over(opened):
    freed = threading.Event()
    runner = opened(
        FakeServable(body=lambda inputs, done: done.succeed({})), inline_below_s=NEVER_INLINE
    )
    array = np.ones(5, np.float32)
    weakref.finalize(array, freed.set)
    done = RecordingCompletion()
    runner.run({"x": array}, done)
    assert done.outcome == {}
    del array
    assert freed.wait(TIMEOUT)


def test_every_call_is_completed_exactly_once_under_load(opened):
    servable = FakeServable()
    runner = opened(servable, inline_below_s=1e-6, limits=AdmissionLimits(max_calls=20_000))
    completions = [[RecordingCompletion() for _ in range(300)] for _ in range(4)]

    def work(mine):
        for done in mine:
            call(runner, completion=done)

    callers = [threading.Thread(target=work, args=(mine,)) for mine in completions]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(TIMEOUT)
    for mine in completions:
        for done in mine:
            assert done.outcome.keys() == {"y"}
    assert len(servable.ran_on) == 1200


# Replicas ---------------------------------------------------------------------------------------


def replicated(replicas, runs_at_once, **fields):
    servable = FakeServable(**fields)
    servable.replicas, servable.runs_at_once = [servable] * replicas, runs_at_once
    servable.may_run.clear()
    return servable


def under_way(servable, count):
    """Wait until so many runs are under way, and see that no more come."""
    deadline = time.monotonic() + TIMEOUT
    while len(servable.ran_on) < count:
        assert time.monotonic() < deadline, servable.ran_on
        time.sleep(0.001)
    time.sleep(0.05)
    return len(servable.ran_on)


@pytest.mark.parametrize(
    ("replicas", "runs_at_once", "expected"),
    [(1, 1, 1), (2, 2, 2), (2, 4, 4), (1, 0, 3), (4, 0, 4)],
)
def test_a_queue_runs_as_many_batches_at_a_time_as_its_replicas_take(
    opened, replicas, runs_at_once, expected
):
    servable = replicated(replicas, runs_at_once)
    runner = opened(servable, inline_below_s=NEVER_INLINE, workers=3)
    calls = [call(runner) for _ in range(6)]
    assert under_way(servable, expected) == expected
    servable.may_run.set()
    assert all(done.outcome for done in calls)


def test_calls_that_could_be_merged_do_not_wait_while_a_replica_is_free(opened):
    servable = replicated(2, 2)
    servable.rows_worth = 8
    runner = opened(servable, inline_below_s=NEVER_INLINE)
    calls = [call(runner)]
    under_way(servable, 1)
    calls.append(call(runner))
    assert under_way(servable, 2) == 2
    calls += [call(runner) for _ in range(3)]
    assert under_way(servable, 2) == 2, "these wait, and leave together"
    servable.may_run.set()
    assert all(done.outcome for done in calls)
    assert len(servable.ran_on) == 3


def test_as_many_threads_as_were_said_or_as_there_are_replicas(opened):
    rules = BatchRules(max_request_rows=8, max_batch_rows=1, max_enqueued_batches=8)
    servable = replicated(2, 2)
    servable.ruled_batching = RuledBatching(rules=rules, hold_s=0.0, threads=3)
    runner = opened(servable)
    calls = [call(runner) for _ in range(5)]
    assert under_way(servable, 3) == 3
    servable.may_run.set()
    assert all(done.outcome for done in calls)


# Queues that lose a thread or a call ------------------------------------------------------------


class Gone(RecordingCompletion):
    """One whose transport has been closed."""

    def succeed(self, outputs):
        super().succeed(outputs)
        raise RuntimeError("front is closed")

    def fail(self, error):
        raise RuntimeError("front is closed")


def leave(inputs, done):
    raise SystemExit(1)


def held(hold_s, rows=100, **more):
    """Rules by which an unfilled batch waits so long."""
    rules = BatchRules(max_request_rows=rows, max_batch_rows=rows, max_enqueued_batches=10)
    return RuledBatching(rules=rules, hold_s=hold_s, **more)


def test_a_held_batch_leaves_although_its_threads_time_without_work_is_up(opened):
    servable = FakeServable()
    servable.ruled_batching = held(0.05)
    runner = opened(servable, idle_s=0.01)
    for _ in range(3):
        assert call_and_wait(runner).keys() == {"y"}
        servable.ran_on[-1].join(TIMEOUT)
        assert not servable.ran_on[-1].is_alive()  # and with nothing to wait for it ends


@pytest.mark.parametrize("rows_worth", [0, 64])
def test_a_completion_that_raises_costs_neither_a_thread_nor_the_calls_beside_it(
    opened, rows_worth
):
    servable = FakeServable()
    servable.rows_worth = rows_worth
    servable.may_run.clear()
    runner = opened(servable, inline_below_s=NEVER_INLINE, workers=1)
    first = call(runner)
    assert servable.running.wait(TIMEOUT)
    gone = call(runner, completion=Gone())
    beside = call(runner)
    servable.may_run.set()
    for done in (first, gone, beside):
        assert done.outcome.keys() == {"y"}
    assert call_and_wait(runner).keys() == {"y"}
    assert len(set(servable.ran_on)) == 1


def test_a_dropped_call_that_cannot_be_told_does_not_cost_the_one_that_took_its_place(
    opened,
):
    servable = FakeServable()
    servable.may_run.clear()
    runner = opened(servable, limits=AdmissionLimits(max_calls=1), workers=1)
    running = call(runner)
    assert servable.running.wait(TIMEOUT)
    call(runner, completion=Gone(lives=False))
    new = call(runner)
    servable.may_run.set()
    for done in (running, new):
        assert done.outcome.keys() == {"y"}


@pytest.mark.parametrize("inline", [False, True])
def test_a_model_that_exits_fails_its_call_and_ends_no_thread(opened, inline):
    servable = FakeServable()
    runner = opened(servable, inline_below_s=ALWAYS_CHEAP if inline else NEVER_INLINE, workers=1)
    if inline:
        become_cheap(runner, servable)
    servable._body = leave
    for _ in range(3):
        error = call_and_wait(runner)
        assert (error.code, error.message) == (Code.INTERNAL, "SystemExit: 1")


def test_a_queue_whose_thread_cannot_start_refuses_and_works_once_it_can(opened, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    runner = opened(FakeServable(), inline_below_s=NEVER_INLINE)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        error = call_and_wait(runner)
    assert error.code is Code.UNAVAILABLE
    assert error.message == "queue of m:1/serving_default has no thread to run it"
    assert call_and_wait(runner).keys() == {"y"}


# Merged runs that fail --------------------------------------------------------------------------


def merged_run_that_fails(opened, error):
    """Two calls whose merged run fails with `error`; what ran before, and where it may go on."""
    servable, sizes = FakeServable(), []

    def body(inputs, done):
        sizes.append(inputs["x"].size)
        if inputs["x"].size == 2:
            for waiting in calls[1:2]:
                waiting.lives = False
            raise error
        done.succeed({"y": inputs["x"]})

    servable._body = body
    servable.rows_worth = 64
    servable.may_run.clear()
    runner = opened(servable, workers=1)
    calls = [call(runner)]
    assert servable.running.wait(TIMEOUT)
    calls += [call(runner), call(runner)]
    servable.may_run.set()
    outcomes = [done.outcome for done in calls]
    return runner, sizes, outcomes[1:]


def test_calls_that_nobody_waits_for_any_more_are_not_run_again(opened):
    runner, sizes, (dead, alive) = merged_run_that_fails(opened, InvalidArgument("spoilt"))
    assert dead.code is Code.DEADLINE_EXCEEDED
    assert alive.keys() == {"y"}
    assert sizes == [1, 2, 1]
    assert runner.stats.dropped == 1


@pytest.mark.parametrize(
    "error", [ResourceExhausted("OOM"), DeadlineExceeded("too long"), Unavailable("leaving")]
)
def test_a_merged_run_that_lacked_memory_or_time_is_not_run_again(opened, error):
    _, sizes, outcomes = merged_run_that_fails(opened, error)
    assert outcomes == [error, error]
    assert sizes == [1, 2]


class NeverHere(FakeServable):
    """Other people's: never run on the caller's thread."""

    runs_inline = False
    concurrency = 0


@pytest.mark.parametrize("allowed", [(), (4,)])
def test_a_call_without_rows_of_what_may_hang_does_not_run_here_either(opened, allowed):
    servable = NeverHere()
    servable.rows_worth = 8
    if allowed:
        rules = BatchRules(max_batch_rows=4, max_request_rows=4, max_enqueued_batches=4)
        servable.ruled_batching = RuledBatching(rules=rules, hold_s=0.0, allowed_rows=allowed)
    outcome = call_and_wait(opened(servable, inline_below_s=ALWAYS_CHEAP), size=0)
    assert outcome["y"].shape == (0,)
    assert servable.ran_on[-1] is not threading.current_thread()
