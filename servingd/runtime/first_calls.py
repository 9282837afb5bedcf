"""Hold the calls that arrive while the first models load, until their deadlines.

TensorFlow Serving opens its ports when its first models have loaded, and clients call once the port
answers. This server opens its ports at the start, for probes and status, so calls wait here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from servingd.core.call_protocols import Models
from servingd.core.types import ModelSpec
from servingd.errors import ServingError, Unavailable

_log = logging.getLogger(__name__)

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstCallLimits:
    """The most calls, and bytes of their requests, that may be held."""

    calls: int = 1024
    size: int = 64 << 20
    """Bytes of all held requests."""


class HeldCall(NamedTuple):
    """A call that is held."""

    size: int
    alive: Callable[[], bool]
    run: Callable[[], None]
    """Begins the call; never raises."""
    fail: Callable[[ServingError], None]


class FirstCalls:
    """Holds calls until each first model is available, has failed, or does not exist.

    Owns the thread `first-calls`, which then begins the held calls in order. Thread-safe. `over` is
    read without the lock and stays True once nothing is held any more.
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
        """Set which models there are: once they are known, and whenever they change."""
        with self._lock:
            self._expected = frozenset(names)
        self._end_if_settled()

    def settle(self, name: str) -> None:
        """Record that a model is available, has failed, or has nothing to load."""
        if self.over:
            return
        with self._lock:
            self._settled.add(name)
        self._end_if_settled()

    def hold(self, spec: ModelSpec, call: HeldCall) -> bool:
        """Return whether a call is held; if False, the caller must begin it now.

        Raises Unavailable if too many calls or bytes are held.
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
        """Fail all held calls: the server is stopping."""
        for call in self._end():
            call.fail(Unavailable("server is shutting down"))

    def _is_ready(self, spec: ModelSpec) -> bool:
        """Return whether a call can be answered now."""
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

    def _end_if_settled(self) -> None:
        """Begin the held calls on a thread of their own if every first model is settled."""
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
    """Begin the held calls, in order; the thread's main function."""
    for call in held:
        try:
            if call.alive():
                call.run()
        except BaseException:  # one call must not keep the others waiting
            _log.exception("a held call failed")
