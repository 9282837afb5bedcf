"""Opens the sessions of a version anew while it serves: on another device, or with timed runs.

Two events make that necessary: a device that fails again and again, and a run that goes on though
nobody waits for it, which only closing its session ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from servingd.core.resources.placement import (
    FAILURES_IN_A_ROW,
    ObservedDevices,
)
from servingd.core.types import Device, ServableId, VersionData
from servingd.errors import ServingError, as_serving_error
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.files.weights import MAX_WEIGHT_BYTES, weight_bytes
from servingd.servables.saved_model.listener import SavedModelListener
from servingd.servables.saved_model.replicas import ReplicatedServable
from servingd.servables.saved_model.servable import SavedModelServable
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.saved_model.session_factory import SessionFactory
from servingd.servables.tensorflow_runtime.runtime import give_memory_back

_OVERDUE_TIMEOUT_S = 1.0
"""Seconds that other calls on a session get when it is closed to end one of its runs.

Those that take longer are run again on the new session.
"""

_log = logging.getLogger(__name__)


class Relocation:
    """Relocates the replicas of one loaded version, from its load until `stop`. From any thread."""

    def __init__(
        self,
        servable_id: ServableId,
        data: VersionData,
        servable: SavedModelServable | ReplicatedServable,
        sessions: SessionFactory,
        listener: SavedModelListener,
        cancel_job: Callable[[], None],
    ) -> None:
        """Let the replicas report failures and overdue runs here.

        `cancel_job` ends the version's optimisation, if there is one: sessions must not be swapped
        by two.
        """
        self._id = servable_id
        self._data = data
        self._servable: SavedModelServable | ReplicatedServable | None = servable
        self._sessions = sessions
        self._listener = listener
        self._cancel_job = cancel_job
        self._logged: list[ObservedDevices] = []  # operations on other devices: logged once
        self._lock = threading.Lock()  # held while a session is opened anew
        for replica in servable.replicas:
            replica.on_broken, replica.on_recovered = self._on_broken, self._on_recovered
            replica.on_overdue = self._reopen_timed

    def stop(self) -> None:
        """Relocate nothing from now on; waits for a session that is being opened anew."""
        with self._lock:
            self._servable = None

    def report(self) -> None:
        """Tell the listener where the replicas lie; log which operations run on other devices."""
        servable = self._servable
        if servable is None:
            return
        reports = servable.reports()
        for report in reports:
            observed = report.observed
            if observed is not None and observed.moved and observed not in self._logged:
                self._logged.append(observed)
                _log.warning("%s on %s: %s", self._id, report.device, _describe(observed.moved))
        self._listener.replicas_changed(self._id, reports)

    # Runs that do not end -------------------------------------------------------------------------

    def _reopen_timed(self, replica: SavedModelServable) -> None:
        """Replace a session with an overdue run by one whose runs are timed; closing it ends them.

        Where two sessions would take too much memory the old one goes first, and calls that come
        meanwhile fail.
        """
        with self._lock:
            old = replica.session
            if self._servable is None:  # unloaded: nobody needs another session
                old.interrupt()
                return
            self._cancel_job()
            _log.warning("%s: a run goes on that nobody waits for; it is ended", self._id)
            if weight_bytes(self._data.path) > MAX_WEIGHT_BYTES or not replica.device.is_host:
                old.interrupt()
            try:
                meta_graph, safe_to_run = self._sessions.read()
                options = old.options._replace(timed=True)
                session = self._sessions.open(options, meta_graph, safe_to_run)
                session.mergeable = old.mergeable
            except Exception as error:
                _log.error("%s cannot be opened anew: %s", self._id, _text(error))
                return
            replica.swap(session, _OVERDUE_TIMEOUT_S)
            self.report()

    # Devices that fail ----------------------------------------------------------------------------

    def relocate(self, failed: Device, to: Device | None) -> tuple[Device, ...]:
        """Move the failed replica on one device to another, or free it; see `Relocates.relocate`.

        The last replica that serves is not freed: its device may work again.
        """
        with self._lock:
            servable = self._servable
            if servable is None:  # unloaded meanwhile
                return ()
            self._cancel_job()
            for replica in servable.replicas:
                if replica.device == failed and replica.failures >= FAILURES_IN_A_ROW:
                    self._relocate(servable, replica, to)
                    break
            self.report()
            return tuple(r.device for r in servable.reports() if r.state != "out")

    def _relocate(
        self,
        servable: SavedModelServable | ReplicatedServable,
        replica: SavedModelServable,
        to: Device | None,
    ) -> None:
        failed = replica.device
        if to is not None and self._reopen_on(to, replica):
            servable.return_to_service(replica)
            _log.warning("%s: the replica of %s serves on %s now", self._id, failed, to)
        elif servable.take_out_of_service(replica):
            _log.warning("%s: the replica of %s stays out of service", self._id, failed)
            try:
                replica.close()
            except Exception as error:
                _log.error("%s: what it held on %s is lost: %s", self._id, failed, _text(error))
        give_memory_back()

    def _reopen_on(self, to: Device, replica: SavedModelServable) -> bool:
        """Open a replica's session anew on a device; return whether it lies there now."""
        try:
            meta_graph, safe_to_run = self._sessions.read()
            session = self._sessions.open_on(to, meta_graph, safe_to_run)
            session.mergeable = replica.session.mergeable
            self._run_recorded_requests(meta_graph, session, safe_to_run)
            replica.failures = 0
            replica.swap(session)
        except Exception as error:
            _log.error("%s cannot be moved to %s: %s", self._id, to, _text(error))
        return replica.device == to

    def _run_recorded_requests(
        self, meta_graph: MetaGraph, session: RunningSession, safe_to_run: Mapping[str, bool]
    ) -> None:
        """Warm a session up as the version was. A request that fails is logged: it must serve."""
        candidate = SavedModelServable(meta_graph, session, None, safe_to_run)
        try:
            self._listener.warm_up(self._id, self._data, candidate)
        except ServingError as error:
            _log.warning("%s: a recorded request fails on a new replica: %s", self._id, error)

    def _on_broken(self, replica: SavedModelServable) -> None:
        servable = self._servable
        if servable is None:
            return
        out = servable.take_out_of_service(replica)
        _log.error(
            "%s on %s failed %d times in a row: %s",
            self._id,
            replica.device,
            FAILURES_IN_A_ROW,
            "it gets no more calls" if out else "it serves on, as the last one",
        )
        self.report()
        self._listener.replica_failed(self._id, replica.device)

    def _on_recovered(self, replica: SavedModelServable) -> None:
        self.report()


def _describe(moved: Mapping[str, Mapping[str, int]]) -> str:
    """Say which operations run on other devices than planned; see `ObservedDevices.moved`."""
    total = sum(count for kinds in moved.values() for count in kinds.values())
    devices = (
        f"{device} ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})"
        for device, kinds in moved.items()
    )
    return f"{total} operations run elsewhere, on {'; '.join(devices)}"


def _text(error: Exception) -> str:
    translated = as_serving_error(error)
    return f"{translated.code.name}: {translated.message}"
