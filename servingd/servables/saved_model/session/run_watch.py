"""Ends runs that nobody waits for any more: a looping call must not take a core for ever.

TensorFlow checks a timeout only where a run has threads of its own, and ours run in the calling
thread, which is faster. So one thread checks the runs under way at an interval, and closes the
session of a run that should be over: TensorFlow has no other way to end it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from servingd.machine.memory import status_bytes

GRACE_S = 5.0
"""Seconds that a run may go on after its last caller has left: most end by themselves.

Ending a run costs the session, so it must be the exception.
"""

_INTERVAL_S = 0.25
"""Seconds between two checks: a fraction of the shortest limit, and too rare to cost anything."""

_log = logging.getLogger(__name__)


class RunOwner(Protocol):
    """Whoever waits for a run: a call's `Completion`, or a `SyntheticRun`."""

    def alive(self) -> bool:
        """Return whether it still waits; from any thread."""
        ...


class WatchedSession(Protocol):
    """A session whose runs are watched."""

    runs: dict[int, RunOwner]
    """Who waits for each run under way, by the id of the thread that runs it."""

    @property
    def cancelled(self) -> bool:
        """Whether its version is being unloaded: then every run is overdue."""
        ...

    def overdue(self, *, stopping: bool) -> None:
        """Handle a run that goes on though nobody waits for it; from the watch's thread.

        Called at each check until the run ends. `stopping`: the session will not be needed again.
        """
        ...


class SyntheticRun:
    """The owner of a run on synthetic inputs: it waits until time or memory are used up.

    Memory is what the whole process has grown by since, as nobody can tell whose it is.
    """

    __slots__ = ("_cancelled", "_deadline", "_max_bytes")

    def __init__(self, max_s: float, max_growth_bytes: int, cancelled: threading.Event) -> None:
        """Begin now; see `RunLimits`."""
        self._deadline = time.monotonic() + max_s
        self._max_bytes = status_bytes("VmRSS") + max_growth_bytes
        self._cancelled = cancelled

    def alive(self) -> bool:
        """Return whether the run may go on."""
        if self._cancelled.is_set() or time.monotonic() >= self._deadline:
            return False
        return status_bytes("VmRSS") <= self._max_bytes


class RunWatch:
    """Owns the thread `run-watch`, which runs while there are sessions to watch."""

    def __init__(self, grace_s: float = GRACE_S, interval_s: float = _INTERVAL_S) -> None:
        self._grace_s = grace_s
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._sessions: list[WatchedSession] = []  # guarded by _changed
        self._thread: threading.Thread | None = None  # guarded by _changed
        self._stopping = False
        # When a run was first seen without an owner that waits, by the ids of session and owner.
        self._abandoned_at: dict[tuple[int, int], float] = {}  # the watch's thread alone

    def add(self, session: WatchedSession) -> None:
        """Watch a session's runs from now on."""
        with self._changed:
            self._sessions.append(session)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="run-watch", daemon=True)
                self._thread.start()

    def remove(self, session: WatchedSession) -> None:
        """Watch a session no more."""
        with self._changed:
            if session in self._sessions:
                self._sessions.remove(session)
            self._changed.notify()

    def stop(self) -> None:
        """Treat every run as overdue from now on; the thread ends with the last session."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    # The watch's thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(self._interval_s)
                if not self._sessions:
                    self._thread = None
                    return
                sessions = list(self._sessions)
            try:
                self._check(sessions)
            except BaseException:  # the next check may go well
                _log.exception("the runs under way could not be looked at")
            del sessions  # else a session lives on after it was removed

    def _check(self, sessions: list[WatchedSession]) -> None:
        now, before = time.monotonic(), self._abandoned_at
        self._abandoned_at = {}
        for session in sessions:
            owners = session.runs.copy().values()
            stopping = self._stopping or session.cancelled
            overdue = [self._is_overdue(session, owner, now, before, stopping) for owner in owners]
            if any(overdue):
                session.overdue(stopping=stopping)

    def _is_overdue(
        self,
        session: WatchedSession,
        owner: RunOwner,
        now: float,
        before: dict[tuple[int, int], float],
        stopping: bool,
    ) -> bool:
        if stopping:
            return True
        if owner.alive():
            return False
        key = (id(session), id(owner))
        since = self._abandoned_at[key] = before.get(key, now)
        # The limits of a synthetic run are final: it gets no grace.
        return isinstance(owner, SyntheticRun) or now - since >= self._grace_s
