"""Ends runs that nobody waits for any more: a looping call must not take a core for ever.

TensorFlow checks a timeout only where a run has threads of its own, and ours run in the calling
thread, which is faster. So one thread looks at the runs that are under way, and closes the session
of one that should be over: that is the one way to end it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from servingd.machine.memory import status_bytes

GRACE_S = 5.0
"""A run may go on so long after its last caller has left: most end by themselves."""

_LOOK_S = 0.25

_log = logging.getLogger(__name__)


class Waiting(Protocol):
    """Who waits for a run."""

    def alive(self) -> bool:
        """Whether it still does; from any thread."""
        ...


class Watched(Protocol):
    """A session whose runs are watched."""

    runs: dict[int, Waiting]
    """Who waits for each run that is under way, by the thread that runs it."""

    @property
    def unwanted(self) -> bool:
        """Whether its version is not wanted any more: then whatever runs is overdue."""
        ...

    def overdue(self, *, stopping: bool) -> None:
        """A run goes on that nobody waits for; told once. `stopping`: no session is needed."""
        ...


class MadeUpRun:
    """Who waits for a run on inputs that nobody sent: until it has used up its time or its memory.

    The memory is what the whole process grows by meanwhile, since nobody can tell whose it is.
    """

    __slots__ = ("_at_most", "_cancelled", "_until")

    def __init__(self, seconds: float, growth_bytes: int, cancelled: threading.Event) -> None:
        self._until = time.monotonic() + seconds
        self._at_most = status_bytes("VmRSS") + growth_bytes
        self._cancelled = cancelled

    def alive(self) -> bool:
        """Whether it may go on."""
        if self._cancelled.is_set() or time.monotonic() >= self._until:
            return False
        return status_bytes("VmRSS") <= self._at_most


class RunWatch:
    """Owns the thread `run-watch`, which is there while there are sessions to watch."""

    def __init__(self, grace_s: float = GRACE_S, look_s: float = _LOOK_S) -> None:
        self._grace_s = grace_s
        self._look_s = look_s
        self._changed = threading.Condition()
        self._sessions: list[Watched] = []  # guarded by _changed
        self._thread: threading.Thread | None = None  # guarded by _changed
        self._stopping = False
        self._since: dict[tuple[int, int], float] = {}  # the watch's thread alone

    def add(self, session: Watched) -> None:
        """Watch a session's runs from now on."""
        with self._changed:
            self._sessions.append(session)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="run-watch", daemon=True)
                self._thread.start()

    def remove(self, session: Watched) -> None:
        """Watch a session no more."""
        with self._changed:
            if session in self._sessions:
                self._sessions.remove(session)
            self._changed.notify()

    def stop(self) -> None:
        """From now on every run is overdue; the thread ends with the last session."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    # The watch's thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(self._look_s)
                if not self._sessions:
                    self._thread = None
                    return
                sessions = list(self._sessions)
            try:
                self._look(sessions)
            except BaseException:  # the next look may go well
                _log.exception("the runs under way could not be looked at")
            del sessions  # else one lives on after it was removed

    def _look(self, sessions: list[Watched]) -> None:
        now, before = time.monotonic(), self._since
        self._since = {}
        for session in sessions:
            runs = session.runs.copy().values()
            stopping = self._stopping or session.unwanted
            overdue = [self._is_overdue(session, run, now, before, stopping) for run in runs]
            if any(overdue):
                session.overdue(stopping=stopping)

    def _is_overdue(
        self,
        session: Watched,
        run: Waiting,
        now: float,
        before: dict[tuple[int, int], float],
        stopping: bool,
    ) -> bool:
        if stopping:
            return True
        if run.alive():
            return False
        key = (id(session), id(run))
        since = self._since[key] = before.get(key, now)
        # A limit of ours is meant as it is said.
        return isinstance(run, MadeUpRun) or now - since >= self._grace_s
