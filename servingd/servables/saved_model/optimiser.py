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
from servingd.core.types import ServableId
from servingd.errors import ServingError
from servingd.servables.saved_model import c_api
from servingd.servables.saved_model.graph_cache import GraphCache, model_key
from servingd.servables.saved_model.meta_graph import MetaGraph
from servingd.servables.saved_model.optimise import GRAPH_FILE, REPORT_FILE
from servingd.servables.saved_model.servable import SavedModelServable
from servingd.servables.saved_model.sessions import (
    RunningSession,
    open_optimised,
    open_plain,
    same_answers,
)
from servingd.servables.saved_model.tensorflow import tensorflow

OnGraphState: TypeAlias = Callable[[ServableId, str], None]
"""Told of a graph's state: `plain`, `optimising`, `optimised`, `declined`, or empty once gone."""

MAX_WEIGHTS = 256 << 20
"""Larger models keep their variables: constants take about seven times their size."""

_CHILD_SECONDS = 600.0
_CHILD_BASE_BYTES = 6 << 30
_CHILD_BYTES_PER_WEIGHT = 16

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
    servable: SavedModelServable
    cancelled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


class _Declined(Exception):
    pass


class GraphOptimiser:
    """Owns the thread `optimiser` and its child process."""

    def __init__(self, cache_dir: str, enabled: bool, on_state: OnGraphState) -> None:
        self._cache_dir = cache_dir
        self._enabled = enabled
        self._on_state = on_state
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
            self._waiting.append(improvement)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="optimiser", daemon=True)
                self._thread.start()
            self._changed.notify()

    def cancel(self, improvement: Improvement) -> None:
        """Give an improvement up; on return its servable is not touched any more."""
        improvement.cancelled.set()
        with self._changed:
            if improvement in self._waiting:
                self._waiting.remove(improvement)
                improvement.over.set()
            elif improvement is self._current and self._child is not None:
                self._child.kill()
        improvement.over.wait(60.0)
        self._on_state(improvement.id, "")

    def stop(self) -> None:
        """End the thread and its child."""
        with self._changed:
            self._stopped = True
            if self._child is not None:
                self._child.kill()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(10.0)

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
            except (_Declined, ServingError) as reason:
                if improvement.cancelled.is_set():
                    return
                state = "declined"
                _log.info("%s is served as it is, not optimised: %s", improvement.id, reason)
        if session is None and improvement.threads > 1:
            session = open_plain(
                improvement.path,
                improvement.tags,
                improvement.threads,
                improvement.meta_graph,
                improvement.warm,
            )
        if session is not None:
            improvement.servable.swap(session)
            _log.info(
                "%s runs on a graph that is %s, on %d threads",
                improvement.id,
                state if state == "optimised" else "plain",
                improvement.threads,
            )
        self._on_state(improvement.id, state)

    def _optimised(self, improvement: Improvement) -> RunningSession:
        if not c_api.is_sound():
            raise _Declined("the C API is not usable with this TensorFlow")
        weights = _weights(improvement.path)
        if weights > MAX_WEIGHTS:
            raise _Declined(f"{weights} bytes of variables are more than {MAX_WEIGHTS}")
        place, report = self._prepared(improvement, weights)
        try:
            if not report["optimised"]:
                raise _Declined(report["reason"])
            session = open_optimised(
                str(place / GRAPH_FILE),
                improvement.path,
                report["initialiser"],
                report["assets"],
                improvement.threads,
                improvement.meta_graph.signatures,
            )
        finally:
            self._graphs().drop(place)
        plain, signatures = improvement.servable.session, improvement.meta_graph.signatures
        if not same_answers(plain, session, signatures, improvement.warm):
            session.close()
            raise _Declined("the optimised graph gives other answers here")
        return session

    def _prepared(self, improvement: Improvement, weights: int) -> tuple[Path, dict[str, Any]]:
        """The folder of the optimised graph, from the cache or made now, and its report."""
        key = model_key(improvement.path, __version__, tensorflow().__version__, *improvement.tags)
        place = self._graphs().find(key)
        if place is None:
            workplace = self._graphs().workplace()
            self._run_child(improvement, workplace, weights)
            place = self._graphs().keep(workplace, key)
        report: dict[str, Any] = json.loads((place / REPORT_FILE).read_text())
        return place, report

    def _run_child(self, improvement: Improvement, workplace: Path, weights: int) -> None:
        command = [
            sys.executable,
            "-m",
            "servingd.servables.saved_model.optimise",
            improvement.path,
            str(workplace),
            f"--tags={','.join(improvement.tags)}",
            f"--memory-limit-bytes={_CHILD_BASE_BYTES + weights * _CHILD_BYTES_PER_WEIGHT}",
            f"--parent={os.getpid()}",
        ]
        with tempfile.TemporaryFile() as errors:
            with self._changed:
                if self._stopped or improvement.cancelled.is_set():
                    self._graphs().drop(workplace)
                    raise _Declined("cancelled")
                self._child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
                )
            try:
                code = self._child.wait(_CHILD_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                code = self._child.wait()
            finally:
                with self._changed:
                    self._child = None
            if code != 0:
                self._graphs().drop(workplace)
                raise _Declined(f"the optimiser ended with {_outcome(code)}: {_tail(errors)}")

    def _graphs(self) -> GraphCache:
        if self._cache is None:
            self._cache = GraphCache(self._cache_dir)
        return self._cache


def _weights(path: str) -> int:
    return sum(f.stat().st_size for f in Path(path, "variables").glob("variables.data-*"))


def _outcome(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _tail(errors: Any) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
    lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
