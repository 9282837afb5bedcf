"""Calls that wait in queues, and the outcomes of those that run in parts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from servingd.core.batching.merge import same_lengths
from servingd.core.call_protocols import Completion
from servingd.core.types import Tensors
from servingd.errors import ServingError, as_serving_error

_log = logging.getLogger(__name__)

T = TypeVar("T")


def hand_over(take: Callable[[T], None], outcome: T) -> None:
    """Give a completion its outcome; an exception is logged, since others share its batch."""
    try:
        take(outcome)
    except BaseException:
        _log.exception("a completion failed to take its outcome")


@dataclass(slots=True, eq=False)
class WaitingCall:
    """A call in a queue."""

    inputs: Tensors
    done: Completion
    rows: int
    arrived_at: float
    size: int = 0
    """Bytes of its inputs."""
    split: SplitCall | None = None
    """Joins the outputs of its parts; None if it may not be split over several batches."""

    def part(self, start: int, rows: int) -> Tensors:
        """Return `rows` rows of its inputs, from row `start` on."""
        if rows == self.rows:
            return self.inputs
        return {alias: array[start : start + rows] for alias, array in self.inputs.items()}

    def succeed(self, start: int, rows: int, outputs: dict[str, Any]) -> None:
        """Take the outputs of some of its rows."""
        if self.split is None or rows == self.rows:
            hand_over(self.done.succeed, outputs)
        else:
            self.split.take(self, start, rows, outputs)

    def fail(self, error: ServingError) -> None:
        """Take an error; if several parts fail, the first error counts."""
        if self.split is None or self.split.fails():
            hand_over(self.done.fail, error)


def _joined(parts: list[Any]) -> Any:
    """Return the parts of one output, concatenated; their padded lengths may differ."""
    if len({part.shape[1:] for part in parts}) > 1:
        parts = same_lengths(parts)
    return np.concatenate(parts)


class SplitCall:
    """The outputs of one call's parts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[int, dict[str, Any]] = {}  # by first row; guarded by _lock
        self._rows = 0  # guarded by _lock
        self._failed = False  # guarded by _lock

    def take(self, call: WaitingCall, start: int, rows: int, outputs: dict[str, Any]) -> None:
        """Add one part's outputs; the last part completes the call."""
        with self._lock:
            self._parts[start] = outputs
            self._rows += rows
            if self._failed or self._rows < call.rows:
                return
        parts = [self._parts[first] for first in sorted(self._parts)]
        try:
            outputs = {a: _joined([part[a] for part in parts]) for a in parts[0]}
        except Exception as error:  # their shapes cannot be joined
            hand_over(call.done.fail, as_serving_error(error))
            return
        hand_over(call.done.succeed, outputs)

    def fails(self) -> bool:
        """Record that a part has failed; return whether it is the first that does."""
        with self._lock:
            first, self._failed = not self._failed, True
        return first
