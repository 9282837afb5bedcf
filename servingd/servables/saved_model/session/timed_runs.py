"""Runs that TensorFlow ends itself at their deadline.

Only a session that was opened anew has them (`relocation.py`): a run of its predecessor went on
though nobody waited for it, and had to be ended. All other runs are ended by `run_watch.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from servingd.errors import DeadlineExceeded
from servingd.servables.saved_model.session import c_api

TIMEOUTS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Seconds. TensorFlow fixes a callable's timeout when it is made, so there is one for each."""


class TimedRuns:
    """The callables of one signature, one per timeout, each made when it is first needed.

    From any thread.
    """

    def __init__(self, make: Callable[[float], Callable[..., list[Any]]]) -> None:
        """`make` makes a callable with a timeout in seconds."""
        self._make = make
        self._lock = threading.Lock()
        self._calls: dict[float, Callable[..., list[Any]]] = {}  # guarded by _lock

    def __call__(self, arrays: tuple[Any, ...], deadline: float | None) -> list[Any]:
        """Run once, until soon after `deadline` (monotonic seconds). Raises TensorFlow's errors."""
        left = TIMEOUTS_S[-1] if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("Deadline Exceeded")
        call = self._call(next((t for t in TIMEOUTS_S if t >= left), TIMEOUTS_S[-1]))
        return c_api.without_wrapper(call)(arrays, None)

    def _call(self, timeout_s: float) -> Callable[..., list[Any]]:
        with self._lock:
            if timeout_s not in self._calls:
                self._calls[timeout_s] = self._make(timeout_s)
            return self._calls[timeout_s]
