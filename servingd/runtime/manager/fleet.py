"""The fleet: what carries out the manager's commands about versions, in one process or in several.

`runtime/versions/versions.py` is the fleet of one process, and `supervisor/fleet/fleet.py` that of
several workers.
"""

from __future__ import annotations

from typing import Protocol

from servingd.core.lifecycle.events import EventSink, LoadOverdue, VersionCommand
from servingd.core.lifecycle.labels import Labels


class Fleet(Protocol):
    """Whoever loads, publishes and unloads versions. Used by the manager's thread."""

    def start(self, events: EventSink) -> None:
        """Begin to carry commands out; each event about a version is put into `events`."""
        ...

    def handle(self, command: VersionCommand) -> None:
        """Carry out a command, or begin to; returns at once. An exception means that it failed."""
        ...

    def give_up(self, overdue: LoadOverdue) -> bool:
        """Give up an attempt to load that is overdue; return False if it has just ended."""
        ...

    def label(self, labels: Labels) -> None:
        """Replace all labels. Thread-safe."""
        ...

    def stop_loads(self, timeout_s: float) -> list[str]:
        """End the loads under way; return the names of threads that still run at the end."""
        ...

    def stop(self, timeout_s: float) -> list[str]:
        """End what unloads; return the names of threads that still run at the end."""
        ...
