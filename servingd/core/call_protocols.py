"""The Protocols of a call: who takes its outcome, what runs it, and what keeps the version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from servingd.core.batching.queue import Priority
from servingd.core.lifecycle.states import ServableState
from servingd.core.types import ModelSpec, ServableId, Signature, Tensors
from servingd.errors import ServingError


class Caller(Protocol):
    """Who waits for a call's outcome, as queues and runs see it."""

    deadline: float | None
    """Monotonic seconds after which nobody waits any more; None where the caller set none."""

    @property
    def alone(self) -> bool:
        """Whether its transport has no other call in hand: then waiting gains nothing."""
        return False

    def priority(self) -> Priority:
        """Return the call's priority among those that wait."""
        return Priority.NORMAL

    def alive(self) -> bool:
        """Return whether somebody still waits: False once it was cancelled or has expired."""
        ...

    def begin_batch(self) -> Callable[[], None] | None:
        """Buffer the responses that this thread hands to this transport from now on.

        Returns a function that sends the buffered ones; the caller must call it. Returns None where
        the transport does not buffer.
        """
        return None


class Completion(Caller, Protocol):
    """The receiver of a run's outcome: either `succeed` or `fail` is called once, on any thread."""

    def succeed(self, outputs: Tensors) -> None:
        """Hand over the outputs, by alias. The receiver must not write to them."""
        ...

    def fail(self, error: ServingError) -> None:
        """Hand over the error."""
        ...


class SignatureRunner(Protocol):
    """Runs calls of one signature of one ready servable: in this thread, or from a queue."""

    signature: Signature
    """The signature that is run."""

    notes: dict[str, Any]
    """A cache for other modules: what they have worked out once for this runner's calls."""

    def run(self, inputs: Tensors, done: Completion) -> None:
        """Run a call now in this thread if that is cheap, else enqueue it.

        Raises Unavailable or ResourceExhausted if the queue refuses the call.
        """
        ...


class PartsReceiver(Caller, Protocol):
    """The receiver of an answer in parts.

    After any number of `part`, one of `end` and `fail` is called, and at last `close`; one at a
    time, on any thread. `fail` may also be called beside the others, and then ends the answer.
    """

    @property
    def output_filter(self) -> Sequence[str]:
        """The outputs that the caller wants; empty: all of the signature."""
        ...

    def wants_part(self) -> bool:
        """Return whether the caller has taken most of what it was sent."""
        ...

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake`, on any thread, when it wants a part again and when nobody waits any more."""
        ...

    def part(self, outputs: Tensors) -> None:
        """Send one part. Raises if it cannot be encoded; then nothing was sent."""
        ...

    def end(self) -> None:
        """End the answer: all parts are sent."""
        ...

    def fail(self, error: ServingError) -> None:
        """End the answer with an error, unless it has ended."""
        ...

    def close(self) -> None:
        """Give the version back: no step of the model is under way any more. Never raises."""
        ...


class StreamRunner(Protocol):
    """Answers calls of one signature of one ready servable in parts."""

    signature: Signature
    """What calls are bound to, and what the parts hold."""

    notes: dict[str, Any]
    """A cache for other modules, as `SignatureRunner.notes`."""

    def run(self, inputs: Tensors, receiver: PartsReceiver) -> None:
        """Begin to answer a call. Returns at once; the receiver is then closed in any case.

        Raises ResourceExhausted or Unavailable if there are too many streams; then it is not.
        """
        ...


class StreamRunners(Protocol):
    """The ways to stream the signatures of one ready version."""

    def get(self, name: str) -> StreamRunner | None:
        """Return the runner of a signature, or of a pair of that name; None if there is neither.

        A signature that does not stream is answered by one part.
        """
        ...


class ServableHandle(Protocol):
    """The right of one call to use one ready version; it stays loaded until `release`."""

    @property
    def id(self) -> ServableId:
        """The version that the handle keeps loaded."""
        ...

    @property
    def metadata(self) -> Mapping[str, Signature]:
        """The signatures that GetModelMetadata shows."""
        ...

    @property
    def runners(self) -> Mapping[str, SignatureRunner]:
        """The runner of each signature, by its name."""
        ...

    @property
    def streams(self) -> StreamRunners:
        """The runners of streams."""
        ...

    def release(self) -> None:
        """Give the handle back: exactly once, from any thread."""
        ...


class Models(Protocol):
    """The versions that are ready to be called."""

    def acquire(self, spec: ModelSpec) -> ServableHandle:
        """Return a handle on the version that `spec` means.

        Raises InvalidArgument (no name, unknown label), NotFound (not configured) or Unavailable
        (configured, but not ready). The texts are TensorFlow Serving's where it has one.
        """
        ...


class KnownStates(Protocol):
    """The models that are configured, and the public states of their versions."""

    def configured(self) -> frozenset[str]:
        """Return the models that should be served."""
        ...

    def of_model(self, name: str) -> Sequence[ServableState]:
        """Return the last state of each version, newest version first; empty for unknown models."""
        ...


class States(Protocol):
    """The public states of all versions."""

    def of_model(self, name: str) -> Sequence[ServableState]:
        """Return the last state of each version, newest version first; empty for unknown models."""
        ...

    def incomplete(self, name: str) -> Mapping[int, str]:
        """Return a model's incomplete versions on disk, each with the reason."""
        ...

    def absent(self, name: str) -> str:
        """Return why a model has no version that can be loaded; empty if it has or may have one."""
        ...

    def names(self) -> Sequence[str]:
        """Return every model that is configured or has a state, in alphabetical order."""
        ...
