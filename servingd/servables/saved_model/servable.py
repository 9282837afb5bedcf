"""A loaded SavedModel: its session may be replaced by a better one while it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from typing import TypeAlias

from servingd.config.batching import BatchingParameters
from servingd.core.calls import Completion
from servingd.core.resources.placement import (
    FAILURES_IN_A_ROW,
    ReplicaReport,
    blames_device,
    is_broken,
)
from servingd.core.shapes import explained
from servingd.core.types import CPU_0, Device, Signature, Tensors
from servingd.errors import ServingError, Unavailable
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.sidecar_files import ruled
from servingd.servables.tensorflow.runtime import translate

OnBroken: TypeAlias = "Callable[[SavedModelServable], None]"


class SavedModelServable:
    """One replica: answers calls with all outputs of a signature; see `core.serving.Servable`.

    It may serve by itself, or as one of several; see `ReplicatedServable`.
    """

    runs_at_once = 0
    """How many batches may run at a time; 0: as many as the server likes."""

    def __init__(
        self,
        meta_graph: MetaGraph,
        session: RunningSession,
        batching: BatchingParameters | None = None,
        may_be_run: Mapping[str, bool] | None = None,
    ) -> None:
        """`may_be_run` tells which signatures leave nothing behind; of others it is not known."""
        self.ruled_batching = ruled(batching)
        self.signatures = meta_graph.signatures
        self.metadata: Mapping[str, Signature] = {
            **meta_graph.signatures,
            **meta_graph.internal_signatures,
        }
        self._may_be_run = may_be_run or {}
        self._session = session  # replaced whole, by `swap`; readers take the reference
        self.failures = 0
        """Of its device, in a row. Threads may race on it: then it takes one more or less."""
        self.on_broken: OnBroken = _nobody
        self.on_recovered: OnBroken = _nobody
        self.on_overdue: OnBroken = _end_runs
        session.on_overdue = self._overdue

    @property
    def session(self) -> RunningSession:
        """What it runs on now."""
        return self._session

    def rows_worth_merging(self, signature: str) -> int:
        """As measured on the session that serves; 0 unless the graph works row by row."""
        return self._session.mergeable.rows_worth.get(signature, 0)

    def why_not_merged(self, signature: str) -> str:
        """What the analysis of its graph, or the trial of its session, found against it."""
        mergeable = self._session.mergeable
        if signature in mergeable.rows_worth:
            return ""
        return mergeable.refused.get(signature, "its graph was not looked through yet")

    def may_be_repeated(self, signature: str) -> bool:
        """Whether its graph reaches nothing that keeps state."""
        return self._may_be_run.get(signature, False)

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Run in this thread, without the GIL; raises TensorFlow's errors, translated.

        Where `done` says by its `output_filter` which outputs are wanted, they alone are computed.
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
                raise explained(self._blamed(translate(error)), signature, inputs) from error
            if session is self._session or not done.alive():
                raise Unavailable("the run was ended: its session is closed") from error
            outputs = None  # it was ended for another one's sake
        finally:
            del session.runs[thread]
            session.leave()
        if outputs is None:
            self.run(signature, inputs, done)
            return
        if self.failures:
            self._recover()
        done.succeed(outputs)

    def _blamed(self, error: ServingError) -> ServingError:
        """Count a failure that is the device's."""
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
        """Where it lies; where nobody planned, the host stands for it."""
        return self._session.options.device or CPU_0

    @property
    def replicas(self) -> Sequence[SavedModelServable]:
        """Itself."""
        return (self,)

    def take_out(self, replica: SavedModelServable) -> bool:
        """Whether it gets no calls from now on: it is the only one, so it does."""
        return False

    def put_back(self, replica: SavedModelServable) -> None:
        """It never was out."""

    def reports(self) -> list[ReplicaReport]:
        """The one replica as operators see it."""
        return [self.report("failing" if self.failures >= FAILURES_IN_A_ROW else "serving")]

    def report(self, state: str) -> ReplicaReport:
        """This replica as operators see it."""
        session = self._session
        graph = "optimised" if session.optimised else "plain"
        return ReplicaReport(self.device, state, graph, session.threads, session.ran)

    def swap(self, session: RunningSession, patience_s: float = 60.0) -> None:
        """Run on another session from now on; the old one is freed when its runs have ended.

        They are ended after `patience_s`; what is still waited for then runs on the new one.
        """
        session.on_overdue = self._overdue
        old, self._session = self._session, session
        old.close(patience_s)

    def _overdue(self, session: RunningSession) -> None:
        if session is self._session:
            self.on_overdue(self)
        else:
            session.interrupt()

    def close(self) -> None:
        """Free the session."""
        self._session.close()


def _end_runs(replica: SavedModelServable) -> None:
    """End its runs, and so its session."""
    replica.session.interrupt()


def _nobody(replica: SavedModelServable) -> None:
    """Nobody is told."""
