"""Loads one SavedModel: a warm session on each planned device, to be optimised afterwards."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from servingd.config.saved_model import SavedModelOptions
from servingd.core.resources.footprints import Estimate
from servingd.core.servable import Servable
from servingd.core.types import ANYWHERE, Device, Placement, ServableId, VersionData
from servingd.machine.cpus import cpus
from servingd.servables.files.sidecar_files import batching_parameters, check_saved_model_config
from servingd.servables.saved_model.files.estimate import estimate
from servingd.servables.saved_model.files.meta_graph import MetaGraph, read_meta_graph
from servingd.servables.saved_model.files.weights import WeightsCheck
from servingd.servables.saved_model.listener import SavedModelListener
from servingd.servables.saved_model.merging.trial import find_mergeable
from servingd.servables.saved_model.optimise.cached_graph import open_cached
from servingd.servables.saved_model.optimise.job import OptimisationJob
from servingd.servables.saved_model.optimise.optimiser import GraphOptimiser
from servingd.servables.saved_model.optimise.thread_tuning import MIN_TUNED_CALL_S
from servingd.servables.saved_model.optimise.tuning import settings_digest
from servingd.servables.saved_model.relocation import Relocation
from servingd.servables.saved_model.replicas import ReplicatedServable
from servingd.servables.saved_model.servable import SavedModelServable
from servingd.servables.saved_model.session.run_watch import RunWatch
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.saved_model.session_factory import SessionFactory, find_safe_to_run
from servingd.servables.tensorflow_runtime.extensions import load_extensions, load_extensions_for
from servingd.servables.tensorflow_runtime.runtime import give_memory_back

_RUNS_PER_HOST_REPLICA = 1
"""Batches of a signature at a time: a CPU device that was planned for is one worker."""
_RUNS_PER_ACCELERATOR_REPLICA = 2
"""Batches of a signature at a time: while one is computed there, the next one is prepared here."""

_log = logging.getLogger(__name__)


class _Model(NamedTuple):
    """What is known of a model before a session is opened."""

    meta_graph: MetaGraph
    safe_to_run: MutableMapping[str, bool]
    """By signature, whether it may be run on synthetic inputs."""
    may_merge: bool
    """Whether calls that wait together may run together."""
    settings_digest: str
    """What a tuning depends on besides the graph."""


class SavedModelLoader:
    """Loads one SavedModel; see `core.servable.Loader`."""

    def __init__(
        self,
        servable_id: ServableId,
        data: VersionData,
        options: SavedModelOptions,
        optimiser: GraphOptimiser,
        listener: SavedModelListener,
        watch: RunWatch | None = None,
    ) -> None:
        """`watch` ends runs that nobody waits for; None: nobody does."""
        self._id = servable_id
        self._data = data
        self._path = data.path
        self._attempt = sha256(f"{data.path}\0{data.fingerprint}".encode()).hexdigest()[:32]
        self._options = options
        self._optimiser = optimiser
        self._listener = listener
        self._sessions = SessionFactory(
            data.path, options, watch, lambda: listener.new_runs(servable_id)
        )
        self._kept: Path | None = None  # the folder of the cached graph that it serves
        self._check: WeightsCheck | None = None  # written by the load, read by the unload
        self._job: OptimisationJob | None = None
        self._deferred_job: OptimisationJob | None = None  # until there is memory for it
        self._relocation: Relocation | None = None  # None unless loaded

    def estimate(self) -> Estimate:
        """Return what the version takes, by the sizes of its files."""
        return estimate(self._path, self._options)

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Open the sessions in this thread, warm them, and submit them to the optimiser.

        Where the same files served an optimised graph before, the sessions open that one, and there
        is nothing to optimise.
        """
        started = time.monotonic()
        try:
            servable = self._load(placement)
        except BaseException:
            self._listener.load_attempted(self._path, time.monotonic() - started, False)
            raise
        self._listener.load_attempted(self._path, time.monotonic() - started, True)
        return servable

    def _load(self, placement: Placement) -> Servable:
        meta_graph = read_meta_graph(self._path, self._options.tags)
        batching = batching_parameters(self._path, self._options)
        check_saved_model_config(self._path)
        load_extensions(self._options.extensions)
        load_extensions_for(meta_graph.graph())
        model = self._describe(meta_graph, len(placement.devices), batching is None)
        with self._optimiser.attempts.during(self._attempt, self._path):
            cached = self._open_cached(placement, model)
            sessions = cached or self._sessions.open_all(
                placement.devices, meta_graph, model.safe_to_run
            )
        replicas = [
            SavedModelServable(meta_graph, session, batching, model.safe_to_run)
            for session in sessions
        ]
        servable = _as_one_servable(replicas)
        self._relocation = Relocation(
            self._id, self._data, servable, self._sessions, self._listener, self._cancel_job
        )
        self._listener.graph_state_changed(self._id, "optimised" if cached else "plain")
        self._relocation.report()
        if cached:
            self._check = WeightsCheck(self._id, self._path, self._kept)
            self._optimiser.check(self._check)
        else:
            self._optimise_later(replicas, placement, model, self._relocation)
        return servable

    def cancel(self) -> None:
        """End the load under way: the runs of its sessions are ended."""
        self._sessions.cancel()

    def grow(self) -> None:
        """Submit the job that was deferred for want of memory."""
        job, self._deferred_job = self._deferred_job, None
        if job is not None:
            self._submit_later(job)
        elif self._relocation is not None:  # a replica was relocated: its sessions stay as they are
            self._listener.graph_state_changed(self._id, "declined")

    def relocate(self, failed: Device, to: Device | None) -> tuple[Device, ...]:
        """Move the failed replica on one device to another, or free it; see `Relocates`."""
        relocation = self._relocation
        return relocation.relocate(failed, to) if relocation is not None else ()

    def unload(self, servable: Servable) -> None:
        """Free the sessions and give their memory back to the system."""
        self._sessions.cancel()
        if self._relocation is not None:
            self._relocation.stop()
        self._deferred_job = self._relocation = None
        if self._job is not None:
            self._optimiser.cancel(self._job)
        servable.close()
        self._job = None
        if self._check is not None:
            self._check.cancel()
        self._listener.graph_state_changed(self._id, "")
        self._listener.replicas_changed(self._id, ())
        del servable
        give_memory_back()

    # Sessions -------------------------------------------------------------------------------------

    def _describe(self, meta_graph: MetaGraph, replicas: int, may_merge: bool) -> _Model:
        """Find out what is known of the model before a session is opened."""
        may_merge = may_merge and self._options.merge_waiting_calls
        digest = settings_digest(self._options, replicas, cpus(), may_merge)
        safe = find_safe_to_run(meta_graph)
        if fatal := self._optimiser.attempts.fatal(self._attempt):
            safe = dict.fromkeys(safe, False)
            text = (
                "%s is not run on made-up inputs: a server ended meanwhile. To try again remove %s"
            )
            _log.warning(text, self._id, fatal)
        return _Model(meta_graph, safe, may_merge, digest)

    def _open_cached(self, placement: Placement, model: _Model) -> list[RunningSession]:
        """Open the cached optimised graph on each device; none if these files have none there."""
        on_host = all(device.is_host for device in placement.devices)
        if not on_host or not (placement.may_grow or placement.may_start_grown):
            return []
        try:
            cached = self._optimiser.find_cached(
                self._path, self._options.tags, model.settings_digest
            )
            if cached is None:
                return []
            options = [self._sessions.session_options(d) for d in placement.devices or (None,)]
            sessions = open_cached(cached, self._path, options, model.meta_graph, model.safe_to_run)
        except Exception as error:
            _log.warning("%s starts on its plain graph, not on a kept one: %s", self._id, error)
            return []
        _log.info("%s starts on the optimised graph in %s", self._id, cached.folder)
        self._kept = cached.folder
        return sessions

    # Optimisation ---------------------------------------------------------------------------------

    def _optimise_later(
        self,
        replicas: Sequence[SavedModelServable],
        placement: Placement,
        model: _Model,
        relocation: Relocation,
    ) -> None:
        """Submit a job that finds better sessions, or defer it until there is memory for it.

        What is worth merging is found out by the job, or here where there is none for now.
        """
        options, first = self._options, replicas[0].session
        slow = first.slowest_s >= MIN_TUNED_CALL_S or self._sessions.has_recorded_requests
        device = first.options.device
        on_host = device is None or device.is_host
        tune = slow and on_host and len(replicas) == 1 and not options.intra_op_threads
        threads = cpus() if tune else first.threads
        needs_job = options.optimize_models != "off" or threads > first.threads
        if needs_job:
            job = OptimisationJob(
                self._id,
                self._path,
                options.tags,
                model.meta_graph,
                model.safe_to_run,
                threads,
                replicas,
                may_merge=model.may_merge,
                settings_digest=model.settings_digest,
                attempt=self._attempt,
                on_swapped=relocation.report,
            )
            if placement.may_grow:
                self._submit(job)
            else:
                self._deferred_job = job
        if model.may_merge and not (needs_job and placement.may_grow):
            mergeable = find_mergeable(first, model.meta_graph, model.safe_to_run)
            for replica in replicas:
                replica.session.mergeable = mergeable

    def _submit(self, job: OptimisationJob) -> None:
        if self._options.optimize_models != "wait":
            self._submit_later(job)
            return
        self._job = job
        self._optimiser.submit(job)
        job.finished.wait()

    def _submit_later(self, job: OptimisationJob) -> None:
        self._job = job
        # Unlike above, the version is warmed up on its first session: the new one needs its own.
        job.warm_up = lambda servable: self._listener.warm_up(self._id, self._data, servable)
        self._optimiser.submit(job)

    def _cancel_job(self) -> None:
        """End the job, or drop it, before a session is replaced for another reason."""
        job, self._deferred_job = self._job or self._deferred_job, None
        if job is not None and not job.finished.is_set():
            if job is self._job:
                self._optimiser.cancel(job)
            self._listener.graph_state_changed(self._id, "declined")


def _as_one_servable(
    replicas: Sequence[SavedModelServable],
) -> SavedModelServable | ReplicatedServable:
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
