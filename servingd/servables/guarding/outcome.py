"""The outcome of one run of other people's code: completed once, as its signature says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import (
    Callable,
    Mapping,
)
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from servingd.core.call_protocols import Completion
from servingd.core.shapes import shape_text
from servingd.core.types import Signature, Tensors, TensorSpec
from servingd.errors import (
    DeadlineExceeded,
    Internal,
    ServingError,
    as_serving_error,
)
from servingd.wire.tensors.types import numpy_dtype, type_name

_log = logging.getLogger(__name__)


class Outcome:
    """The outcome of one run: completed once, with outputs that are as the signature says."""

    def __init__(self, done: Completion, signature: Signature) -> None:
        self.signature = signature
        self.cancel: Callable[[], None] | None = None
        self._done = done
        self._lock = threading.Lock()
        # Ends the wait: whether the servable has let go of the call. `__del__` may `put`.
        self._over: SimpleQueue[bool] = SimpleQueue()
        self._taken = False  # set under _lock

    def succeed(self, outputs: Any) -> None:
        """Complete the run; outputs that are not as the signature says are its failure."""
        try:
            answer = checked(self.signature, outputs)
        except ServingError as error:
            self.fail(error)
            return
        if self._take():
            try:
                self._done.succeed(answer)
            finally:
                self._over.put(False)

    def fail(self, error: ServingError) -> None:
        """Complete the run with an error."""
        if self._take():
            try:
                self._done.fail(error)
            finally:
                self._over.put(False)

    def wait(self, deadline: float | None) -> None:
        """Return when it is completed; complete it with DEADLINE_EXCEEDED after a deadline."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            let_go = self._over.get(timeout=left)
        except Empty:
            self.fail(DeadlineExceeded("Deadline Exceeded"))
            if self.cancel is not None:
                self.cancel()
            return
        if let_go:
            self.fail(
                Internal(f"signature {self.signature.name}: the servable did not complete the call")
            )

    def dropped(self) -> None:
        """Take note that the servable has let go of the call; whoever waits completes it.

        Not here: a collection of garbage calls this on any thread, whatever locks that holds.
        """
        if not self._taken:
            self._over.put(True)

    def _take(self) -> bool:
        """Return whether this is the first completion."""
        with self._lock:
            first, self._taken = not self._taken, True
        if not first:
            _log.debug("signature %s: a call was completed twice", self.signature.name)
        return first

    def alive(self) -> bool:
        """Return whether somebody still waits."""
        return not self._taken and self._done.alive()

    @property
    def deadline(self) -> float | None:
        """The call's deadline."""
        return self._done.deadline


class Handle(Completion):
    """The completion that a servable gets: when it lets go of it, the call is over."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.deadline = outcome.deadline

    def alive(self) -> bool:
        """Return whether somebody still waits."""
        return self._outcome.alive()

    def succeed(self, outputs: Tensors) -> None:
        """Complete the run."""
        self._outcome.succeed(outputs)

    def fail(self, error: ServingError) -> None:
        """Complete the run with an error, whatever the servable takes for one."""
        given: object = error
        self._outcome.fail(
            as_serving_error(given)
            if isinstance(given, BaseException)
            else Internal(f"the servable failed with {given!r}")
        )

    def __del__(self) -> None:
        self._outcome.dropped()


def checked(signature: Signature, outputs: Any) -> Tensors:
    """Return outputs as arrays. Raises Internal if they are not what a signature says."""
    if not isinstance(outputs, Mapping):
        raise _lie(signature, f"expected a mapping of outputs, got {type(outputs).__name__}")
    if outputs.keys() != signature.outputs.keys():
        raise _lie(
            signature,
            f"expected the outputs {', '.join(sorted(signature.outputs))}, got "
            f"{', '.join(sorted(map(str, outputs)))}",
        )
    return {
        alias: _checked(signature, alias, spec, outputs[alias])
        for alias, spec in signature.outputs.items()
    }


def _checked(
    signature: Signature, alias: str, spec: TensorSpec, output: Any
) -> np.ndarray[Any, Any]:
    wanted = numpy_dtype(spec.data_type)
    try:
        array = np.asarray(output, None if isinstance(output, np.ndarray) else wanted)
    except (ValueError, TypeError, OverflowError) as error:
        raise _lie(signature, f"output {alias}: expected an array: {error}") from None
    if array.dtype != wanted:
        raise _lie(
            signature,
            f"output {alias}: expected {type_name(spec.data_type)}, got an array of {array.dtype}",
        )
    if not spec.takes(array.shape):
        raise _lie(
            signature,
            f"output {alias}: expected the shape {shape_text(spec.shape or ())}, got "
            f"{shape_text(array.shape)}",
        )
    if wanted.hasobject and not all(isinstance(text, bytes) for text in array.ravel()):
        raise _lie(signature, f"output {alias}: expected strings as bytes")
    return array


def _lie(signature: Signature, what: str) -> Internal:
    return Internal(f"the servable's answer is not what signature {signature.name} says: {what}")
