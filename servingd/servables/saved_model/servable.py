"""A loaded SavedModel: its session may be replaced by a faster one while it serves."""

from __future__ import annotations

from collections.abc import Mapping

from servingd.config.batching import BatchingParameters
from servingd.core.interfaces import Completion
from servingd.core.types import Signature, Tensors
from servingd.errors import Unavailable
from servingd.servables.batching_rules import ruled
from servingd.servables.saved_model.meta_graph import MetaGraph
from servingd.servables.saved_model.sessions import RunningSession
from servingd.servables.saved_model.tensorflow import translate


class SavedModelServable:
    """Answers calls with all outputs of a signature; see `core.interfaces.Servable`."""

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

    @property
    def session(self) -> RunningSession:
        """What it runs on now."""
        return self._session

    def rows_worth_merging(self, signature: str) -> int:
        """As measured when the session was warmed; 0 unless it is proven row by row."""
        return self._session.rows_worth.get(signature, 0)

    def may_be_repeated(self, signature: str) -> bool:
        """Whether its graph reaches nothing that keeps state."""
        return self._may_be_run.get(signature, False)

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Run in this thread, without the GIL; raises TensorFlow's errors, translated."""
        session = self._session
        while not session.enter():  # it was replaced between the two lines
            if self._session is session:
                raise Unavailable("the servable is closed")
            session = self._session
        try:
            outputs = session.calls[signature.name].run(inputs)
        except Exception as error:
            raise translate(error) from error
        finally:
            session.leave()
        done.succeed(outputs)

    def swap(self, session: RunningSession) -> None:
        """Run on another session from now on; the old one is freed when its runs have ended."""
        old, self._session = self._session, session
        old.close()

    def close(self) -> None:
        """Free the session."""
        self._session.close()
