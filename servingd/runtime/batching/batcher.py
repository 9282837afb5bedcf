"""The queue in front of one signature, and the threads that run its batches.

Theory of operation. `BatchQueue` holds the calls and forms batches; the batch policy says how large
and how late a batch may be now; both are pure. This module adds the lock, the clock and the
threads:

1. `put` admits a call, or refuses it at once if it could not be answered in time. If a worker could
   take a batch now, or must wait for the timer of one, one is woken, or started if all are busy.
2. A worker (`_work`) takes the next batch in `_next`, runs it without the lock, and comes back.
   Calls that arrive meanwhile form the next batch: there is no timer unless a policy asks for one.
3. A worker ends after `idle_s` without work, unless a batch is held that no other would take.

Every field is guarded by the one condition. `_woken` counts the workers that were notified and have
not checked the queue yet, so that one call wakes one worker and not all of them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from servingd.core.batching.batch_limits import BatchLimits, BatchPolicy, RunTimes
from servingd.core.batching.queue import Batch, BatchQueue, Priority
from servingd.core.batching.refusal import AdmissionLimits, Backlog, refusal
from servingd.errors import DeadlineExceeded, ServingError, Unavailable
from servingd.observability.batches import QueueStats
from servingd.runtime.batching.waiting_calls import WaitingCall
from servingd.runtime.threads import join

_SCAN_INTERVAL_S = 0.01
"""The least seconds between two scans for dead calls: one of a thousand calls takes 0.5 ms."""

_log = logging.getLogger(__name__)

Run = Callable[[Batch[WaitingCall]], None]
"""Runs a batch and completes its calls, the dropped ones too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherOptions:
    """The limits and the threads of one queue."""

    workers: int = 2
    """Threads; each runs one batch at a time."""
    replicas: int = 1
    """The number of running batches below which another one need not wait."""
    idle_s: float = 30.0
    """Seconds without work after which a thread ends; it is started again when needed."""
    limits: AdmissionLimits = field(default_factory=AdmissionLimits)


class Arrival(NamedTuple):
    """A call that arrives at a queue."""

    call: WaitingCall
    kind: Hashable
    """Calls of one kind may run as one batch."""
    priority: Priority


class _Refused(NamedTuple):
    call: WaitingCall
    error: ServingError


class Batcher:
    """A signature's queue. Owns the threads `run NAME-N`, started when first needed."""

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
        self._idle = 0  # threads that wait for work
        self._woken = 0  # idle threads that were notified
        self._running = 0
        self._closed = False
        self._next_scan = -math.inf  # when the queue may be scanned for dead calls again

    @property
    def quiet(self) -> bool:
        """Whether no call waits or runs; read without the lock, so only a hint."""
        return not self._running and not self._queue.calls

    def put(self, call: WaitingCall, kind: Hashable, priority: Priority = Priority.NORMAL) -> None:
        """Enqueue a call.

        Raises Unavailable (full, or closed), ResourceExhausted (it could not be answered in time),
        DeadlineExceeded (its deadline has passed) or InvalidArgument (more rows than a request may
        have).
        """
        for refused in self._put_all((Arrival(call, kind, priority),)):
            raise refused.error

    def put_all(self, arrivals: Sequence[Arrival]) -> None:
        """Enqueue calls that came together; those that are refused fail, as `put` raises."""
        for call, error in self._put_all(arrivals):
            call.fail(error)

    def _put_all(self, arrivals: Sequence[Arrival]) -> list[_Refused]:
        """Enqueue calls; return those that are refused."""
        dropped: list[WaitingCall] = []
        stranded: list[WaitingCall] = []
        refused: list[_Refused] = []
        with self._changed:
            limits = self._policy.limits()
            for call, kind, priority in arrivals:
                try:
                    self._admit(call, kind, priority, limits, dropped)
                except ServingError as error:
                    refused.append(_Refused(call, error))
                else:
                    self._policy.on_arrival(call.rows, call.arrived_at)
            if len(refused) < len(arrivals):
                self._wake_a_worker(arrivals[-1].call.arrived_at, limits)
                if not self._threads:  # none could be started: the calls would wait for ever
                    stranded = self._queue.drain()
            self._stats.waiting_rows = self._queue.rows
        for gone in dropped:
            gone.fail(DeadlineExceeded("Deadline Exceeded"))
        for gone in stranded:
            gone.fail(Unavailable(f"queue of {self._name} has no thread to run it"))
        return refused

    def refuse_waiting(self) -> None:
        """Fail every call that waits: the server stops, and what they wait for may hang."""
        with self._changed:
            waiting = self._queue.drain()
            self._stats.waiting_rows = self._queue.rows
        for call in waiting:
            call.fail(Unavailable(f"queue of {self._name} is closed"))

    def close(self) -> None:
        """End the threads. No call is waiting: the runner's version has been drained."""
        with self._changed:
            self._closed = True
            threads = list(self._threads)
            self._changed.notify_all()
        join([t for t in threads if t is not threading.current_thread()], 5.0)

    def estimate(self) -> tuple[float, BatchLimits]:
        """Return the seconds that a call arriving now would wait, and the current limits."""
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
        """Enqueue a call; if there is no room for it, first drop the calls that are dead."""
        if self._closed:
            raise Unavailable(f"queue of {self._name} is closed")
        left_s = None if call.done.deadline is None else call.done.deadline - call.arrived_at
        if left_s is not None and left_s <= 0:
            self._stats.dropped += 1
            raise DeadlineExceeded("Deadline Exceeded")
        backlog = self._backlog(call.rows, limits, call.size)
        error = self._refusal(call, kind, priority, backlog, left_s)
        if error is not None and call.arrived_at >= self._next_scan:
            self._next_scan = call.arrived_at + _SCAN_INTERVAL_S
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
        """Enqueue a call and return None; return the error if it is refused."""
        error = refusal(self._name, backlog, left_s, priority, self._options.limits)
        if error is None:
            try:
                self._queue.add(call, call.rows, kind, call.arrived_at, priority, call.size)
            except Unavailable as full:
                full.retry_after_s = max(0.001, backlog.wait_s)
                return full
        return error

    def _backlog(self, rows: int, limits: BatchLimits, size: int) -> Backlog:
        """Return what a call of so many rows waits for: the batches before it, by worker."""
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
        """Return how many runs an unfilled batch waits for: none while a replica is idle."""
        return max(0, self._running - self._options.replicas + 1)

    def _wake_a_worker(self, now: float, limits: BatchLimits) -> None:
        """Wake or start a thread, if one could take a batch now or must wait for its timer."""
        if self._idle <= self._woken and len(self._threads) >= self._options.workers:
            return  # all threads are busy
        wait_s = self._queue.wait_s(now, self._blocking_runs(), limits)
        if wait_s is None:
            return  # a thread that runs now takes it next
        if self._idle > self._woken:
            self._woken += 1
            self._changed.notify()
        elif len(self._threads) < self._options.workers and (wait_s == 0.0 or not self._threads):
            self._add_thread()

    def _add_thread(self) -> None:
        """Start a thread and count it; it waits for the lock, which is held here."""
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
        """Run batches until there is no work; the thread's main loop."""
        while (batch := self._next()) is not None:
            try:
                self._run(batch)
            except BaseException:  # of any kind: the queue relies on this thread
                _log.exception("a batch of %s failed", self._name)
            finally:
                with self._changed:
                    self._running -= 1
            del batch  # else the last batch's tensors live until the next one

    def _next(self) -> Batch[WaitingCall] | None:
        """Return the next batch as soon as one is ready; None when this thread is to end."""
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
                # A thread must not end while a batch is held: none might be left to take it.
                if self._closed or (left_s <= 0 and wait_s is None):
                    self._threads.remove(threading.current_thread())
                    return None
                self._sleep(left_s if wait_s is None else wait_s)

    def _sleep(self, seconds: float) -> None:
        """Wait for a notification, at most so many seconds; with the lock held."""
        self._idle += 1
        self._changed.wait(seconds)
        self._idle -= 1
        # A thread that wakes checks the queue, which is all that the notification asked for. One
        # that timed out at that moment cannot know that it was notified, so each lowers the count.
        self._woken = max(0, self._woken - 1)

    def _dispatched(self, batch: Batch[WaitingCall], now: float, limits: BatchLimits) -> None:
        """Record a batch that is dispatched, and wake another thread if there is more to do."""
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
