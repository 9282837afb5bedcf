"""Run estimates and loads: the options, the record of each version, and the jobs' outcomes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from servingd.core.calls import SignatureRunner
from servingd.core.lifecycle.events import LoadFailed
from servingd.core.resources.estimates import UNKNOWN, Estimate
from servingd.core.serving import Loader, Replicated, Servable
from servingd.core.types import CPU_0, Device, Placement, ServableId, VersionData
from servingd.errors import Code, as_serving_error, error_from_code
from servingd.runtime.manager.memory_meter import MemoryMeter
from servingd.runtime.threads import Job

_log = logging.getLogger(__name__)


WarmUpCall = Callable[[ServableId, VersionData, Servable], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerOptions:
    """The threads, limits and callbacks of loads."""

    num_load_threads: int = 2
    """The most loads at a time."""

    num_unload_threads: int = 1
    """The most unloads at a time."""

    warm_up: WarmUpCall = lambda servable_id, data, servable: None
    """Warms a servable up, on the load's thread; an exception fails the load."""

    devices: Callable[[], Mapping[Device, int]] = lambda: {CPU_0: 0}
    """Returns the devices that exist, each with the bytes of its own memory that may be used (0: no
    limit). Called on the load pool, before each load that is placed on devices.
    """

    load_timeout_s: float = 0.0
    """Seconds after which an estimate or a load is given up with its thread; 0: never."""

    meter: MemoryMeter | None = None
    """Measures what loads take; None: only estimates are used."""


@dataclass(slots=True)
class Attempt:
    """One job of a version. It ends or is given up; whichever comes first counts."""

    job: Job = field(default=lambda: None)
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

    Filled by the pool thread that runs its job, read by the manager's thread after that job's
    event: the inbox orders the two.
    """

    loader: Loader | None = None
    servable: Servable | None = None
    runners: Mapping[str, SignatureRunner] | None = None
    cancelled: bool = False
    """Set by the manager's thread before it cancels the loader, which may not be made yet."""
    attempt: Attempt | None = None
    """The last attempt; used by the manager's thread only."""

    def cancel(self) -> None:
        """Ask the job under way to end."""
        self.cancelled = True
        if self.loader is not None:
            self.loader.cancel()


def estimate_of(servable_id: ServableId, loader: Loader) -> Estimate:
    """Return a loader's estimate. One that fails is logged and unknown: the load is still tried."""
    try:
        return loader.estimate()
    except BaseException as error:
        _log.warning("what %s will take is not known: %s", servable_id, error)
        return UNKNOWN


def load_warm(
    servable_id: ServableId,
    data: VersionData,
    loader: Loader,
    placement: Placement,
    warm_up: WarmUpCall,
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
    # A new error: the old one's traceback keeps all objects of the load alive.
    cause = as_serving_error(error)
    reported = error_from_code(cause.code, cause.message)
    # Something that is not installed, such as TensorFlow, will be missing at the next attempt too.
    return LoadFailed(servable_id, reported, retriable=cause.code is not Code.UNIMPLEMENTED)


def _fault(error: BaseException) -> bool:
    """Return whether an exception is a fault of ours, so that the log needs its traceback."""
    return as_serving_error(error) is not error
