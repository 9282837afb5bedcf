"""Queue the calls that a transport read together with one lock and one wake-up per queue.

A wake-up is dear, and a worker that is woken for the first call of many takes that one alone, and
contends for the interpreter with the thread that still reads the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from threading import get_ident
from typing import NamedTuple

from servingd.core.batching.queue import Priority
from servingd.runtime.batching.batcher import Arrival, Batcher
from servingd.runtime.batching.waiting_calls import WaitingCall

_TOGETHER_S = 500e-6
"""Seconds after the first call when all are queued, however many are still to be read."""


class _Gathered(NamedTuple):
    batcher: Batcher
    arrival: Arrival


class Gathering:
    """The calls that one thread has read and not queued yet. Filled by that thread alone."""

    __slots__ = ("_calls", "_on_first", "_since", "_together_s")

    def __init__(
        self, on_first: Callable[[], object] | None = None, together_s: float = _TOGETHER_S
    ) -> None:
        """`on_first` is called when the first call is gathered: it sees to it that `flush` is."""
        self._on_first = on_first
        self._together_s = together_s
        self._calls: deque[_Gathered] = deque()
        self._since = 0.0

    def add(self, batcher: Batcher, call: WaitingCall, kind: Hashable, priority: Priority) -> None:
        """Queue a call now or a few calls later; one that is refused fails then."""
        now = time.perf_counter()
        if not self._calls:
            self._since = now
            if self._on_first is not None:
                self._on_first()
        self._calls.append(_Gathered(batcher, Arrival(call, kind, priority)))
        if now >= self._since + self._together_s:
            self.flush()

    def flush(self) -> None:
        """Queue what was gathered. From any thread; cheap if there is nothing."""
        calls = self._calls
        by_batcher: dict[Batcher, list[Arrival]] = {}
        while calls:
            try:
                batcher, arrival = calls.popleft()
            except IndexError:  # another thread was quicker
                break
            by_batcher.setdefault(batcher, []).append(arrival)
        for batcher, arrivals in by_batcher.items():
            batcher.put_all(arrivals)
        if calls:  # one that was refused has led to another: a shard's next replica
            self.flush()


class Gatherings(dict[int, Gathering]):
    """The gatherings by thread; each thread adds its own. A plain dict: calls look it up."""

    def open(self, on_first: Callable[[], object] | None = None) -> Gathering:
        """Gather the calls of the calling thread from now on; it must call `flush`."""
        gathering = self[get_ident()] = Gathering(on_first)
        return gathering

    def close(self) -> None:
        """Queue the calling thread's calls at once from now on."""
        gathering = self.pop(get_ident(), None)
        if gathering is not None:
            gathering.flush()
