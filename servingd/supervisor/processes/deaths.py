"""When a worker is begun anew, and which version is to blame for the death of workers.

Pure: no clock, no process.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from servingd.core.types import ServableId

MAX_STRIKES = 3
"""The deaths of workers after which a version is quarantined."""
_FORGOTTEN_S = 3600.0
"""Seconds after which a death no longer counts against a version."""
_PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_QUIET_S = 60.0
"""Seconds without a death after which the next worker is begun at once again."""

_CRASHES = frozenset(
    {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
)


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker has ended: a signal's number, or an exit status."""

    signal_number: int = 0
    status: int = 0
    out_of_memory: bool = False
    """Whether the kernel has killed a process of this control group for lack of memory."""

    @property
    def reason(self) -> str:
        """The reason as a metric's label: the signal's name, `oom`, or `exit`."""
        if self.signal_number == signal.SIGKILL and self.out_of_memory:
            return "oom"
        if self.signal_number:
            try:
                return signal.Signals(self.signal_number).name
            except ValueError:
                return f"signal {self.signal_number}"
        return "exit"

    @property
    def by_a_version(self) -> bool:
        """Whether what ran may be the cause: a crash, or code that ended the process.

        A SIGKILL or SIGTERM from outside is nobody's.
        """
        return self.reason == "oom" or self.signal_number in _CRASHES or self.status > 0

    def __str__(self) -> str:
        """Return it in words: the signal's name, `oom`, or the exit status."""
        return f"exit status {self.status}" if self.reason == "exit" else self.reason


@dataclass(slots=True)
class Strikes:
    """The deaths that count against each version."""

    _at: dict[ServableId, deque[float]] = field(default_factory=dict)

    def count(self, blamed: Iterable[ServableId], now: float) -> ServableId | None:
        """Count a death against versions; return the one to be quarantined, if any.

        Of several that have come to `MAX_STRIKES` with this death, the one with the most: the
        others ran beside it. What is counted for them is then forgotten.
        """
        due = []
        for servable_id in blamed:
            times = self._at.setdefault(servable_id, deque(maxlen=MAX_STRIKES * 4))
            while times and now - times[0] > _FORGOTTEN_S:
                times.popleft()
            times.append(now)
            if len(times) >= MAX_STRIKES:
                due.append(servable_id)
        if not due:
            return None
        worst = max(due, key=lambda servable_id: (len(self._at[servable_id]), servable_id))
        for servable_id in due:
            del self._at[servable_id]
        return worst

    def forget(self, servable_id: ServableId) -> None:
        """Forget what was counted against a version that is gone."""
        self._at.pop(servable_id, None)


@dataclass(slots=True)
class Backoff:
    """The pauses before a worker is begun anew: 0, 1, 2, 4 and up to 30 seconds."""

    _deaths: int = 0
    _last: float | None = None

    def pause(self, now: float) -> float:
        """Count a death at `now`; return the seconds to wait before the next start."""
        if self._last is not None and now - self._last > _QUIET_S:
            self._deaths = 0
        self._last = now
        pause = _PAUSES_S[min(self._deaths, len(_PAUSES_S) - 1)]
        self._deaths += 1
        return pause
