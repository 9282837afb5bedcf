"""Limit how many bytes all large requests may take together; further ones wait for their turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from servingd.errors import Unavailable

_RETRY_AFTER_S = 1.0
_MAX_WAITING = 256


class _Waiter(NamedTuple):
    size: int
    held: int
    alive: Callable[[], bool]
    begin: Callable[[], None]


class ByteBudget:
    """A budget of `total` bytes, lent in order of arrival. Thread-safe; never blocks a thread."""

    def __init__(self, total: int, max_waiting: int = _MAX_WAITING) -> None:
        self.total = total
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        # All below: guarded by _lock.
        self._lent = 0
        self._waiting: deque[_Waiter] = deque()
        self._held = 0  # bytes that waiting requests hold already

    def ask(
        self, size: int, held: int, alive: Callable[[], bool], begin: Callable[[], None]
    ) -> None:
        """Call `begin` once `size` bytes are free: now, or on the thread that gives them back.

        A request for more than `total` gets all of it. `held` are the bytes that the request takes
        while it waits; it is dropped if it is no longer `alive`. Each request that begins must call
        `give_back` with the same size, however it ends.

        Raises:
            Unavailable: too many requests wait, or they hold as many bytes as may be lent.
        """
        waiter = _Waiter(min(size, self.total), held, alive, begin)
        with self._lock:
            at_once = not self._waiting and self._lent + waiter.size <= self.total
            if at_once:
                self._lent += waiter.size
            else:
                self._let_wait(waiter)
        if at_once:
            begin()

    def give_back(self, size: int) -> None:
        """Free the bytes that were asked for; the requests that now fit begin on this thread."""
        begins: list[Callable[[], None]] = []
        with self._lock:
            self._lent -= min(size, self.total)
            while self._waiting and self._lent + self._waiting[0].size <= self.total:
                waiter = self._waiting.popleft()
                self._held -= waiter.held
                self._lent += waiter.size
                begins.append(waiter.begin)
        for begin in begins:
            begin()

    def _let_wait(self, waiter: _Waiter) -> None:
        if self._is_full(waiter):
            self._waiting = deque(other for other in self._waiting if other.alive())
            self._held = sum(other.held for other in self._waiting)
        if self._is_full(waiter):
            error = Unavailable(f"{len(self._waiting)} large requests are waiting already")
            error.retry_after_s = _RETRY_AFTER_S
            raise error
        self._waiting.append(waiter)
        self._held += waiter.held

    def _is_full(self, waiter: _Waiter) -> bool:
        full = len(self._waiting) >= self._max_waiting
        return full or self._held + waiter.held > self.total
