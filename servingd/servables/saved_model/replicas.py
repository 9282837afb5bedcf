"""Several replicas of one SavedModel, each with a session of its own, as one servable."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from servingd.core.call_protocols import Completion
from servingd.core.resources.placement import FAILURES_IN_A_ROW, ReplicaReport, choose_replica
from servingd.core.types import Signature, Tensors
from servingd.servables.saved_model.servable import SavedModelServable


class _Slot:
    """One replica, and the number of its runs under way."""

    __slots__ = ("outstanding", "replica")

    def __init__(self, replica: SavedModelServable) -> None:
        self.replica = replica
        self.outstanding = 0  # guarded by the servable's lock


class ReplicatedServable:
    """Hands each call to the replica with the fewest runs under way; see `core.servable.Servable`.

    A replica that is out of service gets no calls. The last one is never taken out of service.
    """

    def __init__(self, replicas: Sequence[SavedModelServable], runs_at_once: int = 0) -> None:
        """`replicas` run one graph. `runs_at_once`: see `core.servable.Replicated`."""
        first = replicas[0]
        self.replicas = tuple(replicas)
        self.runs_at_once = runs_at_once
        self.ruled_batching = first.ruled_batching
        self.signatures: Mapping[str, Signature] = first.signatures
        self.metadata: Mapping[str, Signature] = first.metadata
        self._lock = threading.Lock()
        self._runs = 0  # begun so far; guarded by _lock
        self._slots = [_Slot(replica) for replica in replicas]
        self._serving = tuple(self._slots)  # guarded by _lock

    def rows_worth_merging(self, signature: str) -> int:
        """Return up to how many rows merging pays, as measured on one replica."""
        return self._serving[0].replica.rows_worth_merging(signature)

    def why_not_merged(self, signature: str) -> str:
        """Return the first replica's reason: all run one graph."""
        return self._serving[0].replica.why_not_merged(signature)

    def may_be_repeated(self, signature: str) -> bool:
        """Return whether the signature reaches no operation that keeps state."""
        return self.replicas[0].may_be_repeated(signature)

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Run in this thread on one replica; see `SavedModelServable.run`."""
        with self._lock:
            serving = self._serving
            self._runs += 1
            slot = serving[choose_replica([s.outstanding for s in serving], self._runs)]
            slot.outstanding += 1
        try:
            slot.replica.run(signature, inputs, done)
        finally:
            with self._lock:
                slot.outstanding -= 1

    def take_out_of_service(self, replica: SavedModelServable) -> bool:
        """Give a replica no more calls, unless it is the last; return whether it gets none."""
        with self._lock:
            others = tuple(slot for slot in self._serving if slot.replica is not replica)
            if others:
                self._serving = others
            return bool(others)

    def return_to_service(self, replica: SavedModelServable) -> None:
        """Give a replica calls again."""
        with self._lock:
            serving = {slot.replica for slot in self._serving} | {replica}
            self._serving = tuple(slot for slot in self._slots if slot.replica in serving)

    def reports(self) -> list[ReplicaReport]:
        """Return each replica's report, as operators see it."""
        with self._lock:
            serving = {slot.replica for slot in self._serving}
        return [replica.report(_state(replica, replica in serving)) for replica in self.replicas]

    def close(self) -> None:
        """Free all sessions."""
        for replica in self.replicas:
            replica.close()


def _state(replica: SavedModelServable, serves: bool) -> str:
    if not serves:
        return "out"
    return "failing" if replica.failures >= FAILURES_IN_A_ROW else "serving"
