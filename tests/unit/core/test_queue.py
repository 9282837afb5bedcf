"""When batches leave and what is in them: examples, and random arrivals with a made-up clock."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.batching.batch_limits import BatchLimits, BatchRules
from servingd.core.batching.queue import Batch, BatchQueue, Priority
from servingd.errors import InvalidArgument, ServingError, Unavailable

IDLE = BatchLimits(full_rows=4, may_overlap=False)


def queue(most=4, enqueued=100, splits=False, request=None) -> BatchQueue[str]:
    return BatchQueue(
        BatchRules(
            max_request_rows=request or (100 if splits else most),
            max_batch_rows=most,
            max_enqueued_batches=enqueued,
            splits=splits,
        )
    )


def shown(batch: Batch[str] | None):
    return batch and ([(p.payload, p.start, p.rows) for p in batch.pieces], batch.reason)


def test_what_waits_when_the_last_batch_ends_is_the_next_batch():
    q = queue()
    q.add("a", 1, "k", 0.0)
    assert shown(q.next(0.0, 0, IDLE)) == ([("a", 0, 1)], "idle")
    q.add("b", 1, "k", 0.1)
    q.add("c", 1, "k", 0.2)
    assert q.next(0.3, 1, IDLE) is None
    assert q.wait_s(0.3, 1, IDLE) is None
    assert shown(q.next(0.4, 0, IDLE)) == ([("b", 0, 1), ("c", 0, 1)], "idle")
    assert q.rows == q.calls == 0


def test_a_full_batch_leaves_beside_another():
    q = queue()
    for name in "abcde":
        q.add(name, 1, "k", 0.0)
    assert shown(q.next(0.0, 1, IDLE)) == ([(n, 0, 1) for n in "abcd"], "full")
    assert q.next(0.0, 1, IDLE) is None


def test_with_a_timer_the_oldest_call_decides():
    limits = BatchLimits(full_rows=4, hold_s=0.5, reason="timer")
    q = queue()
    q.add("a", 1, "k", 10.0)
    q.add("b", 1, "k", 10.4)
    assert q.next(10.4, 0, limits) is None
    assert q.wait_s(10.4, 0, limits) == pytest.approx(0.1)
    assert shown(q.next(10.5, 3, limits)) == ([("a", 0, 1), ("b", 0, 1)], "timer")


def test_an_odd_client_harms_nobody():
    q = queue()
    q.add("odd", 1, ("f", (7,)), 0.0)
    q.add("a", 2, ("f", (3,)), 0.1)
    q.add("b", 2, ("f", (3,)), 0.2)
    assert shown(q.next(0.3, 0, IDLE)) == ([("odd", 0, 1)], "idle")
    assert shown(q.next(0.3, 1, IDLE)) == ([("a", 0, 2), ("b", 0, 2)], "full")


def test_who_is_more_important_goes_first():
    q = queue(most=2)
    for name, priority in (("l", Priority.LOW), ("n", Priority.NORMAL), ("h", Priority.HIGH)):
        q.add(name, 1, "k", 0.0, priority)
    assert shown(q.next(0.0, 0, IDLE)) == ([("h", 0, 1), ("n", 0, 1)], "idle")


def test_who_has_gone_takes_no_room():
    q = queue()
    for name in "abcdef":
        q.add(name, 1, "k", 0.0)
    batch = q.next(0.0, 0, IDLE, alive=lambda name: name not in "bc")
    assert shown(batch) == ([(n, 0, 1) for n in "adef"], "full")
    assert batch is not None
    assert batch.dropped == ["b", "c"]


def test_who_has_gone_makes_room_for_others():
    q = queue(most=2, enqueued=2)
    for name in "abcd":
        q.add(name, 1, "k", 0.0, Priority.LOW if name == "b" else Priority.NORMAL)
    with pytest.raises(Unavailable):
        q.add("e", 1, "k", 0.0)
    assert q.drop(lambda name: name not in "bc") == ["c", "b"]
    assert (q.rows, q.calls) == (2, 2)
    q.add("e", 2, "k", 0.0)
    assert shown(q.next(0.0, 0, IDLE)) == ([("a", 0, 1), ("d", 0, 1)], "full")
    assert q.drop(lambda name: False) == ["e"]
    assert q.wait_s(0.0, 0, IDLE) is None
    assert q.drop(lambda name: False) == []


def test_what_has_begun_to_run_is_not_given_up():
    q = queue(most=4, splits=True)
    q.add("a", 6, "k", 0.0)
    q.add("b", 1, "k", 0.0)
    assert shown(q.next(0.0, 0, IDLE)) == ([("a", 0, 4)], "full")
    assert q.drop(lambda name: False) == ["b"]
    assert shown(q.next(0.0, 0, IDLE)) == ([("a", 4, 2)], "idle")


def test_a_large_request_is_split_where_that_is_allowed():
    q = queue(most=4, splits=True)
    q.add("a", 3, "k", 0.0)
    q.add("b", 6, "k", 0.0)
    assert shown(q.next(0.0, 0, IDLE)) == ([("a", 0, 3), ("b", 0, 1)], "full")
    assert shown(q.next(0.0, 0, IDLE)) == ([("b", 1, 4)], "full")
    assert shown(q.next(0.0, 0, IDLE)) == ([("b", 5, 1)], "idle")


def test_a_request_that_is_larger_than_a_batch_leaves_alone_where_it_may_come():
    q = queue(most=4, request=100)
    for name, rows in (("a", 1), ("b", 9), ("c", 2)):
        q.add(name, rows, "k", 0.0)
    assert shown(q.next(0.0, 0, IDLE)) == ([("a", 0, 1)], "full")
    assert shown(q.next(0.0, 0, IDLE)) == ([("b", 0, 9)], "full")
    assert shown(q.next(0.0, 0, IDLE)) == ([("c", 0, 2)], "idle")


def test_tensorflow_servings_texts():
    q = queue(most=10, enqueued=2)
    with pytest.raises(InvalidArgument) as error:
        q.add("a", 11, "k", 0.0)
    assert error.value.message == "Task size 11 is larger than maximum input batch size 10"
    q.add("a", 9, "k", 0.0)
    q.add("b", 9, "k", 0.0)
    with pytest.raises(Unavailable) as full:
        q.add("c", 2, "k", 0.0)
    assert full.value.message == (
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches "
        "enqueued and max_enqueued_batches is 2"
    )
    q.add("d", 1, "k", 0.0)  # there is room in the open batch
    q = queue(most=10, enqueued=2, splits=True)
    q.add("a", 12, "k", 0.0)
    with pytest.raises(Unavailable) as split:
        q.add("b", 9, "k", 0.0)
    assert split.value.message == (
        "The batch scheduling queue to which this task was submitted is full; task size is 9 but "
        "scheduling capacity is only 8 (num_enqueued_batches=2, max_enqueued_batches=2, "
        "open_batch_size=2, max_execution_batch_size=10)"
    )


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(1, 9),
            st.sampled_from("xy"),
            st.sampled_from(list(Priority)),
        ),
        st.tuples(st.just("next"), st.integers(0, 2)),
        st.tuples(st.just("pass"), st.floats(0, 0.3)),
        st.tuples(st.just("go away"), st.integers(2, 4)),
    ),
    max_size=60,
)
all_limits = st.builds(
    BatchLimits,
    full_rows=st.integers(1, 8),
    hold_s=st.sampled_from([0.0, 0.2]),
    may_overlap=st.booleans(),
    most_rows=st.integers(0, 12),
)


class Watched:
    """A queue, and what has gone in and come out."""

    def __init__(self, limits: BatchLimits, splits: bool, most: int) -> None:
        self.limits, self.most = limits, most
        self.queue: BatchQueue[int] = queue(most, 4, splits, request=9 if splits else most)
        self.clock = 0.0
        self.added: list[tuple[int, str, Priority]] = []
        self.ran: dict[int, int] = {}
        self.left: list[int] = []
        self.gone: set[int] = set()

    def add(self, rows: int, kind: str, priority: Priority) -> None:
        with contextlib.suppress(ServingError):
            self.queue.add(len(self.added), rows, kind, self.clock, priority)
            self.added.append((rows, kind, priority))

    def go_away(self, each: int) -> None:
        """Nobody waits any more for one call of so many."""
        dropped = self.queue.drop(lambda number: number % each > 0)
        assert all(number % each == 0 and number not in self.ran for number in dropped)
        self.gone.update(dropped)

    def take(self, running: int) -> bool:
        """Take the next batch and check it; whether there was one."""
        wait = self.queue.wait_s(self.clock, running, self.limits)
        batch = self.queue.next(self.clock, running, self.limits)
        assert (batch is not None) == (wait == 0.0)
        if batch is None:
            return False
        most = min(self.most, max(self.limits.full_rows, self.limits.most_rows))
        alone = len(batch.pieces) == 1 and not self.queue.rules.splits
        assert 0 < batch.rows <= (self.most if alone else most)
        assert batch.rows == sum(piece.rows for piece in batch.pieces)
        assert len({self.added[piece.payload][1] for piece in batch.pieces}) == 1
        if batch.reason != "full":
            assert self.clock >= batch.oldest + self.limits.hold_s
            assert self.limits.may_overlap or running == 0
        for piece in batch.pieces:
            assert piece.start == self.ran.get(piece.payload, 0)
            self.ran[piece.payload] = piece.start + piece.rows
            if piece.start == 0:
                self.left.append(piece.payload)
        return True


@given(steps, all_limits, st.booleans(), st.integers(1, 8))
def test_random_arrivals_are_all_run_once_in_order_within_the_limits(steps, limits, splits, most):
    watched = Watched(limits, splits, most)
    for step in steps:
        match step:
            case ("add", rows, kind, priority):
                watched.add(rows, kind, priority)
            case ("pass", seconds):
                watched.clock += seconds
            case ("go away", each):
                watched.go_away(each)
            case ("next", running):
                watched.take(running)
    watched.clock += 10
    while watched.take(0):
        pass
    expected = {n: rows for n, (rows, _, _) in enumerate(watched.added) if n not in watched.gone}
    assert watched.ran == expected
    assert (watched.queue.rows, watched.queue.calls) == (0, 0)
    assert watched.queue.wait_s(watched.clock, 0, limits) is None
    for kind in "xy":
        for priority in Priority:
            alike = [n for n in watched.left if watched.added[n][1:] == (kind, priority)]
            assert alike == sorted(alike)


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=40))
def test_after_others_have_gone_there_is_room_as_if_they_had_never_come(arrivals):
    q, fresh = queue(4, 5), queue(4, 5)
    stayed = []
    for number, (rows, stays) in enumerate(arrivals):
        with contextlib.suppress(Unavailable):
            q.add(number, rows, "k", float(number))
            stayed += [(number, rows)] if stays else []
    alive = dict(stayed)
    q.drop(alive.__contains__)
    for number, rows in stayed:
        fresh.add(number, rows, "k", float(number))
    for rows in (4, 3, 2, 1) * 6:
        answers = []
        for one in (q, fresh):
            try:
                one.add(rows, rows, "k", 100.0)
                answers.append(None)
            except Unavailable as error:
                answers.append(error.message)
        assert answers[0] == answers[1]


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=50), st.booleans())
def test_what_may_wait_is_bounded(arrivals, splits):
    q: BatchQueue[int] = queue(4, 3, splits, request=9 if splits else 4)
    for number, (rows, take_one) in enumerate(arrivals):
        with contextlib.suppress(Unavailable, InvalidArgument):
            q.add(number, rows, "k", float(number))
        if take_one:
            q.next(float(number), 0, BatchLimits(full_rows=4))
        assert q.rows <= 3 * 4 + (0 if splits else 4)
