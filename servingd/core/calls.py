"""What a call needs: who takes its outcome, the way to a signature, and a version that stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from servingd.core.batching.queue import Priority
from servingd.core.lifecycle.states import ServableState
from servingd.core.types import ModelSpec, ServableId, Signature, Tensors
from servingd.errors import ServingError


class Completion(Protocol):
    """Where the outcome of one run goes: exactly one of the two is called, from any thread."""

    deadline: float | None
    """Monotonic seconds after which nobody waits any more; None where the caller set none."""

    @property
    def alone(self) -> bool:
        """Whether its transport has no other call in hand: then nothing is gained by waiting."""
        return False

    def priority(self) -> Priority:
        """Who goes first where calls wait."""
        return Priority.NORMAL

    def alive(self) -> bool:
        """Whether anybody still waits: False once cancelled or expired."""
        ...

    def begin_batch(self) -> Callable[[], None] | None:
        """Let the outcomes that this thread hands over to this one's transport go out together.

        Calling what is returned sends them off, at the latest. None where there is no need.
        """
        return None

    def succeed(self, outputs: Tensors) -> None:
        """Hand over the outputs; they must not be written to."""
        ...

    def fail(self, error: ServingError) -> None:
        """Hand over the failure."""
        ...


class SignatureRunner(Protocol):
    """The way to one signature of one ready servable: run here, or from its queue."""

    signature: Signature
    """What the runner leads to."""

    notes: dict[str, Any]
    """What others have worked out for this runner once, to have it at each call."""

    def run(self, inputs: Tensors, done: Completion) -> None:
        """Run now in this thread if that is cheap, else from the signature's queue.

        Raises Unavailable if the queue is full.
        """
        ...


class ServableHandle(Protocol):
    """The right of one call to use one ready version; it stays loaded until `release`."""

    @property
    def id(self) -> ServableId:
        """The version that answers."""
        ...

    @property
    def metadata(self) -> Mapping[str, Signature]:
        """What GetModelMetadata shows of it."""
        ...

    @property
    def runners(self) -> Mapping[str, SignatureRunner]:
        """The way to each signature."""
        ...

    def release(self) -> None:
        """Give it back: once, from any thread."""
        ...


class Models(Protocol):
    """Who is ready."""

    def acquire(self, spec: ModelSpec) -> ServableHandle:
        """A handle on what `spec` means.

        Raises InvalidArgument (no name, unknown label), NotFound (nobody wants it) or Unavailable
        (configured, but not ready). The texts are TensorFlow Serving's where it has one.
        """
        ...


class States(Protocol):
    """What is known of every version's public state."""

    def of_model(self, name: str) -> Sequence[ServableState]:
        """The last state of each version, newest version first; empty if the model is unknown."""
        ...

    def incomplete(self, name: str) -> Mapping[int, str]:
        """Versions on disk that are not whole, with the reason."""
        ...

    def absent(self, name: str) -> str:
        """Why a model has no version that can be loaded; empty where it has one, or may have."""
        ...

    def names(self) -> Sequence[str]:
        """Every model that is configured or has a state, in order."""
        ...
