"""The interface by which a transport's calls are queued together, if they were read together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from servingd.core.callbacks import nothing


class Gather(Protocol):
    """Called once by a thread that reads calls in batches, before its first one."""

    def __call__(self, on_first: Callable[[], object] | None = None) -> Callable[[], None]:
        """Return what the thread must call after each batch of calls that it has read.

        Calls that have to wait are queued then, together. `on_first` is called when there is one.
        """
        ...


def gather_nothing(on_first: Callable[[], object] | None = None) -> Callable[[], None]:
    """Queue each call at once; a `Gather`."""
    return nothing
