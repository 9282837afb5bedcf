"""The server's side of graph optimisation: a queue of jobs, one child process at a time.

A model serves its plain graph at once. In the background a child process writes an optimised graph,
unless the cache has one, and the servable's sessions are replaced by sessions over it. The manager
knows nothing of this: the version's state does not change. Whatever fails, the plain graph goes on
serving.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from servingd import __version__
from servingd.errors import ServingError
from servingd.servables.saved_model.files.estimate import child_bytes
from servingd.servables.saved_model.files.weights import (
    MAX_WEIGHT_BYTES,
    WeightsCheck,
    find_damage,
    kept_bytes,
    weight_bytes,
)
from servingd.servables.saved_model.listener import SavedModelListener
from servingd.servables.saved_model.merging.row_wise.verdicts import NOT_TRIED
from servingd.servables.saved_model.merging.trial import find_mergeable
from servingd.servables.saved_model.optimise.attempts import Attempts
from servingd.servables.saved_model.optimise.cached_graph import CachedGraph, read_cached_graph
from servingd.servables.saved_model.optimise.child import GRAPH_FILE, Declined
from servingd.servables.saved_model.optimise.child_process import ChildProcess
from servingd.servables.saved_model.optimise.graph_cache import GraphCache, model_key
from servingd.servables.saved_model.optimise.job import (
    OptimisationJob,
    close_sessions,
    open_plain_if_faster,
    open_proven,
    pass_recorded_requests,
    swap_sessions,
)
from servingd.servables.saved_model.optimise.report import check_kept
from servingd.servables.saved_model.optimise.tuning import (
    Tuning,
    TuningCache,
    graph_kind,
    write_tuning,
)
from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.tensorflow_runtime.runtime import tensorflow

_WARN_AFTER_S = 60.0
"""Seconds that an unload waits for a job to end before it logs that it waits."""
_STOP_S = 10.0
"""Seconds that the thread gets to end before it is left behind."""

_log = logging.getLogger(__name__)


class GraphOptimiser:
    """Owns the thread `optimiser` and its child process. Its methods are called from any thread."""

    def __init__(
        self,
        cache_dir: str,
        enabled: bool,
        listener: SavedModelListener,
        child: ChildProcess | None = None,
    ) -> None:
        """Start nothing yet. Not `enabled`: jobs only tune threads and merging.

        Whether large variables are mapped is the child's affair.
        """
        self._cache_dir = cache_dir
        self._enabled = enabled
        self._listener = listener
        self._child = child or ChildProcess()
        self._cache: GraphCache | None = None  # guarded by _changed; made when first needed
        self._attempts: Attempts | None = None  # guarded by _changed
        self._tunings = TuningCache()  # the optimiser's thread only
        self._changed = threading.Condition()
        self._waiting: deque[OptimisationJob] = deque()  # guarded by _changed
        self._checks: deque[WeightsCheck] = deque()  # guarded by _changed
        self._current: OptimisationJob | None = None  # guarded by _changed
        self._stopped = False  # guarded by _changed
        self._thread: threading.Thread | None = None  # guarded by _changed; made when first needed

    def submit(self, job: OptimisationJob) -> None:
        """Queue a job; returns at once. `job.finished` is set when it has ended or was dropped."""
        if self._enabled:
            self._listener.graph_state_changed(job.id, "optimising")
        with self._changed:
            if not self._stopped:
                self._waiting.append(job)
                self._wake()
                return
        job.finished.set()

    def check(self, check: WeightsCheck) -> None:
        """Queue a check of weights; returns at once. Jobs go first."""
        with self._changed:
            if not self._stopped:
                self._checks.append(check)
                self._wake()

    def _wake(self) -> None:
        """Start the thread, or wake it up. Call with `_changed` held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="optimiser", daemon=True)
            self._thread.start()
        self._changed.notify()

    def find_cached(
        self, path: str, tags: tuple[str, ...], settings_digest: str
    ) -> CachedGraph | None:
        """Return the optimised graph of the files under `path` that served with these settings.

        None if there is none. Raises OSError or ValueError.
        """
        if not self._enabled or not c_api.is_sound():
            return None
        folder = self._graph_cache().find(self._cache_key(path, tags))
        return read_cached_graph(folder, settings_digest) if folder is not None else None

    @property
    def attempts(self) -> Attempts:
        """The record of loads and jobs under way, and of those that a server did not survive."""
        folder = self._graph_cache().folder
        with self._changed:
            if self._attempts is None or (folder is not None and self._attempts.folder is None):
                self._attempts = Attempts(folder)
            return self._attempts

    def cancel(self, job: OptimisationJob) -> None:
        """Drop a job, or end it; waits until it touches no replica any more."""
        job.cancelled.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.finished.set()
            elif job is self._current:
                self._child.kill()
        while not job.finished.wait(_WARN_AFTER_S):
            _log.warning("%s is not unloaded yet: its graph is being replaced", job.id)

    def stop(self) -> None:
        """Drop all jobs; end the thread and its child."""
        with self._changed:
            self._stopped = True
            dropped = list(self._waiting)
            self._waiting.clear()
            if self._current is not None:
                self._current.cancelled.set()
                self._child.kill()
            self._changed.notify()
            thread, attempts = self._thread, self._attempts
        if attempts is not None:
            attempts.forget()
        for job in dropped:
            job.finished.set()
        if thread is not None:
            thread.join(_STOP_S)
            if thread.is_alive():
                _log.warning("thread %s does not end within %.0f s", thread.name, _STOP_S)

    # The optimiser's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._next()) is not None:
            if isinstance(job, WeightsCheck):
                self._check(job)
                continue
            try:
                with self.attempts.during(job.attempt, job.path):
                    self._run_job(job)
            except BaseException:
                _log.exception("the graph of %s could not be improved", job.id)
                self._listener.graph_state_changed(job.id, "declined")
            finally:
                with self._changed:
                    self._current = None
                job.finished.set()
            del job  # else its servable lives until the next job comes

    def _check(self, check: WeightsCheck) -> None:
        def cancelled() -> bool:
            return check.cancelled or self._stopped

        text = (
            "the weights of %s are damaged: %s. It serves on, from an optimised graph that "
            "was made of them before; without that graph it could not be loaded"
        )
        try:
            damage = ""
            if check.kept is not None and (damage := _damage_of_kept(check.kept, cancelled)):
                self._graph_cache().remove(check.kept)
                text = "the weights that are mapped for %s are damaged, load it again: %s"
            damage = damage or find_damage(check.path, cancelled)
        except BaseException:
            _log.exception("the weights of %s cannot be looked at", check.id)
            return
        if damage:
            _log.warning(text, check.id, damage)
            check.report(lambda: self._listener.graph_state_changed(check.id, "damaged weights"))

    def _next(self) -> OptimisationJob | WeightsCheck | None:
        with self._changed:
            while not self._waiting and not self._checks and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return None
            if not self._waiting:
                return self._checks.popleft()
            self._current = self._waiting.popleft()
            return self._current

    def _run_job(self, job: OptimisationJob) -> None:
        state: str = "plain"
        sessions: list[RunningSession] = []
        kind = _graph_kind(job)
        job.tuning = self._tunings.find(kind)
        if self._enabled:
            try:
                sessions, state = self._open_optimised_sessions(job), "optimised"
            except (Declined, ServingError, OSError) as reason:
                state = "declined"
                if not job.cancelled.is_set():
                    _log.info("%s is served as it is, not optimised: %s", job.id, reason)
        if not sessions and job.may_add_threads and (faster := open_plain_if_faster(job)):
            sessions = [faster]
        if job.cancelled.is_set():
            close_sessions(sessions)
            return
        chosen = sessions or [replica.session for replica in job.replicas]
        self._tunings.store(kind, self._tune(job, chosen))
        if sessions:
            swap_sessions(job, sessions)
        self._listener.graph_state_changed(job.id, state)

    def _tune(self, job: OptimisationJob, sessions: list[RunningSession]) -> Tuning:
        """Find out what is worth merging, and set it on the sessions; return the tuning.

        It is also written beside the optimised graph, where that is cached.
        """
        first, mergeable = sessions[0], NOT_TRIED
        if job.may_merge:
            mergeable = find_mergeable(
                first,
                job.meta_graph,
                job.safe_to_run,
                job.known_rows(first.optimised),
            )
            for session in sessions:
                session.mergeable = mergeable
        tuning = Tuning(first.optimised, first.threads, mergeable)
        if first.optimised and (folder := self._graph_cache().find(self._key_of(job))):
            write_tuning(folder / GRAPH_FILE, job.settings_digest, tuning)
        return tuning

    def _open_optimised_sessions(self, job: OptimisationJob) -> list[RunningSession]:
        """Open a session for each replica on the optimised graph, cached or made now.

        Raises Declined, with the reason why the plain graph goes on serving; a ServingError or
        OSError for a failure that another try might not have.
        """
        if not c_api.is_sound():
            raise Declined("the C API is not usable with this TensorFlow")
        if device := job.accelerator:  # graphs are optimised for the host
            raise Declined(f"placed on {device}")
        weights = weight_bytes(job.path)
        if weights - kept_bytes(job.path) > MAX_WEIGHT_BYTES:
            raise Declined(f"{weights} bytes of variables are more than {MAX_WEIGHT_BYTES}")
        cache, key = self._graph_cache(), self._key_of(job)
        cached = cache.find(key)
        if cached is not None:
            try:
                check_kept(cached, job.cancelled.is_set)
                return pass_recorded_requests(job, open_proven(job, cached))
            except Declined:
                raise
            except Exception as error:
                _log.warning(
                    "an optimised graph is made anew, not taken from %s: %s", cached, error
                )
                cache.remove(cached)
        with cache.one_at_a_time(job.cancelled) as waited:
            made = cache.find(key) if waited else None  # by another worker of this server
            folder = made or self._optimise_in_child(job, key)
        try:
            return pass_recorded_requests(job, open_proven(job, folder))
        finally:
            cache.discard(folder)

    def _optimise_in_child(self, job: OptimisationJob, key: str) -> Path:
        """Let a child optimise the model; return the folder with its result.

        Raises Declined if the child fails, or the model's files changed meanwhile.
        """
        cache = self._graph_cache()
        work_folder = cache.make_work_folder()
        try:
            memory = child_bytes(job.path, self._child.map_from_bytes > 0)
            self._child.run(job.path, job.tags, work_folder, memory, job.cancelled)
            if self._key_of(job) != key:
                raise Declined("the model's files changed meanwhile")
            kept = cache.store(work_folder, key)
            if kept == work_folder and (other := cache.find(key)) is not None:
                kept = other  # another server's, so that its weights are in memory once
                cache.discard(work_folder)
            return kept
        except BaseException:
            cache.discard(work_folder)
            raise

    def _key_of(self, job: OptimisationJob) -> str:
        return self._cache_key(job.path, job.tags)

    def _cache_key(self, path: str, tags: tuple[str, ...]) -> str:
        mapped = f"mapped from {self._child.map_from_bytes} bytes"
        return model_key(path, __version__, tensorflow().__version__, mapped, *tags)

    def _graph_cache(self) -> GraphCache:
        with self._changed:
            if self._cache is None:
                self._cache = GraphCache(self._cache_dir)
            return self._cache


def _damage_of_kept(folder: Path, cancelled: Callable[[], bool]) -> str:
    """Return what is wrong with the weights beside a cached graph; empty: nothing, or none."""
    try:
        check_kept(folder, cancelled)
    except FileNotFoundError:  # another server has removed it
        return ""
    except (Declined, OSError, ValueError) as error:
        return str(error)
    return ""


def _graph_kind(job: OptimisationJob) -> str:
    meta_graph, weights = job.meta_graph, weight_bytes(job.path)
    return graph_kind(meta_graph.graph(), meta_graph.signatures, weights, job.settings_digest)
