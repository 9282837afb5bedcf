"""Answers of several workers to one question."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

from servingd.errors import ServingError
from servingd.supervisor.link.messages import Answer

Then: TypeAlias = Callable[[Mapping[int, bytes], ServingError | None], None]
"""Takes what was answered, by worker, and the last error that was."""


class Gathering:
    """Collects answers, and hands them over once: with the last one, or at `end`. Thread-safe."""

    def __init__(self, asked: set[int], then: Then) -> None:
        self._then = then
        self._lock = threading.Lock()
        self._waiting = asked  # guarded by _lock
        self._over = False  # guarded by _lock
        self._answers: dict[int, bytes] = {}  # guarded by _lock
        self._error: ServingError | None = None  # guarded by _lock

    def take(self, key: int, answer: Answer) -> None:
        """Take a worker's answer."""
        with self._lock:
            self._waiting.discard(key)
            if answer.error is None:
                self._answers[key] = answer.body
            else:
                self._error = answer.error
            last = not self._waiting
        if last:
            self.end()

    def end(self) -> int:
        """Hand over what was answered; return how many workers have not answered."""
        with self._lock:
            if self._over:
                return 0
            self._over = True
            missing = len(self._waiting)
        self._then(dict(self._answers), self._error)
        return missing
