"""The public states of every version, and who waits for one.

Pure; `runtime/manager/state_monitor.py` puts a lock around it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.errors import Code

Notify: TypeAlias = Callable[[bool], None]
"""Told once that a waiter's time has come: whether every model has reached the goal."""


@dataclass(slots=True)
class _Waiter:
    """A callback, and the states of models that it waits for."""

    names: frozenset[str]
    goal: PublicState
    notify: Notify
    since: int
    patient: bool
    absent: set[str] = field(default_factory=set)
    """The models for which it no longer waits: they are not there."""


class StateHistory:
    """The last state of each version of each model.

    Ended versions are remembered, as in TensorFlow Serving, but only the `max_ended` newest of a
    model, and none of a model that is not configured any more.
    """

    def __init__(self, max_ended: int = 10) -> None:
        self._max_ended = max_ended
        self._states: dict[str, dict[int, ServableState]] = {}
        self._failed: dict[
            str, int
        ] = {}  # the number of the announcement of a model's last failure
        self._announcements = 0
        self._incomplete: dict[str, Mapping[int, str]] = {}
        self._configured: frozenset[str] = frozenset()
        self._removed: set[str] = set()  # models no longer configured that still have versions
        self._waiters: list[_Waiter] = []

    def record(self, state: ServableState) -> list[tuple[Notify, bool]]:
        """Record a state; return the callbacks that are now due, each with its argument."""
        versions = self._states.setdefault(state.id.name, {})
        versions[state.id.version] = state
        self._announcements += 1
        if state.state is PublicState.END and state.error is not None and not _cancelled(state):
            self._failed[state.id.name] = self._announcements
        ended = sorted(v for v, s in versions.items() if s.state is PublicState.END)
        for version in ended[: -self._max_ended or None]:
            del versions[version]
        due = self._satisfied()
        self._forget_removed()
        return due

    def report_incomplete(self, name: str, incomplete: Mapping[int, str]) -> None:
        """Replace a model's incomplete versions."""
        if incomplete:
            self._incomplete[name] = incomplete
        else:
            self._incomplete.pop(name, None)

    def report_absent(self, name: str) -> list[tuple[Notify, bool]]:
        """Record that a model has no version that can be loaded; return the callbacks now due.

        Waiters that are not `patient` no longer wait for it.
        """
        for waiter in self._waiters:
            if not waiter.patient and name in waiter.names:
                waiter.absent.add(name)
        return self._satisfied()

    def configure(self, names: Iterable[str]) -> list[tuple[Notify, bool]]:
        """Replace the set of configured models; return the callbacks now due.

        Nobody waits for a model that was removed.
        """
        before, self._configured = self._configured, frozenset(names)
        for waiter in self._waiters:
            waiter.absent -= self._configured - before
            waiter.absent |= (before - self._configured) & waiter.names
        self._removed = (self._removed | before) - self._configured
        due = self._satisfied()
        self._forget_removed()
        return due

    def _forget_removed(self) -> None:
        """Forget the removed models whose versions have all ended."""
        for name in list(self._removed):
            states = self._states.get(name, {}).values()
            if all(s.state is PublicState.END for s in states):
                self._removed.discard(name)
                self._states.pop(name, None)
                self._failed.pop(name, None)
                self._incomplete.pop(name, None)

    def notify_when(
        self, names: Collection[str], goal: PublicState, notify: Notify, patient: bool = True
    ) -> list[tuple[Notify, bool]]:
        """Call `notify` once, when each model has a version in `goal`, or only ended versions.

        A cancelled version does not count: another one took its place, or its model was removed. A
        waiter that is not `patient` ignores versions that ended earlier, but gives up a model that
        fails from now on, or that has no version to load. `notify` gets True if every model reached
        the goal. Returns the callbacks that are due at once.
        """
        waiter = _Waiter(frozenset(names), goal, notify, self._announcements, patient)
        self._waiters.append(waiter)
        return self._satisfied()

    def forget(self, notify: Notify) -> None:
        """Remove a waiter, for instance because its time is up."""
        self._waiters = [w for w in self._waiters if w.notify != notify]

    # Queries --------------------------------------------------------------------------------------

    @property
    def configured(self) -> frozenset[str]:
        """The models that should be served."""
        return self._configured

    def names(self) -> list[str]:
        """Return every model that is configured or has a state, in alphabetical order."""
        return sorted(self._configured | self._states.keys() | self._incomplete.keys())

    def of_model(self, name: str) -> list[ServableState]:
        """Return a model's last states, newest version first: the order of GetModelStatus."""
        states = self._states.get(name, {})
        return [states[version] for version in sorted(states, reverse=True)]

    def incomplete(self, name: str) -> Mapping[int, str]:
        """Return a model's incomplete versions on disk, each with the reason."""
        return self._incomplete.get(name, {})

    def available(self) -> frozenset[str]:
        """Return the models with a version that is AVAILABLE."""
        return frozenset(n for n in self._states if self._has(n, PublicState.AVAILABLE))

    def _has(self, name: str, goal: PublicState) -> bool:
        return any(s.state is goal for s in self._states.get(name, {}).values())

    def _over(self, name: str, waiter: _Waiter) -> bool:
        """Return whether a waiter need not wait for a model any more."""
        states = [s for s in self._states.get(name, {}).values() if not _cancelled(s)]
        ended = all(s.state is PublicState.END for s in states)
        if waiter.patient:
            return ended and (bool(states) or name in waiter.absent)
        failed = self._failed.get(name, 0) > waiter.since
        return ended and (failed or name in waiter.absent)

    def _satisfied(self) -> list[tuple[Notify, bool]]:
        """Remove and return the waiters whose models have all reached the goal or ended."""
        due: list[tuple[Notify, bool]] = []
        waiting: list[_Waiter] = []
        for waiter in self._waiters:
            reached = [self._has(name, waiter.goal) for name in waiter.names]
            if all(
                there or self._over(name, waiter)
                for name, there in zip(waiter.names, reached, strict=True)
            ):
                due.append((waiter.notify, all(reached)))
            else:
                waiting.append(waiter)
        self._waiters = waiting
        return due


def _cancelled(state: ServableState) -> bool:
    """Return whether a version was cancelled before it was loaded; that is no failure."""
    return (
        state.state is PublicState.END
        and state.error is not None
        and state.error.code is Code.CANCELLED
    )
