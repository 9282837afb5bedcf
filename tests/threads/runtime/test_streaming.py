"""Streams: who takes their steps, when they wait, and how they end. Real threads, fake readers."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from servingd.core.batching.queue import Priority
from servingd.core.callbacks import nothing
from servingd.core.types import DataType, ModelSpec, ServableId, Signature, TensorSpec
from servingd.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from servingd.runtime.streaming.pool import StepPool
from servingd.runtime.streaming.streams import _THREADS
from tests.threads.fakes import TIMEOUT, FakeServable, inputs
from tests.threads.streams import M1, Generator, Serving


class Reader:
    """Takes parts: as many as it has asked for."""

    deadline = None
    output_filter = ()

    def __init__(self, wants=10**9, handle=None):
        self.changed = threading.Condition()
        self.wants, self.lives, self.handle = wants, True, handle
        self.got, self.outcome, self.closed = [], None, False
        self.wake = nothing

    def priority(self):
        return Priority.NORMAL

    def alive(self):
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return self.lives and self.outcome is None and not late

    def wants_part(self):
        return self.wants > 0

    def watch(self, wake):
        self.wake = wake

    def part(self, outputs):
        with self.changed:
            assert self.outcome is None, "a part after the end"
            self.wants -= 1
            self.got.append(outputs["y"].tolist())
            self.changed.notify_all()

    def end(self):
        self._end("ended")

    def fail(self, error):
        self._end(error)

    def _end(self, outcome):
        with self.changed:
            self.outcome = self.outcome or outcome
            self.changed.notify_all()

    def close(self):
        with self.changed:
            assert not self.closed, "closed twice"
            self.closed = True
            if self.handle:
                self.handle.release()
            self.changed.notify_all()

    def until(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, TIMEOUT), (self.got, self.outcome)

    def until_closed(self):
        self.until(lambda: self.closed)
        return self.outcome

    def take(self, count):
        """Read `count` more parts."""
        with self.changed:
            self.wants += count
        self.wake()


def start(serving, reader=None, name="serving_default", model="m"):
    handle = serving.map.acquire(ModelSpec(model))
    reader = reader or Reader()
    reader.handle = handle
    try:
        handle.streams.get(name).run(inputs(), reader)
    except BaseException:
        handle.release()
        raise
    return reader


@pytest.fixture
def serving():
    return Serving()


def test_parts_come_in_order_and_then_the_end(serving):
    servable = serving.publish(Generator(end=5))
    reader = start(serving)
    assert reader.until_closed() == "ended"
    assert reader.got == [[1.0], [2.0], [3.0], [4.0], [5.0]]
    assert servable.closed_streams == 1
    assert serving.open.count("m") == 0


def test_an_answer_without_parts_ends_as_well(serving):
    serving.publish(Generator(end=0))
    assert start(serving).until_closed() == "ended"


def test_a_signature_that_does_not_stream_is_answered_by_one_part(serving):
    serving.publish(Generator())
    reader = start(serving, name="whole")
    assert reader.until_closed() == "ended"
    assert reader.got == [[1.0]]


def test_no_step_is_taken_that_the_reader_does_not_want(serving):
    servable = serving.publish(Generator())
    reader = start(serving, Reader(wants=3))
    reader.until(lambda: len(reader.got) == 3)
    other = start(serving)  # the pool goes on
    other.until(lambda: len(other.got) >= 50)
    assert len(reader.got) == 3
    reader.take(2)
    reader.until(lambda: len(reader.got) == 5)
    for one in (reader, other):
        one.lives = False
        one.wake()
        assert isinstance(one.until_closed(), Cancelled)
    assert servable.closed_streams == 2


def test_wake_ups_are_never_lost(serving):
    """The reader asks for one part after the other, as fast as it can."""
    serving.publish(Generator(end=2000))
    reader = start(serving, Reader(wants=1))
    for number in range(2000):
        reader.until(lambda n=number: len(reader.got) > n)
        reader.take(1)
    assert reader.until_closed() == "ended"


def test_a_reader_that_has_gone_stops_the_generator_within_one_step(serving):
    servable = serving.publish(Generator())
    reader = Reader()
    servable.body = lambda number: number == 7 and setattr(reader, "lives", False)
    start(serving, reader)
    assert isinstance(reader.until_closed(), Cancelled)
    assert servable.steps == 8, "the step in which it left, and no other"
    assert servable.closed_streams == 1


def test_a_deadline_holds_for_the_whole_answer(serving):
    servable = serving.publish(Generator())
    reader = Reader()
    servable.body = lambda number: number == 7 and setattr(reader, "deadline", time.monotonic())
    start(serving, reader)
    assert isinstance(reader.until_closed(), DeadlineExceeded)
    assert servable.steps == 8


@pytest.mark.parametrize(
    ("trouble", "kind"), [(InvalidArgument("no"), InvalidArgument), (SystemExit("bye"), Internal)]
)
def test_a_generator_that_fails_ends_its_stream_only(serving, trouble, kind):
    def fail(number):
        if number == 2:
            raise trouble

    serving.publish(Generator(fail))
    reader = start(serving)
    assert isinstance(reader.until_closed(), kind)
    assert reader.got == [[1.0], [2.0]]
    assert start(serving, name="whole").until_closed() == "ended"


def test_a_part_that_cannot_be_sent_fails_the_stream(serving):
    servable = serving.publish(Generator())
    reader = Reader()
    reader.part = lambda outputs: outputs["no such output"]
    start(serving, reader)
    assert isinstance(reader.until_closed(), Internal)
    assert servable.closed_streams == 1


def test_a_generator_that_fails_while_it_is_closed_does_no_harm(serving):
    class Bad(Generator):
        def stream(self, signature, inputs):
            try:
                yield {"y": inputs["x"]}
            finally:
                raise RuntimeError("boom")

    serving.publish(Bad())
    reader = start(serving, Reader(wants=1))
    reader.until(lambda: reader.got)
    reader.lives = False
    reader.wake()
    assert isinstance(reader.until_closed(), Cancelled)
    assert serving.open.count("m") == 0


def test_steps_that_hang_harm_their_own_model_only(serving):
    hanging = serving.publish(Generator(), ServableId("hanging", 1))
    hanging.may_step.clear()
    stuck = [start(serving, model="hanging") for _ in range(2 * _THREADS)]
    threads = [t for t in threading.enumerate() if t.name.startswith("stream-hanging")]
    assert len(threads) == _THREADS
    serving.publish(Generator(end=3))
    assert start(serving).until_closed() == "ended"
    hanging.may_step.set()
    for reader in stuck:
        reader.lives = False
        reader.wake()
        reader.until_closed()
    assert hanging.closed_streams <= 2 * _THREADS  # those that had begun


def test_so_many_streams_of_a_model_and_no_more():
    serving = Serving(most=2)
    serving.publish(Generator())
    serving.publish(Generator(end=1), ServableId("other", 1))
    readers = [start(serving, Reader(wants=1)) for _ in range(2)]
    with pytest.raises(ResourceExhausted, match="2 streams of model m are open already") as refused:
        start(serving)
    assert refused.value.retry_after_s
    assert start(serving, model="other").until_closed() == "ended"
    readers[0].lives = False
    readers[0].wake()
    readers[0].until_closed()
    last = start(serving, Reader(wants=1))
    last.until(lambda: last.got)
    assert serving.open.count("m") == 2


def test_a_client_that_ends_one_answer_has_room_for_the_next():
    serving = Serving(most=1)
    serving.publish(Generator(end=1))
    for _ in range(200):
        reader = start(serving)
        reader.until(lambda reader=reader: reader.outcome == "ended")


def test_all_streams_can_be_ended_even_if_one_hangs(serving):
    servable = serving.publish(Generator())
    idle = start(serving, Reader(wants=1))
    idle.until(lambda: idle.got)
    servable.may_step.clear()
    servable.stepping.clear()
    hangs = start(serving)
    assert servable.stepping.wait(TIMEOUT)
    assert serving.open.end_all(Unavailable("over")) == 2
    assert isinstance(idle.until_closed(), Unavailable)
    assert isinstance(hangs.outcome, Unavailable), "told at once"
    assert not hangs.closed, "the version is kept while its step is under way"
    with pytest.raises(Unavailable, match="over"):
        start(serving)
    servable.may_step.set()
    hangs.until_closed()


def test_a_stream_keeps_its_version_until_its_generator_is_closed(serving):
    servable = serving.publish(Generator())
    reader = start(serving, Reader(wants=1))
    reader.until(lambda: reader.got)
    serving.map.withdraw(M1)
    assert not serving.drained.is_set()
    reader.take(3)
    reader.until(lambda: len(reader.got) == 4)
    reader.lives = False
    reader.wake()
    assert serving.drained.wait(TIMEOUT)
    assert servable.closed_streams == 1


def test_one_that_nobody_reads_is_ended_and_one_that_waits_for_its_model_is_not():
    serving = Serving(stall_s=0.2)
    slow = serving.publish(Generator(), ServableId("slow", 1))
    slow.may_step.clear()
    waits = start(serving, model="slow")
    serving.publish(Generator())
    unread = start(serving, Reader(wants=1))
    read = start(serving, Reader(wants=1))
    while not unread.closed:
        read.take(1)
        time.sleep(0.001)
    assert isinstance(unread.outcome, Cancelled)
    assert unread.outcome.message == "nothing was read for 0.2 s"
    assert read.outcome is None
    assert waits.outcome is None
    slow.may_step.set()
    for reader in (waits, read):
        reader.lives = False
        reader.wake()
        reader.until_closed()
    deadline = time.monotonic() + TIMEOUT
    while serving.open._watched:  # there is nothing to watch: the thread ends
        assert time.monotonic() < deadline
        time.sleep(0.001)


# Pairs ------------------------------------------------------------------------------------------

INT = TensorSpec(DataType.INT32, (None,))
FLAG = TensorSpec(DataType.BOOL, (None,))


class Pair(FakeServable):
    """`init`: x; `step`: x to x + 1, up to 3. Row by row."""

    def __init__(self, first_part=False):
        super().__init__()
        more = {"y": INT} if first_part else {}
        self.first_part = first_part
        self.signatures = self.metadata = {
            "init": Signature("init", {"x": INT}, {"at": INT, **more}),
            "step": Signature("step", {"at": INT}, {"at": INT, "y": INT, "stop": FLAG}),
        }
        self.rows_worth = 64
        self.rows = []  # of each run of `step`

    def run(self, signature, inputs, done):
        if signature.name == "init":
            x = inputs["x"].astype(np.int32)
            done.succeed({"at": x, "y": x} if self.first_part else {"at": x})
            return
        at = inputs["at"] + 1
        self.rows.append(len(at))
        self.running.set()
        assert self.may_run.wait(TIMEOUT)
        done.succeed({"at": at, "y": at, "stop": at >= 3})


@pytest.mark.parametrize(("first_part", "expected"), [(True, [[1], [2], [3]]), (False, [[2], [3]])])
def test_a_pair_is_streamed_until_its_flag(serving, first_part, expected):
    serving.publish(Pair(first_part))
    reader = start(serving, name="generate")
    assert reader.until_closed() == "ended"
    assert reader.got == expected


def test_a_step_that_fails_is_the_end(serving):
    class Failing(Pair):
        def run(self, signature, inputs, done):
            if signature.name == "step" and inputs["at"][0] == 2:
                raise InvalidArgument("two is too many")
            super().run(signature, inputs, done)

    serving.publish(Failing())
    reader = start(serving, name="generate")
    assert isinstance(reader.until_closed(), InvalidArgument)
    assert reader.got == [[2]]


def test_steps_of_several_streams_run_together_and_hold_no_thread():
    serving = Serving(inline_below_s=0.0, workers=1)
    pair = serving.publish(Pair())
    pair.may_run.clear()
    readers = [start(serving, name="generate") for _ in range(3 * _THREADS)]
    assert pair.running.wait(TIMEOUT)
    runner = serving.map.acquire(ModelSpec("m")).runners["step"]
    deadline = time.monotonic() + TIMEOUT
    while runner.stats.waiting_rows + sum(pair.rows) < len(readers):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    pair.may_run.set()
    assert [reader.until_closed() for reader in readers] == ["ended"] * len(readers)
    assert all(reader.got == [[2], [3]] for reader in readers)
    assert max(pair.rows) > _THREADS, "more than there are threads"
    assert sum(pair.rows) == 2 * len(readers)


# The pool ---------------------------------------------------------------------------------------


def test_threads_end_when_there_is_nothing_to_do_and_come_back():
    pool = StepPool("idle", 4, idle_s=0.0)
    for _ in range(20):
        ran = threading.Event()
        pool.submit(ran.set)
        assert ran.wait(TIMEOUT)
    for thread in [t for t in threading.enumerate() if t.name.startswith("idle-")]:
        thread.join(TIMEOUT)
    assert pool._threads == 0


def test_a_job_that_fails_ends_no_thread_and_close_runs_what_was_submitted():
    pool, order = StepPool("failing", 1), []
    gate = threading.Event()
    pool.submit(lambda: gate.wait(TIMEOUT) and None)
    pool.submit(lambda: 1 / 0)
    done = threading.Event()
    pool.submit(lambda: order.append(1))
    pool.submit(done.set)
    pool.close()
    gate.set()
    assert done.wait(TIMEOUT)
    assert order == [1]
