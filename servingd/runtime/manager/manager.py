"""The single owner of all versions: one thread that asks the core and carries its commands out.

Theory of operation. Everything that happens is an event in one inbox: what a source aspires, the
end of a load, the last handle of a version that was given back, a retry that is due, the stop. The
thread `manager` takes one event at a time, asks `ManagerState` what to do, and carries the commands
out in their order. It never waits for a load, a request, a disk or a lock held for long: commands
about versions go to the fleet (`fleet.py`), which returns at once, and the ends of its jobs come
back as events. So no lock guards the state, and the whole life cycle is tested as data.

A command that fails becomes an event too (`PublishFailed`, `LoadFailed`): nothing is only logged. A
job may be given up when its time is over; whichever of job and deadline comes first decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from servingd.core.lifecycle.events import (
    Announce,
    CancelRetry,
    Command,
    Configured,
    Event,
    Explain,
    LoadOverdue,
    PublishFailed,
    ReportIncomplete,
    RetryDue,
    ScheduleRetry,
    Stop,
)
from servingd.core.lifecycle.failures import event_of_failure
from servingd.core.lifecycle.harness import LoadPlan
from servingd.core.lifecycle.reconcile import ManagerState
from servingd.core.lifecycle.states import HarnessState
from servingd.core.resources.placement import LoadRules
from servingd.core.types import AspiredVersions, ServableId
from servingd.runtime.inbox import Inbox
from servingd.runtime.manager.fleet import Fleet
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.runtime.threads import join

_PLAN_S = 0.25
"""The age in seconds of the plan that is shown, at most, while events keep arriving."""

_LOADS_END_S = 1.0
"""The seconds that a cancelled load may take to end when the server stops."""

_log = logging.getLogger(__name__)


class Manager:
    """Loads, serves and unloads the versions that sources aspire. `start` and `stop` once each."""

    def __init__(
        self,
        state: ManagerState,
        fleet: Fleet,
        monitor: StateMonitor,
    ) -> None:
        self._state = state  # the manager's thread alone
        self._fleet = fleet
        self._monitor = monitor
        self._inbox = Inbox()
        self._thread = threading.Thread(target=self._run, name="manager", daemon=True)
        self._answered = threading.Event()  # set once a stop has only loads under way
        self._empty = threading.Event()  # set once a stop has unloaded everything
        self._plan = LoadPlan()  # replaced whole by the manager's thread
        self._planned_at = 0.0  # the manager's thread alone

    def start(self) -> None:
        """Start the threads."""
        self._fleet.start(self._inbox)
        self._thread.start()

    def aspire(self, statement: AspiredVersions) -> None:
        """Enqueue a source's aspired versions. Thread-safe; returns at once."""
        self._inbox.put(statement)

    def configure(self, rules: Mapping[str, LoadRules]) -> None:
        """Enqueue the rules for later loads, by model. Thread-safe; returns at once."""
        self._inbox.put(Configured(rules))

    @property
    def plan(self) -> LoadPlan:
        """The memory and devices that each version holds; readable from any thread."""
        return self._plan

    def stop(self, timeout_s: float) -> bool:
        """Unload everything and end the threads; return False if something did not end in time.

        A load under way is cancelled but waited for only briefly: no call depends on it, and it may
        be in the middle of an import.
        """
        deadline = time.monotonic() + timeout_s
        self._inbox.put(Stop())
        self._answered.wait(timeout_s)
        loading = self._fleet.stop_loads(min(_left(deadline), _LOADS_END_S))
        empty = not loading and self._empty.wait(_left(deadline))
        if not empty:
            _log.warning("not everything could be unloaded within %.1f s", timeout_s)
        self._inbox.close()
        stuck = join([self._thread], _left(deadline)) + self._fleet.stop(_left(deadline))
        return empty and not stuck

    # The manager's thread -------------------------------------------------------------------------

    def _run(self) -> None:
        """Handle events until the inbox is closed; the thread's main loop."""
        stopping = False
        while (event := self._inbox.get()) is not None:
            stopping = stopping or isinstance(event, Stop)
            if not isinstance(event, LoadOverdue) or self._fleet.give_up(event):
                self._handle(event)
            self._refresh_plan()
            if stopping:
                self._report_stop_progress()

    def _refresh_plan(self) -> None:
        """Update the plan once a burst of events is over, or every `_PLAN_S` seconds during one."""
        now = time.monotonic()
        if self._inbox.is_empty or now - self._planned_at >= _PLAN_S:
            self._plan, self._planned_at = self._state.plan(), now

    def _handle(self, event: Event) -> None:
        """Decide an event and carry its commands out, in their order."""
        unpublished: list[PublishFailed] = []
        for command in self._decide(event):
            if any(_announces(command, failed.id) for failed in unpublished):
                continue
            try:
                self._carry_out(command)
            except BaseException as error:  # a fault in one must not end the others
                _log.exception("the manager failed to carry out %s", command)
                failed = event_of_failure(command, error)
                if isinstance(failed, PublishFailed):
                    unpublished.append(failed)
                elif failed is not None:
                    self._inbox.put(failed)
        for failed in unpublished:  # before any other event of that version
            self._handle(failed)

    def _report_stop_progress(self) -> None:
        """Set the events that `stop` waits for."""
        left = [harness.state for harness in self._state.harnesses()]
        if all(state is HarnessState.LOADING for state in left):
            self._answered.set()
        if not left:
            self._empty.set()

    def _decide(self, event: Event) -> list[Command]:
        try:
            return self._state.handle(event)
        except BaseException:
            _log.exception("the manager failed to handle %s", event)
            return []

    def _carry_out(self, command: Command) -> None:
        match command:
            case Announce(state):
                self._monitor.announce(state)
            case ReportIncomplete(name, incomplete):
                self._monitor.report_incomplete(name, incomplete)
            case Explain(_, text):
                _log.info("%s", text)
            case ScheduleRetry(servable_id, after_s):
                self._inbox.put_after(RetryDue(servable_id), after_s)
            case CancelRetry(servable_id):
                self._inbox.cancel(RetryDue(servable_id))
            case _:
                self._fleet.handle(command)


def _left(deadline: float) -> float:
    """Return the seconds until `deadline`, but at least 0.1."""
    return max(0.1, deadline - time.monotonic())


def _announces(command: Command, servable_id: ServableId) -> bool:
    return isinstance(command, Announce) and command.state.id == servable_id
