"""The Protocols of a servable type: a Platform makes Loaders, a Loader makes a Servable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from servingd.core.batching.batch_limits import BatchRules
from servingd.core.call_protocols import Completion, SignatureRunner
from servingd.core.resources.footprints import UNKNOWN, Estimate
from servingd.core.types import (
    ANYWHERE,
    Device,
    Placement,
    ServableId,
    Signature,
    Tensors,
    VersionData,
)
from servingd.core.version_files import Listing


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledBatching:
    """Batching by an operator's parameters: TensorFlow Serving's `BatchingParameters`."""

    rules: BatchRules
    hold_s: float
    """Seconds that an unfilled batch is held."""
    allowed_rows: tuple[int, ...] = ()
    """The sizes, in rows, that batches are padded to; empty: no padding."""
    pads_lengths: bool = False
    """Whether tensors of different lengths may share a batch."""
    threads: int = 0
    """How many batches of a signature may run at a time; 0: the server's setting."""


class Servable(Protocol):
    """A loaded model. It answers calls from many threads at once until it is closed."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures that can be called, by name; they never change."""
        ...

    @property
    def metadata(self) -> Mapping[str, Signature]:
        """The signatures that GetModelMetadata shows; some of them may not be callable."""
        ...

    @property
    def ruled_batching(self) -> RuledBatching | None:
        """The operator's batching parameters for this model; None where there are none."""
        return None

    def rows_worth_merging(self, signature: str) -> int:
        """Return up to how many rows a larger run of a signature is cheaper per row.

        0 unless the signature is known to be row-wise: f([a; b]) = [f(a); f(b)]. The value may
        change while it serves. Called often.
        """
        return 0

    def why_not_merged(self, signature: str) -> str:
        """Return why calls of a signature are not merged; empty if they are, or if not known."""
        return ""

    def may_be_repeated(self, signature: str) -> bool:
        """Return whether a signature keeps no state: repeating a call changes no later one."""
        return True

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Compute all outputs of `signature` and complete `done`, now or later, on any thread.

        `inputs` hold every input of the signature, in its order. They were checked against it, and
        defaults are filled in. Raising a ServingError is the same as `done.fail` with it.
        """
        ...

    def close(self) -> None:
        """Free all memory. Called once, when no run is under way."""
        ...


class Loader(Protocol):
    """Makes one version's servable. Cheap to construct; used by one thread at a time."""

    def estimate(self) -> Estimate:
        """Return what the version will take, read from its files; called before `load`.

        An exception counts as an unknown estimate.
        """
        return UNKNOWN

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Make the servable, warmed up, with a replica on each device of the placement.

        Called again if it failed, perhaps with another placement. Raises ServingError.
        """
        ...

    def cancel(self) -> None:
        """Ask the running `estimate` or `load` to end soon, with any error.

        Returns at once. Called from any thread. `load` is not called afterwards.
        """
        return

    def grow(self) -> None:
        """Allow the growth that the estimate names: there is room for it now. Returns at once.

        Called at most once, after a load whose placement did not allow it.
        """
        return

    def unload(self, servable: Servable) -> None:
        """Close the servable and free its memory. Called once, after a load that succeeded."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A servable that answers calls of some signatures part by part."""

    def streams(self, signature: str) -> bool:
        """Return whether a signature is answered in parts; it never changes. Cheap."""
        ...

    def stream(self, signature: Signature, inputs: Tensors) -> Iterator[Tensors]:
        """Return the parts of one answer, each with outputs of the signature, as a generator.

        `inputs` are as for `Servable.run`. One part is asked for at a time, each perhaps on another
        thread. A step that does not return holds a thread that only this version's streams use.
        Closing the generator ends the stream; raising a ServingError fails it.
        """
        ...


@runtime_checkable
class Replicated(Protocol):
    """A servable with several replicas, or on a device that takes few runs at a time."""

    @property
    def replicas(self) -> Sequence[Servable]:
        """The replicas; each must be warmed up by itself."""
        ...

    @property
    def runs_at_once(self) -> int:
        """How many batches of a signature may run at a time; 0: the server's setting."""
        ...


@runtime_checkable
class RunLimits(Protocol):
    """A servable whose runs may hang, or take their time elsewhere: other people's code."""

    @property
    def runs_inline(self) -> bool:
        """Whether cheap calls may run on a transport's thread."""
        ...

    @property
    def concurrency(self) -> int:
        """How many calls of a signature may be under way; 0: the server's setting."""
        ...


@runtime_checkable
class Relocates(Protocol):
    """A loader that can move its servable's replicas off a device."""

    def relocate(self, failed: Device, to: Device | None) -> tuple[Device, ...]:
        """Move the replicas on a failed device to another one, or free them if `to` is None.

        Returns the devices of all replicas afterwards. Called on the load pool, while the version
        serves. A replica that cannot be moved gets no more calls; the last one serves on.
        """
        ...


class Platform(Protocol):
    """One type of servable (TensorFlow Serving's `model_platform`), and what its loaders share."""

    @property
    def name(self) -> str:
        """Its name in configurations."""
        ...

    def recognises(self, listing: Listing) -> bool:
        """Return whether a version's files look like this type, complete or not."""
        ...

    def missing(self, listing: Listing) -> str | None:
        """Return what a version lacks, as a reason; None if it is complete. Raises OSError."""
        ...

    def loader(self, servable_id: ServableId, data: VersionData) -> Loader:
        """Return a loader for one version; cheap."""
        ...

    def stop(self) -> None:
        """Stop what the loaders share. Servables keep serving until they are unloaded."""
        ...


class Dispatcher(Protocol):
    """Opens runners when a servable becomes ready, and closes them once it is drained."""

    def open(self, servable_id: ServableId, servable: Servable) -> Mapping[str, SignatureRunner]:
        """Return one runner per signature, by its name."""
        ...

    def close(self, servable_id: ServableId) -> None:
        """End the runners' threads; called when no handle is left."""
        ...
