"""Calls that come while the first models load: they wait for them, within their own time.

TensorFlow Serving listens when its first models have loaded, and who waits for its port calls then.
We listen from the start on, for probes and status; so calls wait here instead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from servingd.core.calls import Models
from servingd.core.types import ModelSpec
from servingd.errors import ServingError, Unavailable

_log = logging.getLogger(__name__)

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstCallLimits:
    """How much may wait."""

    calls: int = 1024
    size: int = 64 << 20
    """Bytes of requests."""


class HeldCall(NamedTuple):
    """One call that waits."""

    size: int
    alive: Callable[[], bool]
    run: Callable[[], None]
    """Begins it; never raises."""
    fail: Callable[[ServingError], None]


class FirstCalls:
    """Holds calls until each first model is available, has failed, or is not there.

    Owns the thread `first-calls`, which begins what was held, in order, when that is so. From any
    thread; `over` is read without the lock and is True for good once nothing is held any more.
    """

    def __init__(
        self, models: Models, limits: FirstCallLimits | None = None, *, enabled: bool = True
    ) -> None:
        self.over = not enabled
        self._models = models
        self._limits = limits or FirstCallLimits()
        self._lock = threading.Lock()
        # All below: guarded by _lock.
        self._ended = not enabled  # as `over`
        self._settled: set[str] = set()
        self._expected: frozenset[str] | None = None  # None: not known yet
        self._held: list[HeldCall] = []
        self._size = 0

    def expect(self, names: Collection[str]) -> None:
        """Say which models there are, the first time and whenever they change."""
        with self._lock:
            self._expected = frozenset(names)
        self._look()

    def settle(self, name: str) -> None:
        """A model is available, or its first load has failed, or there is nothing to load."""
        if self.over:
            return
        with self._lock:
            self._settled.add(name)
        self._look()

    def hold(self, spec: ModelSpec, call: HeldCall) -> bool:
        """Whether a call is held; else it is to be begun now: it can be answered.

        Raises Unavailable if too much is held.
        """
        if self.over or not spec.name or self._is_ready(spec):
            return False
        limits = self._limits
        with self._lock:
            if self._ended:
                return False
            if not self._fits(call):
                self._drop_dead()
            if not self._fits(call):
                error = Unavailable(
                    f"the first models are loading, and {len(self._held)} calls of {self._size} "
                    f"bytes wait for them already (at most {limits.calls}, {limits.size} bytes)"
                )
                error.retry_after_s = _RETRY_AFTER_S
                raise error
            self._held.append(call)
            self._size += call.size
            return True

    def stop(self) -> None:
        """Refuse what is held: the server ends."""
        for call in self._end():
            call.fail(Unavailable("server is shutting down"))

    def _is_ready(self, spec: ModelSpec) -> bool:
        try:
            handle = self._models.acquire(spec)
        except ServingError:
            return False
        handle.release()
        return True

    def _fits(self, call: HeldCall) -> bool:
        limits = self._limits
        return len(self._held) < limits.calls and self._size + call.size <= limits.size

    def _drop_dead(self) -> None:
        self._held = [call for call in self._held if call.alive()]
        self._size = sum(call.size for call in self._held)

    def _look(self) -> None:
        with self._lock:
            expected = self._expected
            if self._ended or expected is None or not expected <= self._settled:
                return
        held = self._end()
        if held:
            _log.info("the first models have loaded: %d calls waited for them", len(held))
            threading.Thread(target=_begin, args=(held,), name="first-calls", daemon=True).start()

    def _end(self) -> list[HeldCall]:
        with self._lock:
            self.over = self._ended = True
            held, self._held, self._size = self._held, [], 0
            self._settled.clear()
        return held


def _begin(held: list[HeldCall]) -> None:
    for call in held:
        try:
            if call.alive():
                call.run()
        except BaseException:  # one call must not keep the others waiting
            _log.exception("a call that was held has failed")
