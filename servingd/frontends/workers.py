"""What frontends see of the threads that do slow work in the place of a transport's.

The threads are pools of `runtime/threads.py`, which `ports.py` makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Workers(Protocol):
    """Threads that run jobs in order of arrival."""

    def submit(self, job: Callable[[], None]) -> None:
        """Enqueue a job. Thread-safe."""
        ...
