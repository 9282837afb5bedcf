"""What a servable type consists of: a Platform makes Loaders, a Loader makes a Servable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from servingd.core.batching.queue import BatchRules
from servingd.core.calls import Completion, SignatureRunner
from servingd.core.completeness import Listing
from servingd.core.resources.estimates import UNKNOWN, Estimate
from servingd.core.types import (
    ANYWHERE,
    Device,
    Placement,
    ServableId,
    Signature,
    Tensors,
    VersionData,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledBatching:
    """Batches by an operator's rules: TensorFlow Serving's `BatchingParameters`."""

    rules: BatchRules
    hold_s: float
    """How long an unfilled batch waits."""
    allowed_rows: tuple[int, ...] = ()
    """Sizes that batches are filled up to; empty: any."""
    pads_lengths: bool = False
    """Whether tensors of different lengths may share a batch."""
    threads: int = 0
    """How many batches of a signature may run at a time; 0: as the server is configured."""


class Servable(Protocol):
    """Something loaded that answers calls, from many threads at once, until it is closed."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """Every way to call it; constant for its life."""
        ...

    @property
    def metadata(self) -> Mapping[str, Signature]:
        """What GetModelMetadata shows: the signatures, and those that are never called."""
        ...

    @property
    def ruled_batching(self) -> RuledBatching | None:
        """How its calls are batched, where an operator has said so."""
        return None

    def rows_worth_merging(self, signature: str) -> int:
        """Up to how many rows a run of a signature gets cheaper per row.

        0 unless it is known to work row by row: f([a; b]) = [f(a); f(b)]. May change while it
        serves; called often.
        """
        return 0

    def why_not_merged(self, signature: str) -> str:
        """Why no rows are worth merging; empty where some are, or nothing is to be said."""
        return ""

    def may_be_repeated(self, signature: str) -> bool:
        """Whether a call of a signature leaves nothing behind that a later one could see."""
        return True

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Compute all outputs of `signature` and complete `done`, now or later, from any thread.

        `inputs` hold every input of the signature, in its order, already checked against it; a
        default has been filled in. Raising a ServingError is the same as `done.fail` with it.
        """
        ...

    def close(self) -> None:
        """Free what it holds. Called once, when no run is under way."""
        ...


class Loader(Protocol):
    """Knows how to make one version's servable. Made cheaply; used from one thread at a time."""

    def estimate(self) -> Estimate:
        """What the version will take, from its files; called before it is loaded.

        What it raises counts as not knowing.
        """
        return UNKNOWN

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Make the servable, warm, with a replica on each device of the placement.

        Called again if it failed, maybe with another placement; raises ServingError.
        """
        ...

    def cancel(self) -> None:
        """The load under way is not wanted any more: it may end soon, with whatever error.

        Returns at once; from any thread, while `estimate` or `load` may be running. No more loads
        are asked for afterwards.
        """
        return

    def grow(self) -> None:
        """There is room by now for what the estimate calls growth; returns at once.

        Called at most once, after a load whose placement did not allow it.
        """
        return

    def unload(self, servable: Servable) -> None:
        """Close the servable and give its memory back. Called once, after a load that succeeded."""
        ...


@runtime_checkable
class Replicated(Protocol):
    """A servable that lies on several devices, or on one that takes few runs at a time."""

    @property
    def replicas(self) -> Sequence[Servable]:
        """Each by itself: what is to be warm must be run on each of them."""
        ...

    @property
    def runs_at_once(self) -> int:
        """How many batches of a signature may run at a time; 0: as many as the server likes."""
        ...


@runtime_checkable
class Relocates(Protocol):
    """A loader whose servable can do without a device."""

    def relocate(self, failed: Device, to: Device | None) -> tuple[Device, ...]:
        """Move what failed on a device, or free it; where all replicas lie afterwards.

        Called on the load pool, while it serves. What cannot be moved stays out, or serves on.
        """
        ...


class Platform(Protocol):
    """One type of servable (TensorFlow Serving's `model_platform`), and what its loaders share."""

    @property
    def name(self) -> str:
        """What configurations call it."""
        ...

    def recognises(self, listing: Listing) -> bool:
        """Whether a version looks like one of this type, complete or not."""
        ...

    def missing(self, listing: Listing) -> str | None:
        """What a version still lacks, as a reason; None if it is complete. Raises OSError."""
        ...

    def loader(self, servable_id: ServableId, data: VersionData) -> Loader:
        """A loader for one version; cheap."""
        ...

    def stop(self) -> None:
        """End what the loaders share. Servables serve on until they are unloaded."""
        ...


class Dispatcher(Protocol):
    """Opens runners for a servable that becomes ready and closes them when it is drained."""

    def open(self, servable_id: ServableId, servable: Servable) -> Mapping[str, SignatureRunner]:
        """One runner per signature."""
        ...

    def close(self, servable_id: ServableId) -> None:
        """End the runners' threads; called when no handle is left."""
        ...
