"""The single owner of all harnesses: one thread that asks the core and carries its commands out.

It never blocks on a load, a request, a disk or a lock held for long: loads and unloads run on their
own pools, drained leases and finished jobs come back as events.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from servingd.core.estimates import UNKNOWN, Estimate
from servingd.core.events import (
    Announce,
    CancelLoad,
    CancelRetry,
    Command,
    Configured,
    Discard,
    Drained,
    Estimated,
    Event,
    Explain,
    Grown,
    LetGrow,
    LoadFailed,
    LoadSucceeded,
    Publish,
    Quiesce,
    Relocate,
    Relocated,
    ReplicaFailed,
    ReportIncomplete,
    RetryDue,
    ScheduleRetry,
    StartEstimate,
    StartLoad,
    StartUnload,
    Stop,
    Unloaded,
)
from servingd.core.harness import LoadPlan
from servingd.core.interfaces import Dispatcher, Lane, Loader, Relocates, Replicated, Servable
from servingd.core.lifecycle import HarnessState
from servingd.core.placement import LoadRules
from servingd.core.reconcile import ManagerState
from servingd.core.types import (
    CPU_0,
    AspiredVersions,
    Device,
    Placement,
    ServableId,
    VersionData,
)
from servingd.errors import Cancelled, Code, as_serving_error, error_from_code
from servingd.runtime.inbox import Inbox
from servingd.runtime.memory import MemoryMeter
from servingd.runtime.serving_map import ServingMap
from servingd.runtime.state_monitor import StateMonitor
from servingd.runtime.threads import WorkerPool, join

MakeLoader = Callable[[ServableId, VersionData], Loader]
OnLoad = Callable[[ServableId, float, bool], None]
WarmUpCall = Callable[[ServableId, VersionData, Servable], None]

_LOADS_END_S = 1.0
"""At a stop a load that is not wanted any more may take so long to end."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerOptions:
    """How loads are run."""

    num_load_threads: int = 2
    """Loads at a time."""

    num_unload_threads: int = 1
    """Unloads at a time."""

    warm_up: WarmUpCall = lambda servable, data, body: None
    """The last part of each load, in its thread; what it raises is the load's failure."""

    devices: Callable[[], Mapping[Device, int]] = lambda: {CPU_0: 0}
    """The devices that there are, each with the bytes of its own memory that may be used (0: no
    limit of its own). Asked on the load pool, before each load that is put on devices."""

    meter: MemoryMeter | None = None
    """Sees what loads take; None: estimates are all that is known."""


@dataclass(slots=True)
class _Live:
    """A loader and, once it has loaded, its servable.

    Filled by the pool thread that runs its job, read by the manager's thread after that job's
    event: the inbox orders the two.
    """

    loader: Loader | None = None
    servable: Servable | None = None
    lanes: Mapping[str, Lane] | None = None
    cancelled: bool = False
    """Set by the manager's thread before it tells the loader, which a pool thread may just make."""


class Manager:
    """Loads, serves and unloads what sources aspire. `start` and `stop` once each."""

    def __init__(
        self,
        state: ManagerState,
        make_loader: MakeLoader,
        serving_map: ServingMap,
        monitor: StateMonitor,
        dispatcher: Dispatcher,
        options: ManagerOptions | None = None,
        on_load: OnLoad = lambda servable, seconds, succeeded: None,
    ) -> None:
        self._options = options or ManagerOptions()
        self._state = state  # the manager's thread alone
        self._live: dict[ServableId, _Live] = {}  # the manager's thread alone
        self._make_loader = make_loader
        self._serving_map = serving_map
        self._monitor = monitor
        self._dispatcher = dispatcher
        self._on_load = on_load
        self._inbox = Inbox()
        self._loads = WorkerPool("load", self._options.num_load_threads)
        self._unloads = WorkerPool("unload", self._options.num_unload_threads)
        self._thread = threading.Thread(target=self._run, name="manager", daemon=True)
        self._answered = threading.Event()  # set once only loads are under way after stop
        self._empty = threading.Event()  # set once everything is unloaded after stop
        self._plan = LoadPlan()  # replaced whole by the manager's thread

    def start(self) -> None:
        """Start the threads."""
        self._loads.start()
        self._unloads.start()
        self._thread.start()

    def aspire(self, statement: AspiredVersions) -> None:
        """Take a source's statement; from any thread, returns at once."""
        self._inbox.put(statement)

    def configure(self, rules: Mapping[str, LoadRules]) -> None:
        """Say where models' loads go from now on; from any thread, returns at once."""
        self._inbox.put(Configured(rules))

    def grown(self, servable: ServableId, grew: bool) -> None:
        """A version with room to grow has, or never will; from any thread, returns at once."""
        self._inbox.put(Grown(servable, grew))

    def replica_failed(self, servable: ServableId, device: Device) -> None:
        """A replica does not work on its device any more; from any thread, returns at once."""
        self._inbox.put(ReplicaFailed(servable, device))

    @property
    def plan(self) -> LoadPlan:
        """Who holds what memory, and where; from any thread."""
        return self._plan

    def stop(self, timeout_s: float) -> bool:
        """Unload everything and end the threads; False if something would not end in time.

        A load that is under way is told to end, but hardly waited for: it holds nobody's answer,
        and may be in the midst of an import.
        """
        deadline = time.monotonic() + timeout_s
        self._inbox.put(Stop())
        self._answered.wait(timeout_s)
        loading = self._loads.stop(min(_left(deadline), _LOADS_END_S))
        empty = not loading and self._empty.wait(_left(deadline))
        if not empty:
            _log.warning("not everything could be unloaded within %.1f s", timeout_s)
        self._inbox.close()
        stuck = join([self._thread], _left(deadline)) + self._unloads.stop(_left(deadline))
        return empty and not stuck

    # The manager's thread -------------------------------------------------------------------------

    def _run(self) -> None:
        stopping = False
        while (event := self._inbox.get()) is not None:
            stopping = stopping or isinstance(event, Stop)
            for command in self._decide(event):
                try:
                    self._carry_out(command)
                except BaseException as error:  # harnesses outlive a fault in one
                    _log.exception("the manager failed to carry out %s", command)
                    self._give_up(command, error)
            self._plan = self._state.plan()
            if stopping:
                self._tell_what_is_left()

    def _tell_what_is_left(self) -> None:
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

    def _give_up(self, command: Command, error: BaseException) -> None:
        """Tell the core how a command ended that could not be carried out: it waits for that."""
        match command:
            case StartEstimate(servable) | StartLoad(servable):
                self._inbox.put(_failure(servable, error))
            case Relocate(servable):
                self._inbox.put(Relocated(servable, ()))
            case Quiesce(servable):
                self._inbox.put(Drained(servable))
            case StartUnload(servable):
                self._inbox.put(Unloaded(servable))

    def _carry_out(self, command: Command) -> None:
        live = self._live
        match command:
            case Announce(state):
                self._monitor.announce(state)
            case ReportIncomplete(name, incomplete):
                self._monitor.report_incomplete(name, incomplete)
            case Explain(_, text):
                _log.info("%s", text)
            case (
                StartEstimate()
                | StartLoad()
                | CancelLoad()
                | LetGrow()
                | Relocate()
                | StartUnload()
            ):
                self._ask_loader(command)
            case ScheduleRetry(servable, after_s):
                self._inbox.put_after(RetryDue(servable), after_s)
            case CancelRetry(servable):
                self._inbox.cancel(RetryDue(servable))
            case Publish(servable):
                body = live[servable].servable
                assert body is not None  # LoadSucceeded came first
                self._serving_map.publish(servable, body, self._drained, live[servable].lanes)
            case Quiesce(servable):
                self._serving_map.withdraw(servable)
            case Discard(servable):
                live.pop(servable, None)

    def _cancel_load(self, live: _Live) -> None:
        live.cancelled = True
        if live.loader is not None:
            live.loader.cancel()

    def _loader_of(self, servable: ServableId, data: VersionData, live: _Live) -> Loader:
        """A version's loader, for a job that begins on a pool thread."""
        live.loader = loader = live.loader or self._make_loader(servable, data)
        if live.cancelled:
            raise Cancelled("Loading of servable cancelled")
        return loader

    def _ask_loader(
        self, command: StartEstimate | StartLoad | CancelLoad | LetGrow | Relocate | StartUnload
    ) -> None:
        match command:
            case CancelLoad(servable):
                self._cancel_load(self._live[servable])
            case StartEstimate(servable, data):
                place = self._live.setdefault(servable, _Live())
                self._loads.submit(lambda: self._estimate(servable, data, place))
            case StartLoad(servable, data, placement):
                place = self._live.setdefault(servable, _Live())
                self._loads.submit(lambda: self._load(servable, data, place, placement))
            case LetGrow(servable):
                loader = self._live[servable].loader
                assert loader is not None  # it has loaded
                loader.grow()
            case Relocate(servable, failed, to):
                loader = self._live[servable].loader
                self._loads.submit(lambda: self._relocate(servable, loader, failed, to))
            case StartUnload(servable):
                departing = self._live.pop(servable)
                self._unloads.submit(lambda: self._unload(servable, departing))

    def _drained(self, servable: ServableId) -> None:
        self._inbox.put(Drained(servable))

    # Pool threads ---------------------------------------------------------------------------------

    def _estimate(self, servable: ServableId, data: VersionData, live: _Live) -> None:
        started = time.monotonic()
        try:
            estimate = _estimate_of(servable, self._loader_of(servable, data, live))
            devices = self._options.devices() if estimate.on_devices else {}
        except BaseException as error:  # a loader's own code may even raise SystemExit
            self._inbox.put(_failure(servable, error))
            self._on_load(servable, time.monotonic() - started, False)
        else:
            self._inbox.put(Estimated(servable, estimate, devices))

    def _load(
        self, servable: ServableId, data: VersionData, live: _Live, placement: Placement
    ) -> None:
        started, meter = time.monotonic(), self._options.meter
        span = meter.start(data.platform) if meter else None
        outcome: LoadSucceeded | LoadFailed = LoadSucceeded(servable)
        try:
            loader = self._loader_of(servable, data, live)
            live.servable, live.lanes = self._load_warm(servable, data, loader, placement)
        except BaseException as error:
            outcome = _failure(servable, error)
        measured = meter.stop(span) if meter and span else None
        if isinstance(outcome, LoadSucceeded) and measured:
            outcome = LoadSucceeded(servable, measured)
        self._inbox.put(outcome)
        self._on_load(servable, time.monotonic() - started, isinstance(outcome, LoadSucceeded))

    def _load_warm(
        self, servable: ServableId, data: VersionData, loader: Loader, placement: Placement
    ) -> tuple[Servable, Mapping[str, Lane]]:
        """A servable and its lanes: whatever may fail before it can serve fails here, as a load."""
        body = loader.load(placement)
        try:
            _log.debug("%s has signatures %s", servable, [*body.signatures, *body.metadata])
            for replica in body.replicas if isinstance(body, Replicated) else (body,):
                self._options.warm_up(servable, data, replica)
            return body, self._dispatcher.open(servable, body)
        except BaseException:
            _log.info("Unloading just-loaded servable version %s", servable)
            try:
                self._dispatcher.close(servable)
                loader.unload(body)
            except BaseException:  # the load's own failure is the one to tell
                _log.exception("Unloading servable: %s failed", servable)
            raise

    def _relocate(
        self, servable: ServableId, loader: object, failed: Device, to: Device | None
    ) -> None:
        devices: tuple[Device, ...] = ()
        try:
            if isinstance(loader, Relocates):
                devices = loader.relocate(failed, to)
        except BaseException:
            _log.exception("a replica of %s could not be moved", servable)
        self._inbox.put(Relocated(servable, devices))

    def _unload(self, servable: ServableId, departing: _Live) -> None:
        departing.lanes = None
        body, departing.servable = departing.servable, None
        meter = self._options.meter
        span = meter.start() if meter else None
        try:
            self._dispatcher.close(servable)
            if body is not None and departing.loader is not None:
                departing.loader.unload(body)
        except BaseException:  # what could not be freed is lost, but the version is gone
            _log.exception("Unloading servable: %s failed", servable)
        if meter and span:
            meter.stop(span)
        self._inbox.put(Unloaded(servable))


def _left(deadline: float) -> float:
    """The seconds until then, but always a moment."""
    return max(0.1, deadline - time.monotonic())


def _estimate_of(servable: ServableId, loader: Loader) -> Estimate:
    """What a loader says; a load whose needs are not known is tried all the same."""
    try:
        return loader.estimate()
    except BaseException as error:
        _log.warning("what %s will take is not known: %s", servable, error)
        return UNKNOWN


def _failure(servable: ServableId, error: BaseException) -> LoadFailed:
    _log.info("Loading servable: %s failed: %s", servable, error, exc_info=_fault(error))
    # A new error: the old one's traceback holds all that the load had in its hands.
    blamed = as_serving_error(error)
    told = error_from_code(blamed.code, blamed.message)
    # What is not there, such as TensorFlow, is not there the next time either.
    return LoadFailed(servable, told, retriable=blamed.code is not Code.UNIMPLEMENTED)


def _fault(error: BaseException) -> bool:
    """Whether an error is ours to explain: then the log has its traceback."""
    return as_serving_error(error) is not error
