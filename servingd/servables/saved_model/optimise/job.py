"""One version's optimisation: new sessions, opened, compared and warmed up, then swapped in.

Whatever fails, the sessions that serve go on serving.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from servingd.core.call_protocols import Completion
from servingd.core.callbacks import nothing
from servingd.core.servable import Servable
from servingd.core.types import Device, ServableId, Signature, Tensors
from servingd.errors import Cancelled, ServingError
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.optimise.child import GRAPH_FILE, Declined
from servingd.servables.saved_model.optimise.report import Report, read_report
from servingd.servables.saved_model.optimise.thread_tuning import open_if_faster
from servingd.servables.saved_model.optimise.tuning import Tuning
from servingd.servables.saved_model.servable import SavedModelServable
from servingd.servables.saved_model.session.c_api import give_back_tensors
from servingd.servables.saved_model.session.opening import open_optimised, open_plain
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.saved_model.session.warm_up import same_answers
from servingd.servables.tensorflow_runtime.runtime import give_memory_back

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class OptimisationJob:
    """One version whose replicas may get better sessions; see `GraphOptimiser.submit`."""

    id: ServableId
    path: str
    tags: tuple[str, ...]
    meta_graph: MetaGraph
    safe_to_run: MutableMapping[str, bool]
    """By signature, whether it may be run on synthetic inputs."""
    threads: int
    """Intra-op threads that a session may get, if that pays."""
    replicas: Sequence[SavedModelServable]
    may_merge: bool = True
    """Whether to find out which calls may be merged, and what that is worth."""
    settings_digest: str = ""
    """What a tuning depends on besides the graph."""
    attempt: str = ""
    """The key of this version's files in `Attempts`."""
    warm_up: Callable[[Servable], None] = nothing
    """Runs the recorded requests on a servable; raises the ServingError of one that fails."""
    on_swapped: Callable[[], None] = nothing
    """Called when the new sessions serve."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    """Set when the job is done, or was dropped: from then on it touches no replica."""
    tuning: Tuning | None = None
    """The tuning of a graph of the same kind, if one was found before."""

    def known_threads(self, optimised: bool) -> int:
        """Return the threads to use for an optimised or plain graph; 0: not known, to be tried."""
        known = self.tuning
        return known.threads if known is not None and known.optimised == optimised else 0

    def known_rows(self, optimised: bool) -> Mapping[str, int]:
        """Return the rows worth merging by signature; empty: not known, to be tried."""
        known = self.tuning
        if known is None or known.optimised != optimised:
            return {}
        return known.mergeable.rows_worth

    @property
    def may_add_threads(self) -> bool:
        """Whether a session on more threads is worth a trial."""
        current = self.measured_replica.session.threads
        return len(self.replicas) == 1 and self.threads > current and not self.cancelled.is_set()

    @property
    def measured_replica(self) -> SavedModelServable:
        """The replica that is measured for all."""
        return self.replicas[0]

    @property
    def accelerator(self) -> Device | None:
        """The first device of a replica that is not the host."""
        devices = (replica.session.options.device for replica in self.replicas)
        return next((d for d in devices if d is not None and not d.is_host), None)


def swap_sessions(job: OptimisationJob, sessions: list[RunningSession]) -> None:
    """Let each replica run on its new session from now on."""
    for replica, session in zip(job.replicas, sessions, strict=True):
        replica.swap(session)
        give_back_tensors(session.mapped)  # those of the plain session
    job.on_swapped()
    give_memory_back()
    _log.info(
        "%s runs on a graph that is %s, on %d threads",
        job.id,
        "optimised" if sessions[0].optimised else "plain",
        sessions[0].threads,
    )


def close_sessions(sessions: Iterable[RunningSession]) -> None:
    """Free sessions that do not serve."""
    for session in sessions:
        session.close()


def open_proven(job: OptimisationJob, folder: Path) -> list[RunningSession]:
    """Open the optimised graph in `folder` for each replica; it answers as the plain one does.

    Raises Declined if it does not, or the child wrote no graph; OSError or ValueError for files
    that cannot be read; a ServingError.
    """
    report = read_report(folder)
    sessions: list[RunningSession] = []
    try:
        for replica in job.replicas:
            if job.cancelled.is_set():
                raise Declined("cancelled")
            sessions.append(_open_proven_replica(job, replica, folder, report))
    except BaseException:
        close_sessions(sessions)
        raise
    return sessions


def _open_proven_replica(
    job: OptimisationJob,
    replica: SavedModelServable,
    folder: Path,
    report: Report,
) -> RunningSession:
    signatures, safe_to_run = job.meta_graph.signatures, job.safe_to_run
    options, reads = replica.session.options, report.reads

    def open_on(threads: int) -> RunningSession:
        return open_optimised(
            str(folder / GRAPH_FILE),
            job.path,
            report.initialiser,
            options._replace(threads=threads),
            signatures,
            report.weights or dict(zip(reads, replica.session.read(reads.values()), strict=True)),
        )

    known = job.known_threads(optimised=True)
    session = open_on(known or options.threads)
    try:
        if not same_answers(replica.session, session, job.meta_graph, safe_to_run):
            raise Declined("the optimised graph gives other answers here")
        session.trace_devices(signatures, safe_to_run)
        faster = None
        if job.may_add_threads and not known:
            faster = open_if_faster(session, lambda: open_on(job.threads), signatures, safe_to_run)
    except BaseException:
        session.close()
        raise
    if faster is not None:
        faster.observed = session.observed
        session.close()
    return faster or session


def open_plain_if_faster(job: OptimisationJob) -> RunningSession | None:
    """Open the plain graph on all threads, warm; None if that does not pay.

    Raises what TensorFlow does, or a ServingError.
    """
    signatures, current = job.meta_graph.signatures, job.measured_replica.session
    if job.known_threads(optimised=False) == current.threads:
        return None
    session = open_if_faster(
        current,
        lambda: open_plain(
            job.path,
            job.tags,
            current.options._replace(threads=job.threads),
            job.meta_graph,
            job.safe_to_run,
        ),
        signatures,
        job.safe_to_run,
    )
    try:
        return pass_recorded_requests(job, [session])[0] if session else None
    except Declined as reason:
        if not job.cancelled.is_set():
            _log.warning("%s stays on one thread: %s", job.id, reason)
        return None


class _Candidate(SavedModelServable):
    """A session before its first caller: no more runs begin once the job is cancelled."""

    def __init__(self, job: OptimisationJob, session: RunningSession) -> None:
        super().__init__(job.meta_graph, session, safe_to_run=job.safe_to_run)
        self._cancelled = job.cancelled

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        if self._cancelled.is_set():
            raise Cancelled("the version is unloaded")
        super().run(signature, inputs, done)


def pass_recorded_requests(
    job: OptimisationJob, sessions: list[RunningSession]
) -> list[RunningSession]:
    """Run the recorded requests on each session, and return the sessions.

    Raises Declined if a request fails; then all sessions are closed.
    """
    try:
        for session in sessions:
            job.warm_up(_Candidate(job, session))
    except BaseException as error:
        close_sessions(sessions)
        if isinstance(error, ServingError):
            raise Declined(f"a recorded request fails on the new session: {error}") from error
        raise
    return sessions
