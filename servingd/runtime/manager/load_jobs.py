"""How loads are run: what is kept of each version, and how a job hands over its outcome."""

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
    """How loads are run."""

    num_load_threads: int = 2
    """Loads at a time."""

    num_unload_threads: int = 1
    """Unloads at a time."""

    warm_up: WarmUpCall = lambda servable_id, data, servable: None
    """The last part of each load, in its thread; what it raises is the load's failure."""

    devices: Callable[[], Mapping[Device, int]] = lambda: {CPU_0: 0}
    """The devices that there are, each with the bytes of its own memory that may be used (0: no
    limit of its own). Asked on the load pool, before each load that is put on devices."""

    load_timeout_s: float = 0.0
    """An estimate or a load that takes longer is given up, and its thread with it; 0: none is."""

    meter: MemoryMeter | None = None
    """Sees what loads take; None: estimates are all that is known."""


@dataclass(slots=True)
class Attempt:
    """One job of a version. It ends, or it is given up: whoever comes first."""

    job: Job = field(default=lambda: None)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False  # guarded by _lock

    def close(self) -> bool:
        """Say that it ends, or that it is given up; False if the other one was said before."""
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
    """Set by the manager's thread before it tells the loader, which a pool thread may just make."""
    attempt: Attempt | None = None
    """The last one; the manager's thread only."""

    def cancel(self) -> None:
        """Tell what is under way to end."""
        self.cancelled = True
        if self.loader is not None:
            self.loader.cancel()


def estimate_of(servable_id: ServableId, loader: Loader) -> Estimate:
    """What a loader says; a load whose needs are not known is tried all the same."""
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
    """A servable that is warm: whatever may fail before it can serve fails here, as a load."""
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
    """Unload what never served; the load's own failure is the one to tell."""
    _log.info("Unloading just-loaded servable version %s", servable_id)
    try:
        loader.unload(servable)
    except BaseException:
        _log.exception("Unloading servable: %s failed", servable_id)


def failure(servable_id: ServableId, error: BaseException) -> LoadFailed:
    """The event that tells of an attempt that failed."""
    _log.info("Loading servable: %s failed: %s", servable_id, error, exc_info=_fault(error))
    # A new error: the old one's traceback holds all that the load had in its hands.
    blamed = as_serving_error(error)
    told = error_from_code(blamed.code, blamed.message)
    # What is not there, such as TensorFlow, is not there the next time either.
    return LoadFailed(servable_id, told, retriable=blamed.code is not Code.UNIMPLEMENTED)


def _fault(error: BaseException) -> bool:
    """Whether an error is ours to explain: then the log has its traceback."""
    return as_serving_error(error) is not error
