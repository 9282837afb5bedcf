"""The pools that estimate, load, move and unload versions, and their jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from servingd.core.call_protocols import SignatureRunner
from servingd.core.callbacks import nothing
from servingd.core.lifecycle.events import (
    Estimated,
    EventSink,
    LoadFailed,
    LoadOverdue,
    LoadSucceeded,
    Relocated,
    Unloaded,
)
from servingd.core.lifecycle.failures import load_failure
from servingd.core.resources.footprints import UNKNOWN, Estimate
from servingd.core.servable import Dispatcher, Loader, Relocates, Replicated, Servable
from servingd.core.types import Device, Placement, ServableId, VersionData
from servingd.errors import Cancelled, as_serving_error
from servingd.runtime.threads import Job, WorkerPool
from servingd.runtime.versions.options import LoadOptions, WarmUpVersion

PATIENCE_S = 5.0
"""Seconds that other versions wait for a load that may hang."""

_log = logging.getLogger(__name__)


class OnLoad(Protocol):
    """Who is told of each attempt to load."""

    def __call__(self, servable_id: ServableId, seconds: float, succeeded: bool, /) -> None:
        """Take the attempt's seconds and outcome; on the load's thread, or the commanding one."""
        ...


@dataclass(slots=True)
class Attempt:
    """One job of a version. It ends or is given up; whichever comes first counts."""

    job: Job = nothing
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False  # guarded by _lock

    def close(self) -> bool:
        """Record that the job ended or was given up; return False if it is closed already."""
        with self._lock:
            first, self._over = not self._over, True
            return first


@dataclass(slots=True)
class Live:
    """A loader and, once it has loaded, its servable.

    Filled by the pool thread that runs its job, read by the commanding thread after that job's
    event: the inbox orders the two.
    """

    loader: Loader | None = None
    servable: Servable | None = None
    runners: Mapping[str, SignatureRunner] | None = None
    cancelled: bool = False
    """Set by the commanding thread before it cancels the loader, which may not be made yet."""
    attempt: Attempt | None = None
    """The last attempt; used by the commanding thread only."""

    def cancel(self) -> None:
        """Ask the job under way to end."""
        self.cancelled = True
        if self.loader is not None:
            self.loader.cancel()


class LoadJobs:
    """Owns the pools `load` and `unload`. One thread submits jobs; each ends in an event.

    An attempt has a deadline where there is a timeout. Job and deadline race for it, and the loser
    has no effect.
    """

    def __init__(
        self,
        make_loader: Callable[[ServableId, VersionData], Loader],
        dispatcher: Dispatcher,
        options: LoadOptions,
        on_load: OnLoad,
    ) -> None:
        self._make_loader = make_loader
        self._dispatcher = dispatcher
        self._options = options
        self._observe = on_load
        self._inbox: EventSink
        self._loads = WorkerPool("load", options.num_load_threads)
        self._unloads = WorkerPool("unload", options.num_unload_threads)

    def start(self, inbox: EventSink) -> None:
        """Start the threads; each job's event is put into `inbox`."""
        self._inbox = inbox
        self._loads.start()
        self._unloads.start()

    def stop_loads(self, timeout_s: float) -> list[str]:
        """End the threads that load; return the names of those still running at the end."""
        return self._loads.stop(timeout_s)

    def stop_unloads(self, timeout_s: float) -> list[str]:
        """End the threads that unload; return the names of those still running at the end."""
        return self._unloads.stop(timeout_s)

    # The commanding thread ------------------------------------------------------------------------

    def estimate(self, servable_id: ServableId, data: VersionData, live: Live) -> None:
        """Submit an estimate; it ends in Estimated or LoadFailed."""
        self._submit(data, live, lambda attempt: self._estimate(servable_id, data, live, attempt))

    def load(
        self, servable_id: ServableId, data: VersionData, live: Live, placement: Placement
    ) -> None:
        """Submit a load; it ends in LoadSucceeded or LoadFailed."""
        self._submit(
            data, live, lambda attempt: self._load(servable_id, data, live, placement, attempt)
        )

    def give_up(self, live: Live, event: LoadOverdue) -> bool:
        """Give up an attempt that is overdue; return False if it has just ended."""
        attempt = live.attempt
        if attempt is None or not attempt.close():
            return False
        _log.warning("the load of %s is given up after %g s", event.id, event.after_s)
        self._loads.give_up(attempt.job)
        self._observe(event.id, event.after_s, False)
        try:
            live.cancel()
        except BaseException:
            _log.exception("the load of %s cannot be cancelled", event.id)
        return True

    def relocate(
        self, servable_id: ServableId, loader: object, failed: Device, to: Device | None
    ) -> None:
        """Submit the move of a replica; it ends in Relocated."""
        self._loads.submit(lambda: self._relocate(servable_id, loader, failed, to))

    def unload(self, servable_id: ServableId, departing: Live) -> None:
        """Submit an unload; it ends in Unloaded."""
        self._unloads.submit(lambda: self._unload(servable_id, departing))

    def _submit(self, data: VersionData, live: Live, work: Callable[[Attempt], None]) -> None:
        live.attempt = attempt = Attempt()
        attempt.job = lambda: work(attempt)
        if self._options.may_hang(data.platform):
            attempt.job = self._impatient(attempt.job)
        self._loads.submit(attempt.job)

    def _impatient(self, work: Job) -> Job:
        """Return a job that may hang: if it takes long, another thread replaces its own.

        It goes on, and its outcome counts; but whoever is behind it in the queue waits no longer.
        """

        def job() -> None:
            timer = threading.Timer(PATIENCE_S, self._loads.give_up, (job,))
            timer.daemon, timer.name = True, "load-patience"
            timer.start()
            try:
                work()
            finally:
                timer.cancel()

        return job

    # Pool threads ---------------------------------------------------------------------------------

    def _loader_of(self, servable_id: ServableId, data: VersionData, live: Live) -> Loader:
        """Return a version's loader, made if necessary, for a job that begins on a pool thread."""
        live.loader = loader = live.loader or self._make_loader(servable_id, data)
        if live.cancelled:
            raise Cancelled("Loading of servable cancelled")
        return loader

    def _start_deadline(self, servable_id: ServableId) -> float:
        """Start the deadline of an attempt that begins on this thread; return the start time."""
        if self._options.load_timeout_s > 0:
            overdue = LoadOverdue(servable_id, self._options.load_timeout_s)
            self._inbox.put_after(overdue, overdue.after_s)
        return time.monotonic()

    def _record_end(self, servable_id: ServableId, attempt: Attempt) -> bool:
        """Record the end of an attempt; return False if it was given up before."""
        if not attempt.close():
            return False
        self._inbox.cancel(LoadOverdue(servable_id, self._options.load_timeout_s))
        return True

    def _estimate(
        self, servable_id: ServableId, data: VersionData, live: Live, attempt: Attempt
    ) -> None:
        """Estimate a version and send the event; on the load pool."""
        started = self._start_deadline(servable_id)
        outcome: Estimated | LoadFailed
        try:
            estimate = estimate_of(servable_id, self._loader_of(servable_id, data, live))
            devices = self._options.devices() if estimate.on_devices else {}
            outcome = Estimated(servable_id, estimate, devices)
        except BaseException as error:  # a loader's own code may even raise SystemExit
            outcome = failure(servable_id, error)
        if not self._record_end(servable_id, attempt):
            return
        self._inbox.put(outcome)
        if isinstance(outcome, LoadFailed):
            self._observe(servable_id, time.monotonic() - started, False)

    def _load(
        self,
        servable_id: ServableId,
        data: VersionData,
        live: Live,
        placement: Placement,
        attempt: Attempt,
    ) -> None:
        """Load and warm up a version, open its runners, and send the event; on the load pool."""
        started, meter = self._start_deadline(servable_id), self._options.meter
        span = meter.start(data.platform) if meter else None
        outcome: LoadSucceeded | LoadFailed = LoadSucceeded(servable_id)
        ended = False
        try:
            loader = self._loader_of(servable_id, data, live)
            servable = load_warm(servable_id, data, loader, placement, self._options.warm_up)
            ended = self._record_end(servable_id, attempt)
            if not ended:  # it was given up and never serves; another attempt may have loaded
                free(servable_id, loader, servable)
                return
            live.servable, live.runners = servable, self._open(servable_id, loader, servable)
        except BaseException as error:
            outcome = failure(servable_id, error)
            if not ended and not self._record_end(servable_id, attempt):
                return
        finally:
            measured = meter.stop(span) if meter and span else None
        if isinstance(outcome, LoadSucceeded) and measured:
            outcome = LoadSucceeded(servable_id, measured)
        self._inbox.put(outcome)
        self._observe(servable_id, time.monotonic() - started, isinstance(outcome, LoadSucceeded))

    def _open(
        self, servable_id: ServableId, loader: Loader, servable: Servable
    ) -> Mapping[str, SignatureRunner]:
        """Open a servable's runners; unload it if that fails."""
        try:
            return self._dispatcher.open(servable_id, servable)
        except BaseException:
            self._dispatcher.close(servable_id)
            free(servable_id, loader, servable)
            raise

    def _relocate(
        self, servable_id: ServableId, loader: object, failed: Device, to: Device | None
    ) -> None:
        """Move or free a version's replica and send the event; on the load pool."""
        devices: tuple[Device, ...] = ()
        try:
            if isinstance(loader, Relocates):
                devices = loader.relocate(failed, to)
        except BaseException:
            _log.exception("a replica of %s could not be moved", servable_id)
        self._inbox.put(Relocated(servable_id, devices))

    def _unload(self, servable_id: ServableId, departing: Live) -> None:
        """Close a version's runners, unload it, and send the event; on the unload pool."""
        departing.runners = None
        servable, departing.servable = departing.servable, None
        meter = self._options.meter
        span = meter.start() if meter else None
        try:
            self._dispatcher.close(servable_id)
            if servable is not None and departing.loader is not None:
                departing.loader.unload(servable)
        except BaseException:  # what could not be freed is lost, but the version is gone
            _log.exception("Unloading servable: %s failed", servable_id)
        if meter and span:
            meter.stop(span)
        self._inbox.put(Unloaded(servable_id))


def estimate_of(servable_id: ServableId, loader: Loader) -> Estimate:
    """Return a loader's estimate. One that fails is logged and unknown: the load is still tried."""
    try:
        return loader.estimate()
    except BaseException as error:
        _log.warning("the memory of %s cannot be estimated: %s", servable_id, error)
        return UNKNOWN


def load_warm(
    servable_id: ServableId,
    data: VersionData,
    loader: Loader,
    placement: Placement,
    warm_up: WarmUpVersion,
) -> Servable:
    """Load a version and warm it up; whatever fails before it serves fails as the load."""
    servable = loader.load(placement)
    try:
        _log.debug("%s has signatures %s", servable_id, [*servable.signatures, *servable.metadata])
        for replica in servable.replicas if isinstance(servable, Replicated) else (servable,):
            warm_up(servable_id, data, replica)
    except BaseException:
        free(servable_id, loader, servable)
        raise
    return servable


def free(servable_id: ServableId, loader: Loader, servable: Servable) -> None:
    """Unload a servable that never served; an exception is logged, not raised."""
    _log.info("Unloading just-loaded servable version %s", servable_id)
    try:
        loader.unload(servable)
    except BaseException:
        _log.exception("Unloading servable: %s failed", servable_id)


def failure(servable_id: ServableId, error: BaseException) -> LoadFailed:
    """Log a failed attempt, and return the event for it."""
    _log.info("Loading servable: %s failed: %s", servable_id, error, exc_info=_fault(error))
    return load_failure(servable_id, error)


def _fault(error: BaseException) -> bool:
    """Return whether an exception is a fault of ours, so that the log needs its traceback."""
    return as_serving_error(error) is not error
