"""Calls in queues."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from servingd.core.batching.merge import same_lengths
from servingd.core.calls import Completion
from servingd.core.types import Tensors
from servingd.errors import ServingError, as_serving_error

_log = logging.getLogger(__name__)

T = TypeVar("T")


def hand_over(take: Callable[[T], None], outcome: T) -> None:
    """Give a completion its outcome. One that fails, fails alone: others share its batch."""
    try:
        take(outcome)
    except BaseException:
        _log.exception("the outcome of a call could not be handed over")


@dataclass(slots=True, eq=False)
class WaitingCall:
    """A call that waits for its turn."""

    inputs: Tensors
    done: Completion
    rows: int
    arrived_at: float
    size: int = 0
    """Bytes of its inputs."""
    split: SplitCall | None = None
    """Where its parts come together, if it may be spread over several batches."""

    def part(self, start: int, rows: int) -> Tensors:
        """Some of its rows."""
        if rows == self.rows:
            return self.inputs
        return {alias: array[start : start + rows] for alias, array in self.inputs.items()}

    def succeed(self, start: int, rows: int, outputs: dict[str, Any]) -> None:
        """Take the answer of some of its rows."""
        if self.split is None or rows == self.rows:
            hand_over(self.done.succeed, outputs)
        else:
            self.split.take(self, start, rows, outputs)

    def fail(self, error: ServingError) -> None:
        """Take a failure; of several parts' the first counts."""
        if self.split is None or self.split.fails():
            hand_over(self.done.fail, error)


def _joined(parts: list[Any]) -> Any:
    """Parts of one output, one below the other; their batches may have been padded unlike."""
    if len({part.shape[1:] for part in parts}) > 1:
        parts = same_lengths(parts)
    return np.concatenate(parts)


class SplitCall:
    """The parts of one call's answer, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[int, dict[str, Any]] = {}  # by first row; guarded by _lock
        self._rows = 0  # guarded by _lock
        self._failed = False  # guarded by _lock

    def take(self, call: WaitingCall, start: int, rows: int, outputs: dict[str, Any]) -> None:
        """Add one part; the last completes the call."""
        with self._lock:
            self._parts[start] = outputs
            self._rows += rows
            if self._failed or self._rows < call.rows:
                return
        parts = [self._parts[first] for first in sorted(self._parts)]
        try:
            outputs = {a: _joined([part[a] for part in parts]) for a in parts[0]}
        except Exception as error:  # their shapes do not go together
            hand_over(call.done.fail, as_serving_error(error))
            return
        hand_over(call.done.succeed, outputs)

    def fails(self) -> bool:
        """A part has failed; whether it is the first that does."""
        with self._lock:
            first, self._failed = not self._failed, True
        return first
