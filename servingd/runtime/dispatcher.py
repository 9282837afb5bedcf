"""Where a call runs: here and now if that is cheap, else from its signature's own queue.

A thread hand-off costs more than a cheap model; a slow model run in the carrier's thread would
delay every other call. Which it is, is measured: by signature and by size of the inputs, as a
decaying minimum, because a mean rises under contention and would send cheap calls behind slow ones.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from servingd.core.costs import CostMeter
from servingd.core.interfaces import Completion, Lane, Servable
from servingd.core.types import ServableId, Signature, Tensors
from servingd.errors import DeadlineExceeded, ServingError, Unavailable, as_serving_error
from servingd.runtime.threads import join

_Run = Callable[[Tensors, Completion, int], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchOptions:
    """How calls reach a servable."""

    inline_below_s: float = 200e-6
    """A call measured below this runs in the carrier's thread."""

    max_waiting_calls: int = 1000
    """Calls that may wait in front of one signature; more are refused."""

    workers: int = 2
    """Threads of one signature's queue, each running one call at a time."""

    idle_s: float = 30.0
    """A queue's thread ends after this long without work, and is started again when needed."""


class QueueOrInline:
    """One signature's lane. `run` from any thread."""

    __slots__ = ("_inline_below_s", "_meter", "_queue", "_servable", "notes", "signature")

    def __init__(
        self, name: str, servable: Servable, signature: Signature, options: DispatchOptions
    ) -> None:
        self.signature = signature
        self.notes: dict[str, Any] = {}
        self._servable = servable
        self._inline_below_s = options.inline_below_s
        self._meter = CostMeter()
        self._queue = _Queue(name, self._run_now, options)

    def run(self, inputs: Tensors, done: Completion) -> None:
        """Run inputs now if calls of their size are cheap, else queue them."""
        size = 0
        for array in inputs.values():
            size += array.nbytes
        if self._meter.cost(size) < self._inline_below_s:
            self._run_now(inputs, done, size)
        else:
            self._queue.put(inputs, done, size)

    def close(self) -> None:
        """End the queue's threads. No call is waiting: the lane's version has been drained."""
        self._queue.close()

    def _run_now(self, inputs: Tensors, done: Completion, size: int) -> None:
        started = time.perf_counter()
        try:
            self._servable.run(self.signature, inputs, done)
        except ServingError as error:
            done.fail(error)
        except Exception as error:
            _log.exception("a call of signature %s failed", self.signature.name)
            done.fail(as_serving_error(error))
        self._meter.observe(size, time.perf_counter() - started)


class _Queue:
    """Calls that wait for one signature, and the threads that run them, made when first needed."""

    def __init__(self, name: str, run: _Run, options: DispatchOptions) -> None:
        self._name = name
        self._run = run
        self._options = options
        self._changed = threading.Condition()
        # All below: guarded by _changed.
        self._waiting: deque[tuple[Tensors, Completion, int]] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def put(self, inputs: Tensors, done: Completion, size: int) -> None:
        with self._changed:
            if self._closed or len(self._waiting) >= self._options.max_waiting_calls:
                raise Unavailable(f"queue of {self._name} is full ({len(self._waiting)} waiting)")
            self._waiting.append((inputs, done, size))
            self._changed.notify()
            # A thread counts as idle until it has woken up: it serves one of those that wait.
            if len(self._waiting) > self._idle and len(self._threads) < self._options.workers:
                self._add_thread()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            threads = list(self._threads)
            self._changed.notify_all()
        join([t for t in threads if t is not threading.current_thread()], 5.0)

    def _add_thread(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"run {self._name}-{len(self._threads)}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (waiting := self._next()) is not None:
            inputs, done, size = waiting
            if done.alive():
                self._run(inputs, done, size)
            else:  # nobody waits for it any more: never run
                done.fail(DeadlineExceeded("Deadline Exceeded"))
            del waiting, inputs, done  # else the last call's tensors live until the next one

    def _next(self) -> tuple[Tensors, Completion, int] | None:
        deadline = time.monotonic() + self._options.idle_s
        with self._changed:
            while not self._waiting:
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    self._threads.remove(threading.current_thread())
                    return None
                self._idle += 1
                self._changed.wait(left)
                self._idle -= 1
            return self._waiting.popleft()


class Dispatcher:
    """Opens a lane per signature of each ready servable; see `core.interfaces.Dispatcher`."""

    def __init__(self, options: DispatchOptions | None = None) -> None:
        self._options = options or DispatchOptions()
        self._lock = threading.Lock()
        self._lanes: dict[ServableId, dict[str, QueueOrInline]] = {}  # guarded by _lock

    def open(self, servable: ServableId, body: Servable) -> Mapping[str, Lane]:
        """One lane per signature; starts no thread."""
        lanes = {
            name: QueueOrInline(
                f"{servable.name}:{servable.version}/{name}", body, signature, self._options
            )
            for name, signature in body.signatures.items()
        }
        with self._lock:
            self._lanes[servable] = lanes
        return lanes

    def close(self, servable: ServableId) -> None:
        """End the threads of a drained servable's lanes."""
        with self._lock:
            lanes = self._lanes.pop(servable, {})
        for lane in lanes.values():
            lane.close()
