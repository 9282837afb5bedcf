"""The manager's one inbox: events, and timed events.

Bounded by its senders: one pending statement per model (a newer one replaces it, in place), one
completion per version under way, one timer per version that waits for a retry.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque

from servingd.core.lifecycle.events import Event
from servingd.core.types import AspiredVersions


class Inbox:
    """Events in order of arrival, and timed ones when they are due. One reader, many writers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # All below: guarded by _changed.
        self._events: deque[Event | str] = deque()  # a name stands for that model's statement
        self._statements: dict[str, AspiredVersions] = {}
        self._timers: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._closed = False

    def put(self, event: Event) -> None:
        """Add an event. Thread-safe. After `close` the event is dropped."""
        with self._changed:
            if self._closed:
                return
            if isinstance(event, AspiredVersions):
                if event.name not in self._statements:
                    self._events.append(event.name)
                self._statements[event.name] = event
            else:
                self._events.append(event)
            self._changed.notify()

    def put_after(self, event: Event, delay_s: float) -> None:
        """Add an event that is due in `delay_s` seconds."""
        with self._changed:
            due = time.monotonic() + delay_s
            heapq.heappush(self._timers, (due, next(self._order), event))
            self._changed.notify()

    def cancel(self, event: Event) -> None:
        """Remove a timed event that is not due yet."""
        with self._changed:
            self._timers = [t for t in self._timers if t[2] != event]
            heapq.heapify(self._timers)

    def get(self) -> Event | None:
        """Wait for the next event and return it; None once closed and empty."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._timers and self._timers[0][0] <= now:
                    return heapq.heappop(self._timers)[2]
                if self._events:
                    event = self._events.popleft()
                    return self._statements.pop(event) if isinstance(event, str) else event
                if self._closed:
                    return None
                self._changed.wait(self._timers[0][0] - now if self._timers else None)

    @property
    def is_empty(self) -> bool:
        """Whether no event is queued; read without the lock, so only a hint."""
        return not self._events

    def close(self) -> None:
        """Accept no more events; `get` returns None once the queued ones have been read."""
        with self._changed:
            self._closed = True
            self._timers.clear()
            self._changed.notify()
