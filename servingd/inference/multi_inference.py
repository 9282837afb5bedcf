"""MultiInference: the same Examples to several signatures of one version."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from servingd.core.batching.queue import Priority
from servingd.core.calls import Completion, Models, ServableHandle, SignatureRunner
from servingd.core.types import ModelSpec, Tensors
from servingd.errors import InvalidArgument, ServingError, Unimplemented
from servingd.inference.calls import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    NO_CHECKS,
    REGRESS_METHOD,
    Checks,
)
from servingd.inference.examples import bind_examples, check_signature


class Task(NamedTuple):
    """One signature to run, and what its answer is to be read as."""

    spec: ModelSpec
    method: str


class TaskOutputs(NamedTuple):
    """What one task's signature answered."""

    runner: SignatureRunner
    outputs: Tensors


class MultiInferenceCall(Protocol):
    """One call; exactly one of `finish` and `fail` is called, from any thread."""

    handle: ServableHandle | None
    deadline: float | None
    tasks: Sequence[Task]

    def examples(self) -> Sequence[bytes]:
        """Its examples, each serialised; raises InvalidArgument."""
        ...

    @property
    def alone(self) -> bool:
        """Whether its transport has no other call in hand."""
        return False

    def priority(self) -> Priority:
        """What the caller says of its importance."""
        return Priority.NORMAL

    def alive(self) -> bool:
        """Whether anybody still waits."""
        ...

    def begin_batch(self) -> Callable[[], None] | None:
        """See `Completion.begin_batch`."""
        return None

    def finish(self, answers: Sequence[TaskOutputs]) -> None:
        """Take the outputs of all tasks, in their order."""
        ...

    def fail(self, error: ServingError) -> None:
        """Take the failure: one task's is the whole call's."""
        ...


def multi_inference(models: Models, call: MultiInferenceCall, checks: Checks = NO_CHECKS) -> None:
    """Run one call; a ServingError raised here is its failure.

    The first task's version answers for all (TensorFlow Serving's rule). Where that feeds one run
    of the session, we run each signature by itself: the answers are the same.
    """
    tasks = call.tasks
    handle = call.handle = models.acquire(tasks[0].spec if tasks else ModelSpec(""))
    runners = _runners(handle, tasks, checks)
    examples = call.examples()
    inputs = [bind_examples(runner.signature, examples, checks) for runner in runners]
    parts = _Parts(call, runners)
    for number, runner in enumerate(runners):
        part = _Part(parts, number)
        try:
            runner.run(inputs[number], part)
        except ServingError as error:
            part.fail(error)


def _runners(
    handle: ServableHandle, tasks: Sequence[Task], checks: Checks
) -> list[SignatureRunner]:
    runners: list[SignatureRunner] = []
    seen: set[str] = set()
    for task in tasks:
        if not task.spec.name:
            raise InvalidArgument("Found ModelSpec with an empty model name.")
        if task.spec.name != tasks[0].spec.name:
            raise InvalidArgument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.spec.signature_name or DEFAULT_SIGNATURE
        if name in seen:
            raise InvalidArgument(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        runner = handle.runners.get(name)
        if runner is None:
            raise InvalidArgument(f"Requested signature not found in model graph: {name}")
        if task.method not in (CLASSIFY_METHOD, REGRESS_METHOD):
            raise Unimplemented(f"Unsupported signature method_name: {task.method}")
        check_signature(runner.signature, task.method, checks)
        runners.append(runner)
    return runners


class _Parts:
    """The tasks under way; the last to end completes the call, so that its handle outlives all."""

    def __init__(self, call: MultiInferenceCall, runners: Sequence[SignatureRunner]) -> None:
        self.call = call
        self._runners = runners
        self._lock = threading.Lock()
        self._outcomes: dict[int, Tensors | ServingError] = {}  # guarded by _lock

    def take(self, number: int, outcome: Tensors | ServingError) -> None:
        with self._lock:
            self._outcomes[number] = outcome
            if len(self._outcomes) < len(self._runners):
                return
        answers = []
        for place, runner in enumerate(self._runners):
            ended = self._outcomes[place]
            if isinstance(ended, ServingError):
                self.call.fail(ended)
                return
            answers.append(TaskOutputs(runner, ended))
        self.call.finish(answers)


class _Part(Completion):
    """One task's completion."""

    def __init__(self, parts: _Parts, number: int) -> None:
        self._parts = parts
        self._number = number
        self.deadline = parts.call.deadline

    @property
    def alone(self) -> bool:
        return self._parts.call.alone

    def priority(self) -> Priority:
        return self._parts.call.priority()

    def alive(self) -> bool:
        return self._parts.call.alive()

    def begin_batch(self) -> Callable[[], None] | None:
        return self._parts.call.begin_batch()

    def succeed(self, outputs: Tensors) -> None:
        self._parts.take(self._number, outputs)

    def fail(self, error: ServingError) -> None:
        self._parts.take(self._number, error)
