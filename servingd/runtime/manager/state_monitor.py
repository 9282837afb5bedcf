"""Record every public state, and notify the log, metrics, health checks and waiters."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from servingd.core.lifecycle.history import Notify, StateHistory
from servingd.core.lifecycle.states import PublicState, ServableState

_log = logging.getLogger(__name__)


class OnIncomplete(Protocol):
    """Who is told which versions of a model cannot be loaded yet."""

    def __call__(self, name: str, incomplete: Mapping[int, str], /) -> None:
        """Take the reason for each incomplete version, in the place of the model's last ones."""
        ...


class StateMonitor:
    """A lock around StateHistory, and its subscribers.

    Subscribers and waiters are called without the lock, on the announcing thread, in the order of
    the announcements; they must be short. Subscribe before the manager starts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history = StateHistory()  # guarded by _lock
        self._absent: dict[str, str] = {}  # guarded by _lock
        # Constant once the manager runs.
        self._subscribers: list[Callable[[ServableState], None]] = []
        self._incomplete_subscribers: list[OnIncomplete] = []

    def subscribe(self, subscriber: Callable[[ServableState], None]) -> None:
        """Call `subscriber` with every state from now on."""
        self._subscribers.append(subscriber)

    def subscribe_incomplete(self, subscriber: OnIncomplete) -> None:
        """Call `subscriber` with a model's incomplete versions whenever they change."""
        self._incomplete_subscribers.append(subscriber)

    def announce(self, state: ServableState) -> None:
        """Record a state and notify subscribers. Called by the manager's thread only."""
        with self._lock:
            if state.state is not PublicState.END:
                self._absent.pop(state.id.name, None)  # the model has a version again
            due = self._history.record(state)
        for subscriber in self._subscribers:
            _guard(subscriber, state)
        _call(due)

    def report_incomplete(self, name: str, incomplete: Mapping[int, str]) -> None:
        """Record a model's incomplete versions."""
        with self._lock:
            self._history.report_incomplete(name, incomplete)
        for subscriber in self._incomplete_subscribers:
            _guard(subscriber, name, incomplete)

    def report_absent(self, name: str, reason: str) -> None:
        """Record why a model has no version to load: none found, or its folder does not answer.

        An empty reason clears the record. Thread-safe.
        """
        with self._lock:
            if not reason:
                self._absent.pop(name, None)
                return
            self._absent[name] = reason
            due = self._history.report_absent(name)
        _call(due)

    def why_not(self, name: str) -> str:
        """Return why a model has no version that is available, in TensorFlow Serving's form."""
        return self.trouble(name) or (
            f"{{name: {name}}} due to error: NOT_FOUND: no version of it has been found"
        )

    def trouble(self, name: str) -> str:
        """Return what keeps a model from being available; empty if nothing is known.

        The text has TensorFlow Serving's form.
        """
        with self._lock:
            failed = [s for s in self._history.of_model(name) if s.error is not None]
            absent = self._absent.get(name)
        if failed and failed[0].error is not None:
            return f"{failed[0].id} due to error: {failed[0].error.code.name}: {failed[0].error}"
        return f"{{name: {name}}} due to error: NOT_FOUND: {absent}" if absent else ""

    def absent(self, name: str) -> str:
        """Return why a model has no version that can be loaded; empty if it has or may have one."""
        with self._lock:
            return self._absent.get(name, "")

    def configure(self, names: Iterable[str]) -> None:
        """Replace the set of configured models. Thread-safe."""
        with self._lock:
            due = self._history.configure(names)
            self._absent = {n: r for n, r in self._absent.items() if n in self._history.configured}
        _call(due)

    def notify_when(
        self, names: Collection[str], goal: PublicState, notify: Notify, patient: bool = True
    ) -> None:
        """Call `notify` once each model has a version in `goal` or has failed.

        See `StateHistory.notify_when`.
        """
        with self._lock:
            due = self._history.notify_when(names, goal, notify, patient)
        _call(due)

    def forget(self, notify: Notify) -> None:
        """Remove a waiter."""
        with self._lock:
            self._history.forget(notify)

    def of_model(self, name: str) -> Sequence[ServableState]:
        """Return a model's last states, newest version first."""
        with self._lock:
            return self._history.of_model(name)

    def incomplete(self, name: str) -> Mapping[int, str]:
        """Return a model's incomplete versions, each with the reason."""
        with self._lock:
            return self._history.incomplete(name)

    def names(self) -> Sequence[str]:
        """Return every model that is configured or has a state, in alphabetical order."""
        with self._lock:
            return self._history.names()

    def configured(self) -> frozenset[str]:
        """Return the models that should be served."""
        with self._lock:
            return self._history.configured

    def available(self) -> frozenset[str]:
        """Return the models with a version that is AVAILABLE."""
        with self._lock:
            return self._history.available()


def _call(due: list[tuple[Notify, bool]]) -> None:
    for notify, reached in due:
        _guard(notify, reached)


def _guard(listener: Callable[..., None], *news: object) -> None:
    """Call a listener; log an exception, so that the other listeners are still called."""
    try:
        listener(*news)
    except BaseException:
        _log.exception("a subscriber to states failed")
