"""One replica of a loaded SavedModel: its session may be replaced while it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from typing import TypeAlias

from servingd.config.batching import BatchingParameters
from servingd.core.call_protocols import Completion
from servingd.core.callbacks import nothing
from servingd.core.resources.placement import (
    FAILURES_IN_A_ROW,
    ReplicaReport,
    blames_device,
    is_broken,
)
from servingd.core.shapes import explained
from servingd.core.types import CPU_0, Device, Signature, Tensors
from servingd.errors import ServingError, Unavailable
from servingd.servables.files.sidecar_files import ruled_batching
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.tensorflow_runtime.runtime import translate

ReplicaCallback: TypeAlias = "Callable[[SavedModelServable], None]"
"""Called from the thread of a run, or of the run watch."""


class SavedModelServable:
    """One replica of a SavedModel; see `core.servable.Servable`.

    It serves by itself, or as one of several; see `ReplicatedServable`.
    """

    runs_at_once = 0
    """Batches of a signature that may run at a time; 0: as many as the server likes."""

    def __init__(
        self,
        meta_graph: MetaGraph,
        session: RunningSession,
        batching: BatchingParameters | None = None,
        safe_to_run: Mapping[str, bool] | None = None,
    ) -> None:
        """`safe_to_run` says by signature whether it keeps no state; without it none counts so."""
        self.ruled_batching = ruled_batching(batching)
        self.signatures = meta_graph.signatures
        self.metadata: Mapping[str, Signature] = {
            **meta_graph.signatures,
            **meta_graph.internal_signatures,
        }
        self._safe_to_run = safe_to_run or {}
        self._session = session  # replaced whole, by `swap`; readers take the reference
        self.failures = 0
        """Failures of its device in a row. Threads may race on it: one more or less is harmless."""
        self.on_broken: ReplicaCallback = nothing
        """Called when the device has failed `FAILURES_IN_A_ROW` times."""
        self.on_recovered: ReplicaCallback = nothing
        """Called when a run succeeds after failures."""
        self.on_overdue: ReplicaCallback = _interrupt
        """Called when a run goes on that nobody waits for; it has to end that run."""
        session.on_overdue = self._overdue

    @property
    def session(self) -> RunningSession:
        """The session that serves now."""
        return self._session

    def rows_worth_merging(self, signature: str) -> int:
        """Return up to how many rows merging pays, as measured on the session that serves.

        0 unless the graph works row by row.
        """
        return self._session.mergeable.rows_worth.get(signature, 0)

    def why_not_merged(self, signature: str) -> str:
        """Return what the analysis of the graph, or the trial of the session, found against it."""
        mergeable = self._session.mergeable
        if signature in mergeable.rows_worth:
            return ""
        return mergeable.refused.get(signature, "its graph was not looked through yet")

    def may_be_repeated(self, signature: str) -> bool:
        """Return whether the signature reaches no operation that keeps state."""
        return self._safe_to_run.get(signature, False)

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Run in this thread, without the GIL. Raises a ServingError with TensorFlow's code.

        Where `done` has an `output_filter`, those outputs alone are computed, as
        `PredictRequest.output_filter` asks. A run that was ended for another run's sake is repeated
        on the session that replaced its own.
        """
        session = self._session
        while not session.enter():  # it was replaced between the two lines
            if self._session is session:
                raise Unavailable("the servable is closed")
            session = self._session
        thread = get_ident()
        session.runs[thread] = done
        try:
            wanted = getattr(done, "output_filter", None)
            call = session.call_for(signature, wanted) if wanted else session.calls[signature.name]
            outputs = call.run(inputs, done.deadline)
        except Exception as error:
            if not session.interrupted:
                raise explained(self._count(translate(error)), signature, inputs) from error
            if session is self._session or not done.alive():
                raise Unavailable("the run was ended: its session is closed") from error
            outputs = None  # its session was closed to end another run: run again
        finally:
            del session.runs[thread]
            session.leave()
        if outputs is None:
            self.run(signature, inputs, done)
            return
        if self.failures:
            self._recover()
        done.succeed(outputs)

    def _count(self, error: ServingError) -> ServingError:
        """Count a failure if it is the device's; return it."""
        if blames_device(error):
            self.failures += 1
            if is_broken(self.failures):
                self.on_broken(self)
        return error

    def _recover(self) -> None:
        self.failures = 0
        self.on_recovered(self)

    @property
    def device(self) -> Device:
        """The device that it was planned for; the first CPU where there was no plan."""
        return self._session.options.device or CPU_0

    @property
    def replicas(self) -> Sequence[SavedModelServable]:
        """The replica itself."""
        return (self,)

    def take_out_of_service(self, replica: SavedModelServable) -> bool:
        """Return False: the only replica stays in service."""
        return False

    def return_to_service(self, replica: SavedModelServable) -> None:
        """Do nothing: it never was out of service."""

    def reports(self) -> list[ReplicaReport]:
        """Return the replica's report, as operators see it."""
        return [self.report("failing" if self.failures >= FAILURES_IN_A_ROW else "serving")]

    def report(self, state: str) -> ReplicaReport:
        """Return this replica's report, with the state that whoever routes calls to it knows."""
        session = self._session
        graph = "optimised" if session.optimised else "plain"
        return ReplicaReport(self.device, state, graph, session.threads, session.observed)

    def swap(self, session: RunningSession, timeout_s: float = 60.0) -> None:
        """Run on another session from now on; free the old one when its runs have ended.

        They are interrupted after `timeout_s`; those that a client still waits for are then run
        again on the new session.
        """
        session.on_overdue = self._overdue
        old, self._session = self._session, session
        old.close(timeout_s)

    def _overdue(self, session: RunningSession) -> None:
        if session is self._session:
            self.on_overdue(self)
        else:
            session.interrupt()

    def close(self) -> None:
        """Free the session."""
        self._session.close()


def _interrupt(replica: SavedModelServable) -> None:
    """End the replica's runs, and so its session."""
    replica.session.interrupt()
