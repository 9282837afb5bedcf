"""Loads one SavedModel: a session on each device that was planned, warm, and better ones later."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from hashlib import sha256
from typing import NamedTuple, TypeAlias

from servingd.config.saved_model import SavedModelOptions
from servingd.core.resources.estimates import Estimate
from servingd.core.resources.placement import FAILURES_IN_A_ROW, Ran, ReplicaReport
from servingd.core.serving import Servable
from servingd.core.types import ANYWHERE, Device, Placement, ServableId, VersionData
from servingd.errors import ServingError, as_serving_error
from servingd.machine.cpus import cpus
from servingd.servables.saved_model.files.estimate import estimate
from servingd.servables.saved_model.files.meta_graph import MetaGraph, read_meta_graph
from servingd.servables.saved_model.files.weights import MAX_WEIGHTS, WeightsCheck, weights_of
from servingd.servables.saved_model.optimise.cached_graph import open_kept
from servingd.servables.saved_model.optimise.graph_safety import may_be_run
from servingd.servables.saved_model.optimise.job import OptimisationJob
from servingd.servables.saved_model.optimise.merge_trial import find_mergeable
from servingd.servables.saved_model.optimise.optimiser import GraphOptimiser, OnGraphState
from servingd.servables.saved_model.optimise.thread_tuning import WORTH_A_LOOK_S
from servingd.servables.saved_model.optimise.tuning import setting
from servingd.servables.saved_model.replicas import ReplicatedServable
from servingd.servables.saved_model.servable import SavedModelServable
from servingd.servables.saved_model.session.opening import open_plain
from servingd.servables.saved_model.session.options import RunLimits, SessionOptions
from servingd.servables.saved_model.session.run_watch import RunWatch
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.sidecar_files import batching_of, check_saved_model_config
from servingd.servables.tensorflow.extensions import bring, bring_for
from servingd.servables.tensorflow.runtime import give_memory_back
from servingd.wire.records.prediction_logs import WARM_UP_FILE

WarmUp: TypeAlias = Callable[[ServableId, VersionData, Servable], None]
OnPlacement: TypeAlias = Callable[[ServableId, Sequence[ReplicaReport]], None]
"""Told where a version's replicas lie and how they are; nowhere once it is unloaded."""
OnFailure: TypeAlias = Callable[[ServableId, Device], None]
"""Told of a replica whose device fails again and again."""
OnAttempt: TypeAlias = Callable[[str, float, bool], None]
"""Told of each load: the version's path, the seconds that it took, and whether it succeeded."""

_RUNS_PER_HOST_REPLICA = 1
"""A CPU that was planned for is one worker."""
_RUNS_PER_ACCELERATOR_REPLICA = 2
"""While one batch is computed there, the next one is prepared here."""

_PATIENCE_S = 1.0
"""Calls on a session that is ended for one of its runs may take so long, or are run again."""

_log = logging.getLogger(__name__)


class Hooks(NamedTuple):
    """Whom a SavedModel tells, and asks."""

    on_graph_state: OnGraphState = lambda servable_id, state: None
    warm_up: WarmUp = lambda servable_id, data, servable: None
    on_placement: OnPlacement = lambda servable_id, replicas: None
    on_failure: OnFailure = lambda servable_id, device: None
    on_attempt: OnAttempt = lambda path, seconds, succeeded: None


class _Model(NamedTuple):
    """What is known of a model before a session is opened."""

    meta_graph: MetaGraph
    warm: MutableMapping[str, bool]
    """Which signatures may be called with made-up inputs."""
    merges: bool
    """Whether calls that wait together may run together."""
    setting: str
    """What a tuning depends on besides the graph."""


class SavedModelLoader:
    """Loads one SavedModel; see `core.serving.Loader`."""

    def __init__(
        self,
        servable_id: ServableId,
        data: VersionData,
        options: SavedModelOptions,
        optimiser: GraphOptimiser,
        hooks: Hooks,
        watch: RunWatch | None = None,
    ) -> None:
        """`watch` ends runs that are over; None: nobody does."""
        self._limits = RunLimits(watch, threading.Event())
        self._id = servable_id
        self._data = data
        self._path = data.path
        self._attempt = sha256(f"{data.path}\0{data.fingerprint}".encode()).hexdigest()[:32]
        self._options = options
        self._optimiser = optimiser
        self._hooks = hooks
        self._check: WeightsCheck | None = None  # written by the load, read by the unload
        self._improvement: OptimisationJob | None = None
        self._put_off: OptimisationJob | None = None
        """What is to be done when there is memory for it."""
        self._body: SavedModelServable | ReplicatedServable | None = None
        self._told: list[Ran] = []
        """What was logged of operations that were moved."""
        self._moving = threading.Lock()
        """Held while a replica is moved, and by the unload."""

    def estimate(self) -> Estimate:
        """What the version takes, by the sizes of its files."""
        return estimate(self._path, self._options)

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Open the sessions in this thread, warm them, and hand them to the optimiser.

        It has nothing to do where the same files served on an optimised graph before.
        """
        started = time.monotonic()
        try:
            servable = self._load(placement)
        except BaseException:
            self._hooks.on_attempt(self._path, time.monotonic() - started, False)
            raise
        self._hooks.on_attempt(self._path, time.monotonic() - started, True)
        return servable

    def _load(self, placement: Placement) -> Servable:
        meta_graph = read_meta_graph(self._path, self._options.tags)
        batching = batching_of(self._path, self._options)
        check_saved_model_config(self._path)
        bring(self._options.extensions)
        bring_for(meta_graph.graph())
        model = self._model(meta_graph, len(placement.devices), batching is None)
        with self._optimiser.attempts.during(self._attempt, self._path):
            kept = self._open_kept(placement, model)
            sessions = kept or self._open_all(placement, model)
        replicas = [SavedModelServable(meta_graph, s, batching, model.warm) for s in sessions]
        servable = self._body = _together(replicas)
        for replica in replicas:
            replica.on_broken, replica.on_recovered = self._broken, self._recovered
            replica.on_overdue = self._open_timed
        self._hooks.on_graph_state(self._id, "optimised" if kept else "plain")
        self._tell()
        if kept:
            self._check = WeightsCheck(self._id, self._path)
            self._optimiser.check(self._check)
        else:
            self._improve_later(replicas, placement, model)
        return servable

    def cancel(self) -> None:
        """End the load that is under way: what it runs is ended."""
        self._limits.cancelled.set()

    def grow(self) -> None:
        """Hand the sessions to the optimiser now: there was no memory for it before."""
        improvement, self._put_off = self._put_off, None
        if improvement is not None:
            self._improve(improvement)
        elif self._body is not None:  # a replica was moved: its sessions stay as they are
            self._hooks.on_graph_state(self._id, "declined")

    def unload(self, servable: Servable) -> None:
        """Free the sessions and give their memory back to the system."""
        self._limits.cancelled.set()
        with self._moving:
            self._put_off = None
            if self._improvement is not None:
                self._optimiser.cancel(self._improvement)
            self._body = None
            servable.close()
            self._improvement = None
        if self._check is not None:
            self._check.cancel()
        self._hooks.on_graph_state(self._id, "")
        self._hooks.on_placement(self._id, ())
        del servable
        give_memory_back()

    # Sessions -------------------------------------------------------------------------------------

    def _model(self, meta_graph: MetaGraph, replicas: int, merges: bool) -> _Model:
        """What is known of it before a session is opened."""
        merges = merges and self._options.merge_waiting_calls
        made = setting(self._options, replicas, cpus(), merges)
        warm = _warm(meta_graph)
        if fatal := self._optimiser.attempts.fatal(self._attempt):
            warm = dict.fromkeys(warm, False)
            text = (
                "%s is not run on made-up inputs: a server ended meanwhile. To try again remove %s"
            )
            _log.warning(text, self._id, fatal)
        return _Model(meta_graph, warm, merges, made)

    def _open_kept(self, placement: Placement, model: _Model) -> list[RunningSession]:
        """A session on each device over the optimised graph, if these files served on it before."""
        on_host = all(device.is_host for device in placement.devices)
        if not on_host or not placement.may_grow:
            return []
        try:
            kept = self._optimiser.kept(self._path, self._options.tags, model.setting)
            if kept is None:
                return []
            options = [self._session_options(device) for device in placement.devices or (None,)]
            sessions = open_kept(kept, self._path, options, model.meta_graph, model.warm)
        except Exception as error:
            _log.warning("%s starts on its plain graph, not on a kept one: %s", self._id, error)
            return []
        _log.info("%s starts on the optimised graph in %s", self._id, kept.place)
        return sessions

    def _open_all(self, placement: Placement, model: _Model) -> list[RunningSession]:
        sessions: list[RunningSession] = []
        try:
            for device in placement.devices or (None,):
                sessions.append(self._open(device, model.meta_graph, model.warm))
        except BaseException:
            for session in sessions:
                session.close()
            raise
        return sessions

    def _open(
        self, device: Device | None, meta_graph: MetaGraph, warm: MutableMapping[str, bool]
    ) -> RunningSession:
        """A session that has run what was made up, unless the model says what it is to run."""
        options = self._session_options(device)
        if self._has_recorded_requests():
            warm = dict.fromkeys(warm, False)
        return open_plain(self._path, self._options.tags, options, meta_graph, warm)

    def _has_recorded_requests(self) -> bool:
        return self._options.enable_model_warmup and os.path.lexists(
            os.path.join(self._path, WARM_UP_FILE)
        )

    def _session_options(self, device: Device | None) -> SessionOptions:
        return SessionOptions(
            max(1, self._options.intra_op_threads),
            self._options.session_config,
            device,
            self._options.virtual_cpu_devices,
            self._limits,
        )

    def _improve_later(
        self, replicas: Sequence[SavedModelServable], placement: Placement, model: _Model
    ) -> None:
        """Have better sessions made, and find out what is worth merging: there or here."""
        options, first = self._options, replicas[0].session
        heavy = first.slowest_s >= WORTH_A_LOOK_S or self._has_recorded_requests()
        device = first.options.device
        on_host = device is None or device.is_host
        wide = heavy and on_host and len(replicas) == 1 and not options.intra_op_threads
        threads = cpus() if wide else first.threads
        improves = options.optimize_models != "off" or threads > first.threads
        if improves:
            improvement = OptimisationJob(
                self._id,
                self._path,
                options.tags,
                model.meta_graph,
                model.warm,
                threads,
                replicas,
                merges=model.merges,
                setting=model.setting,
                attempt=self._attempt,
                swapped=self._tell,
            )
            if placement.may_grow:
                self._improve(improvement)
            else:
                self._put_off = improvement
        if model.merges and not (improves and placement.may_grow):
            mergeable = find_mergeable(first, model.meta_graph, model.warm)
            for replica in replicas:
                replica.session.mergeable = mergeable

    def _improve(self, improvement: OptimisationJob) -> None:
        self._improvement = improvement
        if self._options.optimize_models == "wait":
            self._optimiser.submit(improvement)
            improvement.over.wait()
            return
        # Unlike above, the version is warmed up on its first session: the new one needs its own.
        improvement.warm_up = lambda servable: self._hooks.warm_up(self._id, self._data, servable)
        self._optimiser.submit(improvement)

    # Runs that do not end -------------------------------------------------------------------------

    def _open_timed(self, replica: SavedModelServable) -> None:
        """A run goes on that nobody waits for: open the session anew, with runs that are timed.

        Where two sessions would take too much memory the old one goes first, and calls that come
        meanwhile fail.
        """
        with self._moving:
            old = replica.session
            if self._body is None or old.options.timed or old.interrupted:
                old.interrupt()
                return
            self._stop_improving()
            _log.warning("%s: a run goes on that nobody waits for; it is ended", self._id)
            if _is_large(self._path) or not replica.device.is_host:
                old.interrupt()
            try:
                meta_graph = read_meta_graph(self._path, self._options.tags)
                options = old.options._replace(timed=True)
                warm = _warm(meta_graph)
                session = open_plain(self._path, self._options.tags, options, meta_graph, warm)
                session.mergeable = old.mergeable
            except Exception as error:
                _log.error("%s cannot be opened anew: %s", self._id, _text(error))
                return
            replica.swap(session, _PATIENCE_S)
            self._tell()

    # Devices that fail ----------------------------------------------------------------------------

    def relocate(self, failed: Device, to: Device | None) -> tuple[Device, ...]:
        """Open what failed on one device anew on another, or free it; where all lie afterwards.

        The last replica that serves is not freed: it may work again.
        """
        with self._moving:
            servable = self._body
            if servable is None:  # unloaded meanwhile
                return ()
            self._stop_improving()
            for replica in servable.replicas:
                if replica.device == failed and replica.failures >= FAILURES_IN_A_ROW:
                    self._relocate(servable, replica, to)
                    break
            self._tell()
            return tuple(r.device for r in servable.reports() if r.state != "out")

    def _relocate(
        self,
        servable: SavedModelServable | ReplicatedServable,
        replica: SavedModelServable,
        to: Device | None,
    ) -> None:
        failed = replica.device
        if to is not None and self._open_anew(replica, to):
            servable.put_back(replica)
            _log.warning("%s: the replica of %s serves on %s now", self._id, failed, to)
        elif servable.take_out(replica):
            _log.warning("%s: the replica of %s stays out of service", self._id, failed)
            try:
                replica.close()
            except Exception as error:
                _log.error("%s: what it held on %s is lost: %s", self._id, failed, _text(error))
        give_memory_back()

    def _open_anew(self, replica: SavedModelServable, to: Device) -> bool:
        """Whether a replica runs on another device from now on."""
        try:
            meta_graph = read_meta_graph(self._path, self._options.tags)
            warm = _warm(meta_graph)
            session = self._open(to, meta_graph, warm)
            session.mergeable = replica.session.mergeable
            self._rehearse(meta_graph, session, warm)
            replica.failures = 0
            replica.swap(session)
        except Exception as error:
            _log.error("%s cannot be moved to %s: %s", self._id, to, _text(error))
        return replica.device == to

    def _rehearse(
        self, meta_graph: MetaGraph, session: RunningSession, warm: Mapping[str, bool]
    ) -> None:
        """Warm a session as the version was; whatever fails, it is needed."""
        trial = SavedModelServable(meta_graph, session, None, warm)
        try:
            self._hooks.warm_up(self._id, self._data, trial)
        except ServingError as error:
            _log.warning("%s: a recorded request fails on a new replica: %s", self._id, error)

    def _stop_improving(self) -> None:
        """Sessions must not be swapped by two."""
        improvement, self._put_off = self._improvement or self._put_off, None
        if improvement is not None and not improvement.over.is_set():
            if improvement is self._improvement:
                self._optimiser.cancel(improvement)
            self._hooks.on_graph_state(self._id, "declined")

    def _broken(self, replica: SavedModelServable) -> None:
        servable = self._body
        if servable is None:
            return
        out = servable.take_out(replica)
        fate = "it gets no more calls" if out else "it serves on, as the last one"
        _log.error(
            "%s on %s failed %d times in a row: %s",
            self._id,
            replica.device,
            FAILURES_IN_A_ROW,
            fate,
        )
        self._tell()
        self._hooks.on_failure(self._id, replica.device)

    def _recovered(self, replica: SavedModelServable) -> None:
        self._tell()

    def _tell(self) -> None:
        """Report where the replicas lie, and what was moved elsewhere."""
        servable = self._body
        if servable is None:
            return
        reports = servable.reports()
        for report in reports:
            if report.ran is not None and report.ran.moved and report.ran not in self._told:
                self._told.append(report.ran)
                _log.warning("%s on %s: %s", self._id, report.device, _moved(report.ran.moved))
        self._hooks.on_placement(self._id, reports)


def _is_large(path: str) -> bool:
    """Whether a second session for a while is too much."""
    return weights_of(path) > MAX_WEIGHTS


def _warm(meta_graph: MetaGraph) -> dict[str, bool]:
    """Which signatures may be called with made-up inputs: those that can be called at all."""
    signatures = meta_graph.signatures
    safe = may_be_run(meta_graph.graph(), signatures)
    return {
        name: safe[name] and not signature.unserved.keys() & signature.inputs.keys()
        for name, signature in signatures.items()
    }


def _together(
    replicas: Sequence[SavedModelServable],
) -> SavedModelServable | ReplicatedServable:
    """The replicas as one servable."""
    options = replicas[0].session.options
    runs = 0
    if options.has_choice:
        on_host = options.device is None or options.device.is_host
        each = _RUNS_PER_HOST_REPLICA if on_host else _RUNS_PER_ACCELERATOR_REPLICA
        runs = each * len(replicas)
    if len(replicas) > 1:
        return ReplicatedServable(replicas, runs)
    replicas[0].runs_at_once = runs
    return replicas[0]


def _moved(moved: Mapping[str, Mapping[str, int]]) -> str:
    """Which operations run elsewhere, in words."""
    total = sum(count for kinds in moved.values() for count in kinds.values())
    places = (
        f"{device} ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})"
        for device, kinds in moved.items()
    )
    return f"{total} operations run elsewhere, on {'; '.join(places)}"


def _text(error: Exception) -> str:
    blamed: ServingError = as_serving_error(error)
    return f"{blamed.code.name}: {blamed.message}"
