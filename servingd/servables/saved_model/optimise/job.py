"""New sessions for a version that serves: opened, proven and rehearsed, then swapped in.

Whatever fails, the sessions that serve go on serving.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servingd.core.calls import Completion
from servingd.core.serving import Servable
from servingd.core.types import Device, ServableId, Signature, Tensors
from servingd.errors import Cancelled, ServingError
from servingd.servables.saved_model.files.meta_graph import Initialiser, MetaGraph
from servingd.servables.saved_model.optimise.child import GRAPH_FILE, REPORT_FILE
from servingd.servables.saved_model.optimise.thread_tuning import better
from servingd.servables.saved_model.optimise.tuning import Tuning
from servingd.servables.saved_model.servable import SavedModelServable
from servingd.servables.saved_model.session.opening import open_optimised, open_plain
from servingd.servables.saved_model.session.session import RunningSession, same_answers
from servingd.servables.tensorflow.runtime import give_memory_back

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class OptimisationJob:
    """One version whose replicas may get better sessions."""

    id: ServableId
    path: str
    tags: tuple[str, ...]
    meta_graph: MetaGraph
    warm: MutableMapping[str, bool]
    threads: int
    """How many a session may get, if that pays."""
    replicas: Sequence[SavedModelServable]
    merges: bool = True
    """Whether it is to be found out what is worth merging."""
    setting: str = ""
    """What a tuning depends on besides the graph."""
    attempt: str = ""
    """What the files are called where it is noted that they are being tried."""
    warm_up: Callable[[Servable], None] = lambda servable: None
    """Runs the recorded requests on what is to take over; raises a ServingError if one fails."""
    swapped: Callable[[], None] = lambda: None
    """Told when the new sessions serve."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    tuning: Tuning | None = None
    """What was found out about a graph of its kind."""

    def threads_known(self, optimised: bool) -> int:
        """How many a session on the one graph or the other is to get; 0: that is to be tried."""
        known = self.tuning
        return known.threads if known is not None and known.optimised == optimised else 0

    def rows_known(self, optimised: bool) -> Mapping[str, int]:
        """By signature, how many rows are worth merging; empty: that is to be tried."""
        known = self.tuning
        if known is None or known.optimised != optimised:
            return {}
        return known.mergeable.rows_worth

    @property
    def may_widen(self) -> bool:
        """Whether a session on more threads is worth a look."""
        narrow = self.first.session.threads
        return len(self.replicas) == 1 and self.threads > narrow and not self.cancelled.is_set()

    @property
    def first(self) -> SavedModelServable:
        """The replica that is measured for all."""
        return self.replicas[0]

    @property
    def accelerator(self) -> Device | None:
        """The first device of a replica that is not the host."""
        devices = (replica.session.options.device for replica in self.replicas)
        return next((d for d in devices if d is not None and not d.is_host), None)


class Declined(Exception):
    """The sessions that serve stay; the text says why."""


def swap(improvement: OptimisationJob, sessions: list[RunningSession]) -> None:
    """Let each replica run on its new session from now on."""
    for replica, session in zip(improvement.replicas, sessions, strict=True):
        replica.swap(session)
    improvement.swapped()
    give_memory_back()
    _log.info(
        "%s runs on a graph that is %s, on %d threads",
        improvement.id,
        "optimised" if sessions[0].optimised else "plain",
        sessions[0].threads,
    )


def close(sessions: Iterable[RunningSession]) -> None:
    """Free sessions."""
    for session in sessions:
        session.close()


def proven(improvement: OptimisationJob, place: Path) -> list[RunningSession]:
    """A session for each replica, on the graph in `place`, that answers here as the plain one."""
    report: dict[str, Any] = json.loads((place / REPORT_FILE).read_text())
    if not report["optimised"]:
        raise Declined(report["reason"])
    initialiser = Initialiser(report["initialiser"], report["assets"])
    sessions: list[RunningSession] = []
    try:
        for replica in improvement.replicas:
            if improvement.cancelled.is_set():
                raise Declined("cancelled")
            sessions.append(_proven_one(improvement, replica, place, initialiser))
    except BaseException:
        close(sessions)
        raise
    return sessions


def _proven_one(
    improvement: OptimisationJob, replica: SavedModelServable, place: Path, initialiser: Initialiser
) -> RunningSession:
    signatures, warm = improvement.meta_graph.signatures, improvement.warm
    options = replica.session.options

    def on(threads: int) -> RunningSession:
        return open_optimised(
            str(place / GRAPH_FILE),
            improvement.path,
            initialiser,
            options._replace(threads=threads),
            signatures,
        )

    known = improvement.threads_known(optimised=True)
    session = on(known or options.threads)
    try:
        if not same_answers(replica.session, session, improvement.meta_graph, warm):
            raise Declined("the optimised graph gives other answers here")
        session.look(signatures, warm)
        wide = None
        if improvement.may_widen and not known:
            wide = better(session, lambda: on(improvement.threads), signatures, warm)
    except BaseException:
        session.close()
        raise
    if wide is not None:
        wide.ran = session.ran
        session.close()
    return wide or session


def wide_plain(improvement: OptimisationJob) -> RunningSession | None:
    """The plain graph on all threads, if that pays."""
    signatures, narrow = improvement.meta_graph.signatures, improvement.first.session
    if improvement.threads_known(optimised=False) == narrow.threads:
        return None
    session = better(
        narrow,
        lambda: open_plain(
            improvement.path,
            improvement.tags,
            narrow.options._replace(threads=improvement.threads),
            improvement.meta_graph,
            improvement.warm,
        ),
        signatures,
        improvement.warm,
    )
    try:
        return rehearsed(improvement, [session])[0] if session else None
    except Declined as reason:
        if not improvement.cancelled.is_set():
            _log.warning("%s stays on one thread: %s", improvement.id, reason)
        return None


class _Trial(SavedModelServable):
    """A session before its first caller: its runs end when it is not wanted any more."""

    def __init__(self, improvement: OptimisationJob, session: RunningSession) -> None:
        super().__init__(improvement.meta_graph, session, may_be_run=improvement.warm)
        self._cancelled = improvement.cancelled

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        if self._cancelled.is_set():
            raise Cancelled("the version is unloaded")
        super().run(signature, inputs, done)


def rehearsed(improvement: OptimisationJob, sessions: list[RunningSession]) -> list[RunningSession]:
    """The sessions, once each has answered the recorded requests; closed if one does not."""
    try:
        for session in sessions:
            improvement.warm_up(_Trial(improvement, session))
    except BaseException as error:
        close(sessions)
        if isinstance(error, ServingError):
            raise Declined(f"a recorded request fails on the new session: {error}") from error
        raise
    return sessions
