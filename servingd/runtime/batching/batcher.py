"""The queue in front of one signature, and the threads that run what leaves it.

Theory of operation. `BatchQueue` holds the calls and forms batches; the batch policy says how large
and how late a batch may be now; both are pure. This module adds the lock, the clock and the
threads:

1. `put` admits a call, or refuses it at once if it could not be answered in time. If a worker could
   take a batch now, or must wait for the timer of one, one is woken, or started if all are busy.
2. A worker (`_work`) takes the next batch in `_next`, runs it without the lock, and comes back.
   What arrives meanwhile is the next batch: nobody waits for a timer unless a policy asks for that.
3. A worker ends after `idle_s` without work, unless a held batch would be left to nobody.

Every field is guarded by the one condition. `_woken` counts the workers that were told of work and
have not looked yet, so that one call wakes one worker and not all of them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from servingd.core.batching.policy import BatchPolicy, RunTimes
from servingd.core.batching.queue import Batch, BatchLimits, BatchQueue, Priority
from servingd.core.batching.refusal import AdmissionLimits, Backlog, refusal
from servingd.errors import DeadlineExceeded, ServingError, Unavailable
from servingd.observability.batches import QueueStats
from servingd.runtime.batching.waiting_calls import WaitingCall
from servingd.runtime.threads import join

_LOOK_S = 0.01
"""A queue is not looked through more often: of a thousand calls, that takes half a millisecond."""

_log = logging.getLogger(__name__)

Run = Callable[[Batch[WaitingCall]], None]
"""Runs a batch and completes its calls, dropped ones too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherOptions:
    """How much may wait, and who runs it."""

    workers: int = 2
    """Threads, each running one batch at a time."""
    replicas: int = 1
    """A batch need not wait for those that run while fewer do than this."""
    idle_s: float = 30.0
    """A thread ends after this long without work, and is started again when needed."""
    limits: AdmissionLimits = field(default_factory=AdmissionLimits)


class Batcher:
    """Owns the threads `run NAME-N`, made when first needed."""

    def __init__(
        self,
        name: str,
        run: Run,
        policy: BatchPolicy,
        times: RunTimes,
        options: BatcherOptions,
        stats: QueueStats,
    ) -> None:
        self._name = name
        self._run = run
        self._policy = policy
        self._times = times
        self._options = options
        self._stats = stats
        self._changed = threading.Condition()
        # All below: guarded by _changed.
        self._queue: BatchQueue[WaitingCall] = BatchQueue(policy.rules)
        self._threads: list[threading.Thread] = []
        self._idle = 0  # waiting for work
        self._woken = 0  # of these, told that there is some
        self._running = 0
        self._closed = False
        self._look_again = -math.inf  # when the queue may be looked through for dead calls

    @property
    def quiet(self) -> bool:
        """Whether nothing waits and nothing runs; a glance, without the lock."""
        return not self._running and not self._queue.calls

    def put(self, call: WaitingCall, kind: Hashable, priority: Priority = Priority.NORMAL) -> None:
        """Let a call wait for its turn.

        Raises Unavailable (full, or closed), ResourceExhausted (it could not be answered in time),
        DeadlineExceeded (its time is up) or InvalidArgument (more rows than a request may have).
        """
        dropped: list[WaitingCall] = []
        stranded: list[WaitingCall] = []
        try:
            with self._changed:
                if self._closed:
                    raise Unavailable(f"queue of {self._name} is closed")
                limits = self._policy.limits()
                self._admit(call, kind, priority, limits, dropped)
                self._policy.on_arrival(call.rows, call.arrived_at)
                self._wake_a_worker(call.arrived_at, limits)
                if not self._threads:  # none could be started: nobody would ever look
                    stranded = self._queue.drain()
                self._stats.waiting_rows = self._queue.rows
        finally:
            for gone in dropped:
                gone.fail(DeadlineExceeded("Deadline Exceeded"))
            for gone in stranded:
                gone.fail(Unavailable(f"queue of {self._name} has no thread to run it"))

    def close(self) -> None:
        """End the threads. No call is waiting: the runner's version has been drained."""
        with self._changed:
            self._closed = True
            threads = list(self._threads)
            self._changed.notify_all()
        join([t for t in threads if t is not threading.current_thread()], 5.0)

    def estimate(self) -> tuple[float, BatchLimits]:
        """How long a call that comes now would wait, and the limits; for whoever explains them."""
        with self._changed:
            limits = self._policy.limits()
            return self._backlog(1, limits, 0).wait_s, limits

    # All below: with the lock held ----------------------------------------------------------------

    def _admit(
        self,
        call: WaitingCall,
        kind: Hashable,
        priority: Priority,
        limits: BatchLimits,
        dropped: list[WaitingCall],
    ) -> None:
        """Let a call wait; where there is no room for it, calls that are dead make some first."""
        left_s = None if call.done.deadline is None else call.done.deadline - call.arrived_at
        if left_s is not None and left_s <= 0:
            self._stats.dropped += 1
            raise DeadlineExceeded("Deadline Exceeded")
        backlog = self._backlog(call.rows, limits, call.size)
        error = self._refusal(call, kind, priority, backlog, left_s)
        if error is not None and call.arrived_at >= self._look_again:
            self._look_again = call.arrived_at + _LOOK_S
            dropped += self._queue.drop(_alive)
            self._stats.dropped += len(dropped)
            self._stats.waiting_rows = self._queue.rows
            if dropped:
                backlog = self._backlog(call.rows, limits, call.size)
                error = self._refusal(call, kind, priority, backlog, left_s)
        if error is not None:
            self._stats.refused[error.code.name] += 1
            raise error

    def _refusal(
        self,
        call: WaitingCall,
        kind: Hashable,
        priority: Priority,
        backlog: Backlog,
        left_s: float | None,
    ) -> ServingError | None:
        """Why a call is not let in; None if it is, and waits by now."""
        error = refusal(self._name, backlog, left_s, priority, self._options.limits)
        if error is None:
            try:
                self._queue.add(call, call.rows, kind, call.arrived_at, priority, call.size)
            except Unavailable as full:
                full.retry_after_s = max(0.001, backlog.wait_s)
                return full
        return error

    def _backlog(self, rows: int, limits: BatchLimits, size: int) -> Backlog:
        """What a call of so many rows finds: batches before it, over the threads that run them."""
        waiting, full = self._queue.rows, limits.full_rows
        batch_s = self._times.estimate(min(full, max(1, waiting))) or 0.0
        batches = waiting / full + 0.5 * self._running
        return Backlog(
            calls=self._queue.calls,
            rows=waiting,
            size=self._queue.size + size,
            wait_s=batches * batch_s / self._options.workers,
            run_s=self._times.estimate(rows) or 0.0,
        )

    def _blocking_runs(self) -> int:
        """How many runs an unfilled batch waits for: none while a replica has nothing to do."""
        return max(0, self._running - self._options.replicas + 1)

    def _wake_a_worker(self, now: float, limits: BatchLimits) -> None:
        """Have a thread look at the queue, if one could take a batch now or must wait for it."""
        if self._idle <= self._woken and len(self._threads) >= self._options.workers:
            return  # they are all at it
        wait_s = self._queue.wait_s(now, self._blocking_runs(), limits)
        if wait_s is None:
            return  # whoever runs now takes it next
        if self._idle > self._woken:
            self._woken += 1
            self._changed.notify()
        elif len(self._threads) < self._options.workers and (wait_s == 0.0 or not self._threads):
            self._add_thread()

    def _add_thread(self) -> None:
        """Start a thread, and count it once it runs: it waits for the lock that is held here."""
        thread = threading.Thread(
            target=self._work, name=f"run {self._name}-{len(self._threads)}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            _log.exception("thread %s could not be started", thread.name)
        else:
            self._threads.append(thread)

    # The queue's threads --------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._run(batch)
            except BaseException:  # whatever it was: the queue counts on this thread
                _log.exception("a batch of %s failed", self._name)
            finally:
                with self._changed:
                    self._running -= 1
            del batch  # else the last batch's tensors live until the next one

    def _next(self) -> Batch[WaitingCall] | None:
        """The next batch, as soon as one leaves; None when this thread is to end."""
        idle_until = time.monotonic() + self._options.idle_s
        with self._changed:
            while True:
                now = time.monotonic()
                limits = self._policy.limits()
                idle_workers = self._options.workers - self._running
                batch = self._queue.next(now, self._blocking_runs(), limits, _alive, idle_workers)
                if batch is not None:
                    self._dispatched(batch, now, limits)
                    return batch
                left_s = idle_until - now
                wait_s = self._queue.wait_s(now, self._blocking_runs(), limits)
                # Who leaves while a batch is held would leave it to nobody.
                if self._closed or (left_s <= 0 and wait_s is None):
                    self._threads.remove(threading.current_thread())
                    return None
                self._sleep(left_s if wait_s is None else wait_s)

    def _sleep(self, seconds: float) -> None:
        self._idle += 1
        self._changed.wait(seconds)
        self._idle -= 1
        # Whoever wakes looks at the queue: that is all that was asked for. One whose time was up
        # as it was told cannot know that it was: it must not leave the count behind.
        self._woken = max(0, self._woken - 1)

    def _dispatched(self, batch: Batch[WaitingCall], now: float, limits: BatchLimits) -> None:
        self._running += 1
        stats = self._stats
        stats.waiting_rows = self._queue.rows
        stats.dropped += len(batch.dropped)
        if batch.pieces:
            stats.dispatched[batch.reason] += 1
            stats.rows.add(batch.rows)
            for piece in batch.pieces:
                if piece.start == 0:
                    stats.queue_s.add(now - piece.payload.arrived_at)
        self._wake_a_worker(now, limits)  # there may be enough for another thread


def _alive(call: WaitingCall) -> bool:
    return call.done.alive()
