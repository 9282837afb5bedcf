"""Hand the native transport's responses over together: each hand-over may wake a thread."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any

_TOGETHER_S = 500e-6
"""Seconds, from the beginning of a batch, after which a response is handed over at once."""


class PendingResponses:
    """One thread's responses that are sent together. For that thread alone, but `flush`."""

    __slots__ = ("_answers", "_respond", "_since")

    def __init__(self, respond: Callable[..., bool]) -> None:
        self._respond = respond
        self._answers: deque[tuple[int, bytes]] = deque()
        self._since = 0.0

    def begin(self) -> None:
        """Begin a batch: responses added from now on are sent together."""
        self._since = time.perf_counter()

    def add(self, call: int, payload: bytes) -> bool:
        """Answer a call, now or a few calls later."""
        self._answers.append((call, payload))
        if time.perf_counter() > self._since + _TOGETHER_S:
            self.flush()
        return True

    def flush(self) -> None:
        """Hand over the buffered responses. From any thread."""
        answers = self._answers
        while answers:
            with contextlib.suppress(IndexError):  # another thread was quicker
                self._respond(*answers.popleft())


class ResponseBuffer:
    """Hands responses to pygrpc-native, buffered per thread. Thread-safe.

    Each hand-over may wake the thread that writes; one wake-up for several is much cheaper. No
    response waits longer than the batch it belongs to, or `_TOGETHER_S`.
    """

    __slots__ = ("_pending", "_respond")

    def __init__(self, respond: Callable[..., bool]) -> None:
        self._respond = respond
        self._pending: dict[
            int, PendingResponses
        ] = {}  # by thread; each changes its own entry only

    def add(self, call: int, payload: bytes) -> bool:
        """Answer a call, now or a few calls later."""
        pending = self._pending.get(get_ident())
        return self._respond(call, payload) if pending is None else pending.add(call, payload)

    def add_with_metadata(self, call: int, payload: bytes, metadata: Any) -> bool:
        """Answer a call at once, with initial metadata."""
        return self._respond(call, payload, initial_metadata=metadata)

    def open(self) -> PendingResponses:
        """Buffer this thread's responses from now on."""
        pending = self._pending[get_ident()] = PendingResponses(self._respond)
        pending.begin()
        return pending

    def begin_batch(self) -> Callable[[], None] | None:
        """Buffer this thread's responses until the returned function is called."""
        if get_ident() in self._pending:
            return None  # this thread buffers already
        pending = self.open()

        def end() -> None:
            del self._pending[get_ident()]
            pending.flush()

        return end
