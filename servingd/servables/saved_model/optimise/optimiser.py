"""The server's side of graph optimisation: one child at a time, and the swap when it is proven.

A model serves its plain graph at once. In the background a child process writes an optimised graph
(or finds it in the cache), and the servable is switched over to it. None of this is the manager's
affair: no state, no event. Whatever fails, the plain graph goes on serving.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from servingd import __version__
from servingd.config.saved_model import NO_EXTENSIONS, Extensions
from servingd.core.types import ServableId
from servingd.errors import ServingError
from servingd.servables.saved_model.files.weights import (
    MAX_WEIGHTS,
    WeightsCheck,
    damage,
    weights_of,
)
from servingd.servables.saved_model.optimise.attempts import Attempts
from servingd.servables.saved_model.optimise.cached_graph import Kept, kept_in
from servingd.servables.saved_model.optimise.child import GRAPH_FILE
from servingd.servables.saved_model.optimise.graph_cache import GraphCache, model_key
from servingd.servables.saved_model.optimise.job import (
    Declined,
    OptimisationJob,
    close,
    proven,
    rehearsed,
    swap,
    wide_plain,
)
from servingd.servables.saved_model.optimise.merge_trial import find_mergeable
from servingd.servables.saved_model.optimise.tuning import Tuning, Tunings, kind_of, write_tuning
from servingd.servables.saved_model.row_wise.analysis import NOT_TRIED
from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.tensorflow.runtime import tensorflow

OnGraphState: TypeAlias = Callable[[ServableId, str], None]
"""Told of a graph's state: `plain`, `optimising`, `optimised`, `declined`, `damaged weights` (it is
optimised, and could not be made again); empty once unloaded."""


_CHILD_SECONDS = 1800.0  # it is niced: beside a busy server it gets little of each second
_CHILD_CPU_SECONDS = 600
_CHILD_BASE_BYTES = 6 << 30
_CHILD_BYTES_PER_WEIGHT = 16

_PATIENCE_S = 60.0
_STOP_S = 10.0

_log = logging.getLogger(__name__)


class GraphOptimiser:
    """Owns the thread `optimiser` and its child process."""

    def __init__(
        self,
        cache_dir: str,
        enabled: bool,
        on_state: OnGraphState,
        memory_limit: int = 0,
        extensions: Extensions = NO_EXTENSIONS,
    ) -> None:
        """`memory_limit` is the child's, in bytes; 0: by the model's size."""
        self._cache_dir = cache_dir
        self._enabled = enabled
        self._on_state = on_state
        self._memory_limit = memory_limit
        self._extensions = extensions
        self._cache: GraphCache | None = None  # guarded by _changed; made when first needed
        self._attempts: Attempts | None = None  # guarded by _changed
        self._tunings = Tunings()
        self._changed = threading.Condition()
        self._waiting: deque[OptimisationJob] = deque()  # guarded by _changed
        self._checks: deque[WeightsCheck] = deque()  # guarded by _changed
        self._current: OptimisationJob | None = None  # guarded by _changed
        self._child: subprocess.Popen[bytes] | None = None  # guarded by _changed
        self._stopped = False  # guarded by _changed
        self._thread: threading.Thread | None = None  # guarded by _changed; made when first needed

    def submit(self, improvement: OptimisationJob) -> None:
        """Improve a servable in the background, in order of arrival."""
        if self._enabled:
            self._on_state(improvement.id, "optimising")
        with self._changed:
            if not self._stopped:
                self._waiting.append(improvement)
                self._wake()
                return
        improvement.over.set()

    def check(self, check: WeightsCheck) -> None:
        """Look at weights in the background, once there is nothing to improve."""
        with self._changed:
            if not self._stopped:
                self._checks.append(check)
                self._wake()

    def _wake(self) -> None:
        """Under _changed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="optimiser", daemon=True)
            self._thread.start()
        self._changed.notify()

    def kept(self, path: str, tags: tuple[str, ...], setting: str) -> Kept | None:
        """The graph that was optimised of these files before, and served here in this setting.

        None if there is none. Thread-safe. Raises OSError or ValueError.
        """
        if not self._enabled or not c_api.is_sound() or weights_of(path) > MAX_WEIGHTS:
            return None
        place = self._graphs().find(_key(path, tags))
        return kept_in(place, setting) if place is not None else None

    @property
    def attempts(self) -> Attempts:
        """What is being tried, and what servers did not survive, beside the graphs."""
        folder = self._graphs().folder
        with self._changed:
            if self._attempts is None or (folder is not None and self._attempts.folder is None):
                self._attempts = Attempts(folder)
            return self._attempts

    def cancel(self, improvement: OptimisationJob) -> None:
        """Give an improvement up; on return its servable is not touched any more."""
        improvement.cancelled.set()
        with self._changed:
            if improvement in self._waiting:
                self._waiting.remove(improvement)
                improvement.over.set()
            elif improvement is self._current and self._child is not None:
                self._child.kill()
        while not improvement.over.wait(_PATIENCE_S):
            _log.warning("%s is not unloaded yet: its graph is being replaced", improvement.id)

    def stop(self) -> None:
        """End the thread and its child; nobody waits for an improvement any more."""
        with self._changed:
            self._stopped = True
            abandoned = list(self._waiting)
            self._waiting.clear()
            if self._current is not None:
                self._current.cancelled.set()
            if self._child is not None:
                self._child.kill()
            self._changed.notify()
            thread, attempts = self._thread, self._attempts
        if attempts is not None:
            attempts.forget()
        for improvement in abandoned:
            improvement.over.set()
        if thread is not None:
            thread.join(_STOP_S)
            if thread.is_alive():
                _log.warning("thread %s does not end within %.0f s", thread.name, _STOP_S)

    # The optimiser's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while (improvement := self._next()) is not None:
            if isinstance(improvement, WeightsCheck):
                self._check(improvement)
                continue
            try:
                with self.attempts.during(improvement.attempt, improvement.path):
                    self._improve(improvement)
            except BaseException:
                _log.exception("the graph of %s could not be improved", improvement.id)
                self._on_state(improvement.id, "declined")
            finally:
                with self._changed:
                    self._current = None
                improvement.over.set()
            del improvement  # else its servable lives until the next one comes

    def _check(self, check: WeightsCheck) -> None:
        try:
            trouble = damage(check.path, lambda: check.over or self._stopped)
        except BaseException:
            _log.exception("the weights of %s cannot be looked at", check.id)
            return
        if trouble:
            text = (
                "the weights of %s are damaged: %s. It serves on, from an optimised graph that "
                "was made of them before; without that graph it could not be loaded"
            )
            _log.warning(text, check.id, trouble)
            check.tell(lambda: self._on_state(check.id, "damaged weights"))

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

    def _improve(self, improvement: OptimisationJob) -> None:
        state: str = "plain"
        sessions: list[RunningSession] = []
        kind = _kind_of(improvement)
        improvement.tuning = self._tunings.find(kind)
        if self._enabled:
            try:
                sessions, state = self._optimised(improvement), "optimised"
            except (Declined, ServingError, OSError) as reason:
                state = "declined"
                if not improvement.cancelled.is_set():
                    _log.info("%s is served as it is, not optimised: %s", improvement.id, reason)
        if not sessions and improvement.may_widen and (wide := wide_plain(improvement)):
            sessions = [wide]
        if improvement.cancelled.is_set():
            close(sessions)
            return
        chosen = sessions or [replica.session for replica in improvement.replicas]
        self._tunings.keep(kind, self._tuned(improvement, chosen))
        if sessions:
            swap(improvement, sessions)
        self._on_state(improvement.id, state)

    def _tuned(self, improvement: OptimisationJob, sessions: list[RunningSession]) -> Tuning:
        """Find out what is worth merging; note how the graph is best run, if it is kept."""
        first, mergeable = sessions[0], NOT_TRIED
        if improvement.merges:
            mergeable = find_mergeable(
                first,
                improvement.meta_graph,
                improvement.warm,
                improvement.rows_known(first.optimised),
            )
            for session in sessions:
                session.mergeable = mergeable
        tuning = Tuning(first.optimised, first.threads, mergeable)
        if first.optimised and (place := self._graphs().find(_key_of(improvement))):
            write_tuning(place / GRAPH_FILE, improvement.setting, tuning)
        return tuning

    def _optimised(self, improvement: OptimisationJob) -> list[RunningSession]:
        """Each replica's proven session on the optimised graph, from the cache or made now."""
        if not c_api.is_sound():
            raise Declined("the C API is not usable with this TensorFlow")
        if device := improvement.accelerator:  # graphs are optimised for the host
            raise Declined(f"placed on {device}")
        weights = weights_of(improvement.path)
        if weights > MAX_WEIGHTS:
            raise Declined(f"{weights} bytes of variables are more than {MAX_WEIGHTS}")
        cache, key = self._graphs(), _key_of(improvement)
        kept = cache.find(key)
        if kept is not None:
            try:
                return rehearsed(improvement, proven(improvement, kept))
            except Declined:
                raise
            except Exception as error:
                _log.warning("an optimised graph is made anew, not taken from %s: %s", kept, error)
                cache.forget(kept)
        place = self._made(improvement, key, weights)
        try:
            return rehearsed(improvement, proven(improvement, place))
        finally:
            cache.drop(place)

    def _made(self, improvement: OptimisationJob, key: str, weights: int) -> Path:
        """The folder with what a child makes of the model now."""
        cache = self._graphs()
        workplace = cache.workplace()
        try:
            self._run_child(improvement, workplace, weights)
            if _key_of(improvement) != key:
                raise Declined("the model's files changed meanwhile")
            return cache.keep(workplace, key)
        except BaseException:
            cache.drop(workplace)
            raise

    def _run_child(self, improvement: OptimisationJob, workplace: Path, weights: int) -> None:
        memory = self._memory_limit or _CHILD_BASE_BYTES + weights * _CHILD_BYTES_PER_WEIGHT
        command = [
            sys.executable,
            "-m",
            "servingd.servables.saved_model.optimise.child",
            improvement.path,
            str(workplace),
            f"--tags={','.join(improvement.tags)}",
            f"--memory-limit-bytes={memory}",
            f"--cpu-limit-seconds={_CHILD_CPU_SECONDS}",
            f"--parent={os.getpid()}",
            f"--op-libraries={','.join(self._extensions.op_libraries)}",
            f"--python-imports={','.join(self._extensions.python_imports)}",
        ]
        if improvement.cancelled.is_set():
            raise Declined("cancelled")
        with tempfile.TemporaryFile() as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            with self._changed:
                self._child = child
                if improvement.cancelled.is_set():  # before anybody could see the child
                    child.kill()
            try:
                code = child.wait(_CHILD_SECONDS)
            except subprocess.TimeoutExpired:
                raise Declined(f"the optimiser took more than {_CHILD_SECONDS:.0f} s") from None
            finally:
                with self._changed:
                    self._child = None
                child.kill()  # no effect on one that has ended
                child.wait()
            if code != 0:
                raise Declined(f"the optimiser ended with {_outcome(code)}: {_tail(output)}")

    def _graphs(self) -> GraphCache:
        with self._changed:
            if self._cache is None:
                self._cache = GraphCache(self._cache_dir)
            return self._cache


def _kind_of(improvement: OptimisationJob) -> str:
    meta_graph, weights = improvement.meta_graph, weights_of(improvement.path)
    return kind_of(meta_graph.graph(), meta_graph.signatures, weights, improvement.setting)


def _key_of(improvement: OptimisationJob) -> str:
    return _key(improvement.path, improvement.tags)


def _key(path: str, tags: tuple[str, ...]) -> str:
    return model_key(path, __version__, tensorflow().__version__, *tags)


def _outcome(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _tail(errors: Any) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
    lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
