"""One call's way through a graph: steps run as soon as what they need is there.

Whoever completes a part's run goes on with the call, on that thread; nobody waits. A step runs only
if an output needs it: the later models of a cascade only where the earlier ones were not confident.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from servingd.core.batching.queue import Priority
from servingd.core.call_protocols import Completion, ServableHandle
from servingd.core.types import ModelSpec, Tensors
from servingd.errors import FailedPrecondition, ServingError, as_serving_error, error_from_code
from servingd.servables.assembled.composite.combining import chosen_rows, combined, confident_rows
from servingd.servables.assembled.composite.graph import (
    CascadeStep,
    CombiningStep,
    Graph,
    ModelStep,
    Source,
)
from servingd.servables.assembled.parts import bound

Array = np.ndarray[Any, Any]


class OnStep(Protocol):
    """Who is told of each step with a model that has ended."""

    def __call__(self, step: str, seconds: float, error: ServingError | None, /) -> None:
        """Count it; on any thread."""
        ...


class GraphCall:
    """One call. It holds a handle on each part until no step runs any more."""

    def __init__(
        self,
        graph: Graph,
        inputs: Tensors,
        done: Completion,
        handles: Mapping[ModelSpec, ServableHandle],
        on_step: OnStep,
    ) -> None:
        """Take over the handles, by model, version and label; they are given back at the end."""
        self.done = done
        self._graph = graph
        self._inputs = inputs
        self._handles = handles
        self._on_step = on_step
        self._lock = threading.RLock()
        # All below are guarded by _lock.
        self._begun: set[str] = set()
        self._ended: dict[str, bool] = {}  # by step with a model: whether it has answered
        self._arrays: dict[Source, Array] = {Source(name): a for name, a in inputs.items()}
        self._running = 1  # the thread that starts the call
        self._over = False

    def start(self) -> None:
        """Begin with the steps that need nothing but the caller's inputs."""
        self._go_on()
        self._leave()

    # Going on -------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Run whatever can run now, and complete the call when its outputs are there."""
        try:
            while starts := self._next():
                for begin in starts:
                    begin()
        except BaseException as error:
            self.fail(as_serving_error(error))

    def _next(self) -> list[Callable[[], None]]:
        """Return what is to be begun now; empty if nothing is, or if the call is over."""
        with self._lock:
            if self._over:
                return []
            starts: list[Callable[[], None]] = []
            found = {name: self._need(s, starts) for name, s in self._graph.outputs.items()}
            ready = {name: array for name, array in found.items() if array is not None}
            if len(ready) < len(found):
                self._running += len(starts)  # here: an error above drops them
                return starts
            self._over = True
        self.done.succeed(ready)
        return []

    def _need(self, source: Source, starts: list[Callable[[], None]]) -> Array | None:
        """Return an array if it is there; else see to it that it comes."""
        known = self._arrays.get(source)
        if known is not None or not source.step:
            return known
        step = self._graph.steps[source.step]
        match step:
            case ModelStep():
                if self._ended.get(source.step):
                    raise FailedPrecondition(
                        f"step {source.step} (model {step.spec.name}): there is no output "
                        f"{source.name} any more"
                    )
                self._need_model(source.step, step, starts)
                return None
            case CombiningStep():
                parts = [self._need(each, starts) for each in step.sources]
                there = [part for part in parts if part is not None]
                if len(there) < len(parts):
                    return None
                made = combined(step.how, there, step.weights)
            case CascadeStep():
                cascaded = self._cascade(step, source.name, starts)
                if cascaded is None:
                    return None
                made = cascaded
        self._arrays[source] = made
        return made

    def _cascade(
        self, step: CascadeStep, output: str, starts: list[Callable[[], None]]
    ) -> Array | None:
        """Return the rows of the first confident models; None until they are there."""
        answer: Array | None = None
        settled: Array | None = None
        for index, model in enumerate(step.steps):
            scores = self._need(Source(step.confidence, model), starts)
            part = self._need(Source(output, model), starts)
            if scores is None or part is None:
                return None
            if answer is None or settled is None:
                answer, settled = part, confident_rows(scores, step.at_least)
            else:
                answer = chosen_rows(settled, answer, part)
                settled = settled | confident_rows(scores, step.at_least)
            if settled.all() or index == len(step.steps) - 1:
                return answer
        return answer

    def _need_model(self, name: str, step: ModelStep, starts: list[Callable[[], None]]) -> None:
        """Begin a step with a model once all its inputs are there."""
        if name in self._begun:
            return
        found = {alias: self._need(source, starts) for alias, source in step.inputs.items()}
        inputs = {alias: array for alias, array in found.items() if array is not None}
        if len(inputs) == len(found):
            self._begun.add(name)
            starts.append(lambda: self._run(name, step, inputs))

    def _run(self, name: str, step: ModelStep, inputs: Tensors) -> None:
        """Run a part; it completes the step now or later."""
        completion = _StepDone(self, name, step)
        try:
            runner = self._handles[step.spec._replace(signature_name="")].runners.get(
                step.spec.signature_name
            )
            if runner is None:
                raise FailedPrecondition(
                    f'Serving signature key "{step.spec.signature_name}" not found.'
                )
            runner.run(bound(runner.signature, inputs), completion)
        except BaseException as error:
            completion.fail(as_serving_error(error))

    # Outcomes -------------------------------------------------------------------------------------

    def succeeded(self, name: str, outputs: Tensors, seconds: float) -> None:
        """Go on with a step's outputs; what completes a step first counts."""
        with self._lock:
            if name in self._ended:
                return
            self._ended[name] = True
            for alias, array in outputs.items():
                self._arrays[Source(alias, name)] = array
        self._on_step(name, seconds, None)
        self._go_on()
        self._leave()

    def failed(self, name: str, error: ServingError, seconds: float) -> None:
        """End the call with a step's error, which names the step."""
        with self._lock:
            if name in self._ended:
                return
            self._ended[name] = False
        self._on_step(name, seconds, error)
        step = self._graph.steps[name]
        model = step.spec.name if isinstance(step, ModelStep) else ""
        named = error_from_code(error.code, f"step {name} (model {model}): {error.message}")
        named.retry_after_s = error.retry_after_s
        self.fail(named)
        self._leave()

    def fail(self, error: ServingError) -> None:
        """End the call with an error, unless it is over."""
        with self._lock:
            first, self._over = not self._over, True
        if first:
            self.done.fail(error)

    @property
    def over(self) -> bool:
        """Whether the call is completed."""
        return self._over

    def _leave(self) -> None:
        """Give the handles back when nothing runs any more."""
        with self._lock:
            self._running -= 1
            last = not self._running
        if last:
            for handle in self._handles.values():
                handle.release()


class _StepDone(Completion):
    """The completion of one step's run."""

    def __init__(self, call: GraphCall, name: str, step: ModelStep) -> None:
        self._call = call
        self._name = name
        self._begun = time.monotonic()
        self.deadline = call.done.deadline
        if self.deadline is not None and step.deadline_share < 1:
            left = self.deadline - self._begun
            self.deadline = self._begun + left * step.deadline_share

    def alive(self) -> bool:
        expired = self.deadline is not None and time.monotonic() > self.deadline
        return not self._call.over and not expired and self._call.done.alive()

    def priority(self) -> Priority:
        return self._call.done.priority()

    def succeed(self, outputs: Tensors) -> None:
        self._call.succeeded(self._name, outputs, time.monotonic() - self._begun)

    def fail(self, error: ServingError) -> None:
        self._call.failed(self._name, error, time.monotonic() - self._begun)
