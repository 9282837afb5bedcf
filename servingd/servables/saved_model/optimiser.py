"""The server's side of graph optimisation: one child at a time, and the swap when it is proven.

A model serves its plain graph at once. In the background a child process writes an optimised graph
(or finds it in the cache), and the servable is switched over to it. None of this is the manager's
affair: no state, no event. Whatever fails, the plain graph goes on serving.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from servingd import __version__
from servingd.core.interfaces import Completion, Servable
from servingd.core.types import ServableId, Signature, Tensors
from servingd.errors import Cancelled, ServingError
from servingd.servables.saved_model import c_api
from servingd.servables.saved_model.graph_cache import GraphCache, model_key
from servingd.servables.saved_model.meta_graph import MetaGraph
from servingd.servables.saved_model.optimise import GRAPH_FILE, REPORT_FILE
from servingd.servables.saved_model.row_wise import rows_worth_merging
from servingd.servables.saved_model.servable import SavedModelServable
from servingd.servables.saved_model.sessions import (
    RunningSession,
    open_optimised,
    open_plain,
    same_answers,
)
from servingd.servables.saved_model.tensorflow import SessionOptions, give_memory_back, tensorflow
from servingd.servables.saved_model.width import better

OnGraphState: TypeAlias = Callable[[ServableId, str], None]
"""Told of a graph's state: `plain`, `optimising`, `optimised`, `declined`; empty once unloaded."""

MAX_WEIGHTS = 256 << 20
"""Larger models keep their variables: constants take about seven times their size."""

_CHILD_SECONDS = 1800.0  # it is niced: beside a busy server it gets little of each second
_CHILD_CPU_SECONDS = 600
_CHILD_BASE_BYTES = 6 << 30
_CHILD_BYTES_PER_WEIGHT = 16

_PATIENCE_S = 60.0
_STOP_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Improvement:
    """One servable that may get a better session."""

    id: ServableId
    path: str
    tags: tuple[str, ...]
    meta_graph: MetaGraph
    warm: Mapping[str, bool]
    threads: int
    """How many a session may get, if that pays."""
    options: SessionOptions
    """How its first session was opened."""
    servable: SavedModelServable
    merges: bool = True
    """Whether it is to be found out what is worth merging."""
    warm_up: Callable[[Servable], None] = lambda servable: None
    """Runs the recorded requests on what is to take over; raises a ServingError if one fails."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def may_widen(self) -> bool:
        """Whether a session on more threads is worth a look."""
        return self.threads > self.options.threads and not self.cancelled.is_set()


class _Declined(Exception):
    pass


class GraphOptimiser:
    """Owns the thread `optimiser` and its child process."""

    def __init__(
        self, cache_dir: str, enabled: bool, on_state: OnGraphState, memory_limit: int = 0
    ) -> None:
        """`memory_limit` is the child's, in bytes; 0: by the model's size."""
        self._cache_dir = cache_dir
        self._enabled = enabled
        self._on_state = on_state
        self._memory_limit = memory_limit
        self._cache: GraphCache | None = None  # made by the first improvement
        self._changed = threading.Condition()
        self._waiting: deque[Improvement] = deque()  # guarded by _changed
        self._current: Improvement | None = None  # guarded by _changed
        self._child: subprocess.Popen[bytes] | None = None  # guarded by _changed
        self._stopped = False  # guarded by _changed
        self._thread: threading.Thread | None = None  # guarded by _changed; made when first needed

    def submit(self, improvement: Improvement) -> None:
        """Improve a servable in the background, in order of arrival."""
        if self._enabled:
            self._on_state(improvement.id, "optimising")
        with self._changed:
            if not self._stopped:
                self._waiting.append(improvement)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="optimiser", daemon=True)
                    self._thread.start()
                self._changed.notify()
                return
        improvement.over.set()

    def cancel(self, improvement: Improvement) -> None:
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
            thread = self._thread
        for improvement in abandoned:
            improvement.over.set()
        if thread is not None:
            thread.join(_STOP_S)
            if thread.is_alive():
                _log.warning("thread %s does not end within %.0f s", thread.name, _STOP_S)

    # The optimiser's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while (improvement := self._next()) is not None:
            try:
                self._improve(improvement)
            except Exception:
                _log.exception("the graph of %s could not be improved", improvement.id)
                self._on_state(improvement.id, "declined")
            finally:
                with self._changed:
                    self._current = None
                improvement.over.set()
            del improvement  # else its servable lives until the next one comes

    def _next(self) -> Improvement | None:
        with self._changed:
            while not self._waiting and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _improve(self, improvement: Improvement) -> None:
        state, session = "plain", None
        if self._enabled:
            try:
                session, state = self._optimised(improvement), "optimised"
            except (_Declined, ServingError, OSError) as reason:
                state = "declined"
                if not improvement.cancelled.is_set():
                    _log.info("%s is served as it is, not optimised: %s", improvement.id, reason)
        if session is None and improvement.may_widen:
            session = _wide_plain(improvement)
        if improvement.cancelled.is_set():
            if session is not None:
                session.close()
            return
        if improvement.merges:
            chosen = session or improvement.servable.session
            chosen.rows_worth = rows_worth_merging(
                chosen, improvement.meta_graph.signatures, improvement.warm
            )
        if session is not None:
            improvement.servable.swap(session)
            give_memory_back()
            _log.info(
                "%s runs on a graph that is %s, on %d threads",
                improvement.id,
                state if state == "optimised" else "plain",
                session.threads,
            )
        self._on_state(improvement.id, state)

    def _optimised(self, improvement: Improvement) -> RunningSession:
        """A proven session on the optimised graph, from the cache or made now."""
        if not c_api.is_sound():
            raise _Declined("the C API is not usable with this TensorFlow")
        weights = _weights(improvement.path)
        if weights > MAX_WEIGHTS:
            raise _Declined(f"{weights} bytes of variables are more than {MAX_WEIGHTS}")
        cache, key = self._graphs(), _key(improvement)
        kept = cache.find(key)
        if kept is not None:
            try:
                return _rehearsed(improvement, _proven(improvement, kept))
            except _Declined:
                raise
            except Exception as error:
                _log.warning("an optimised graph is made anew, not taken from %s: %s", kept, error)
                cache.forget(kept)
        place = self._made(improvement, key, weights)
        try:
            return _rehearsed(improvement, _proven(improvement, place))
        finally:
            cache.drop(place)

    def _made(self, improvement: Improvement, key: str, weights: int) -> Path:
        """The folder with what a child makes of the model now."""
        cache = self._graphs()
        workplace = cache.workplace()
        try:
            self._run_child(improvement, workplace, weights)
            if _key(improvement) != key:
                raise _Declined("the model's files changed meanwhile")
            return cache.keep(workplace, key)
        except BaseException:
            cache.drop(workplace)
            raise

    def _run_child(self, improvement: Improvement, workplace: Path, weights: int) -> None:
        memory = self._memory_limit or _CHILD_BASE_BYTES + weights * _CHILD_BYTES_PER_WEIGHT
        command = [
            sys.executable,
            "-m",
            "servingd.servables.saved_model.optimise",
            improvement.path,
            str(workplace),
            f"--tags={','.join(improvement.tags)}",
            f"--memory-limit-bytes={memory}",
            f"--cpu-limit-seconds={_CHILD_CPU_SECONDS}",
            f"--parent={os.getpid()}",
        ]
        if improvement.cancelled.is_set():
            raise _Declined("cancelled")
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
                raise _Declined(f"the optimiser took more than {_CHILD_SECONDS:.0f} s") from None
            finally:
                with self._changed:
                    self._child = None
                child.kill()  # no effect on one that has ended
                child.wait()
            if code != 0:
                raise _Declined(f"the optimiser ended with {_outcome(code)}: {_tail(output)}")

    def _graphs(self) -> GraphCache:
        if self._cache is None:
            self._cache = GraphCache(self._cache_dir)
        return self._cache


def _key(improvement: Improvement) -> str:
    return model_key(improvement.path, __version__, tensorflow().__version__, *improvement.tags)


def _proven(improvement: Improvement, place: Path) -> RunningSession:
    """A session on the graph in `place` that answers here as the plain one does."""
    report: dict[str, Any] = json.loads((place / REPORT_FILE).read_text())
    if not report["optimised"]:
        raise _Declined(report["reason"])
    if improvement.cancelled.is_set():
        raise _Declined("cancelled")
    signatures = improvement.meta_graph.signatures

    def on(threads: int) -> RunningSession:
        return open_optimised(
            str(place / GRAPH_FILE),
            improvement.path,
            report["initialiser"],
            report["assets"],
            improvement.options._replace(threads=threads),
            signatures,
        )

    session = on(improvement.options.threads)
    try:
        if not same_answers(improvement.servable.session, session, signatures, improvement.warm):
            raise _Declined("the optimised graph gives other answers here")
        wide = None
        if improvement.may_widen:
            wide = better(session, lambda: on(improvement.threads), signatures, improvement.warm)
    except BaseException:
        session.close()
        raise
    if wide is not None:
        session.close()
    return wide or session


def _wide_plain(improvement: Improvement) -> RunningSession | None:
    """The plain graph on all threads, if that pays."""
    signatures = improvement.meta_graph.signatures
    session = better(
        improvement.servable.session,
        lambda: open_plain(
            improvement.path,
            improvement.tags,
            improvement.options._replace(threads=improvement.threads),
            improvement.meta_graph,
            improvement.warm,
        ),
        signatures,
        improvement.warm,
    )
    try:
        return session and _rehearsed(improvement, session)
    except _Declined as reason:
        if not improvement.cancelled.is_set():
            _log.warning("%s stays on one thread: %s", improvement.id, reason)
        return None


class _Trial(SavedModelServable):
    """A session before its first caller: its runs end when it is not wanted any more."""

    def __init__(self, improvement: Improvement, session: RunningSession) -> None:
        super().__init__(improvement.meta_graph, session, may_be_run=improvement.warm)
        self._cancelled = improvement.cancelled

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        if self._cancelled.is_set():
            raise Cancelled("the version is unloaded")
        super().run(signature, inputs, done)


def _rehearsed(improvement: Improvement, session: RunningSession) -> RunningSession:
    """The session, once it has answered the recorded requests; closed if it does not."""
    try:
        improvement.warm_up(_Trial(improvement, session))
    except BaseException as error:
        session.close()
        if isinstance(error, ServingError):
            raise _Declined(f"a recorded request fails on the new session: {error}") from error
        raise
    return session


def _weights(path: str) -> int:
    return sum(f.stat().st_size for f in Path(path, "variables").glob("variables.data-*"))


def _outcome(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _tail(errors: Any) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
    lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
