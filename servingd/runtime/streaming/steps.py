"""The kinds of steps: a generator's, a pair of signatures, and an ordinary run that is all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from servingd.core.batching.queue import Priority
from servingd.core.call_protocols import Completion, PartsReceiver, SignatureRunner
from servingd.core.stream_pairs import STOP, StreamPair
from servingd.core.types import Tensors
from servingd.errors import ServingError

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What came of a step."""

    part: Tensors | None = None
    """The part that it made; None: none."""
    last: bool = False
    """Whether the stream ends with it."""
    error: ServingError | None = None
    """Why it failed; then the stream has ended."""


TakeOutcome = Callable[[Outcome], None]


class Steps(Protocol):
    """Makes the parts of one answer. One step at a time, each on any thread."""

    def step(self, caller: PartsReceiver, done: TakeOutcome) -> None:
        """Take a step, and call `done` now or later, on any thread; or raise instead."""
        ...

    def close(self) -> None:
        """Free what the stream holds. Called once, when no step is under way. Never raises."""
        ...


class GeneratorSteps:
    """The steps of a servable's generator, which is made by the first one."""

    def __init__(self, begin: Callable[[], Iterator[Tensors]]) -> None:
        self._begin = begin
        self._parts: Iterator[Tensors] | None = None

    def step(self, caller: PartsReceiver, done: TakeOutcome) -> None:
        """Ask the generator for a part."""
        if self._parts is None:
            self._parts = self._begin()
        try:
            part = next(self._parts)
        except StopIteration:
            done(Outcome(last=True))
        else:
            done(Outcome(part))

    def close(self) -> None:
        """Close the generator, where it can be closed."""
        close = getattr(self._parts, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException:  # the answer has ended, whatever it does
            _log.exception("a stream's generator failed while it was closed")


class WholeSteps:
    """One step, which is an ordinary call: the answer of a signature that does not stream."""

    def __init__(self, runner: SignatureRunner, inputs: Tensors) -> None:
        self._runner = runner
        self._inputs = inputs

    def step(self, caller: PartsReceiver, done: TakeOutcome) -> None:
        """Run the call, or enqueue it."""
        run = _Step(caller, lambda outputs: done(Outcome(outputs, last=True)), done)
        run.output_filter = caller.output_filter
        self._runner.run(self._inputs, run)

    def close(self) -> None:
        """Do nothing: it holds nothing."""


class PairSteps:
    """The steps of a pair: `init` first, then `step`, each by the runner of its signature.

    So steps of several streams wait and are merged like any calls of that signature.
    """

    def __init__(
        self, pair: StreamPair, init: SignatureRunner, step: SignatureRunner, inputs: Tensors
    ) -> None:
        self._pair = pair
        self._step = step
        self._runner = init  # of the next step
        self._inputs = inputs  # of the next step

    def step(self, caller: PartsReceiver, done: TakeOutcome) -> None:
        """Run the next step, or enqueue it."""
        run = _Step(caller, lambda outputs: done(self._advanced(outputs)), done)
        self._runner.run(self._inputs, run)

    def close(self) -> None:
        """Do nothing: the state goes with the stream."""

    def _advanced(self, outputs: Tensors) -> Outcome:
        """Keep the state of a step that was taken; return its part."""
        pair = self._pair
        makes_part = self._runner is self._step or pair.first_part
        self._runner = self._step
        self._inputs = {name: _array(outputs[name]) for name in pair.state}
        stop = outputs.get(STOP)
        return Outcome(
            {name: outputs[name] for name in pair.signature.outputs} if makes_part else None,
            last=stop is not None and bool(np.all(stop)),
        )


def _array(value: Any) -> np.ndarray[Any, Any]:
    """Return an output as an input; TensorFlow gives scalars as numbers and as bytes."""
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


class _Step(Completion):
    """Takes the outcome of one run of a stream, in the name of the stream's caller."""

    __slots__ = ("_caller", "_done", "_succeeded", "deadline", "output_filter")

    def __init__(
        self, caller: PartsReceiver, succeeded: Callable[[Tensors], None], done: TakeOutcome
    ) -> None:
        self._caller = caller
        self._succeeded = succeeded
        self._done = done
        self.deadline = caller.deadline
        self.output_filter: Sequence[str] = ()

    def priority(self) -> Priority:
        return self._caller.priority()

    def alive(self) -> bool:
        return self._caller.alive()

    def succeed(self, outputs: Tensors) -> None:
        self._succeeded(outputs)

    def fail(self, error: ServingError) -> None:
        self._done(Outcome(error=error))
