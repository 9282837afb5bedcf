"""MultiInference: run several signatures of one version on the same Examples."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from servingd.core.batching.queue import Priority
from servingd.core.call_protocols import Caller, Completion, Models, ServableHandle, SignatureRunner
from servingd.core.types import ModelSpec, Tensors
from servingd.errors import InvalidArgument, ServingError, Unimplemented
from servingd.inference.checks import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    NO_CHECKS,
    REGRESS_METHOD,
    Checks,
)
from servingd.inference.examples import bind_examples, check_signature


class Task(NamedTuple):
    """One signature to run, and the method by which its outputs are read."""

    spec: ModelSpec
    method: str


class TaskOutputs(NamedTuple):
    """The outputs of one task's signature."""

    runner: SignatureRunner
    outputs: Tensors


class MultiInferenceCall(Caller, Protocol):
    """One call; either `finish` or `fail` is called once, on any thread.

    It owns the handle that it is given, and releases it when its reply is sent, failed or dropped.
    """

    handle: ServableHandle | None
    tasks: Sequence[Task]

    def examples(self) -> Sequence[bytes]:
        """Return its examples, each serialised. Raises InvalidArgument."""
        ...

    def finish(self, answers: Sequence[TaskOutputs]) -> None:
        """Take the outputs of all tasks, in their order."""
        ...

    def fail(self, error: ServingError) -> None:
        """Take an error: if one task fails, the whole call does."""
        ...


def multi_inference(models: Models, call: MultiInferenceCall, checks: Checks = NO_CHECKS) -> None:
    """Run one call; a ServingError that is raised is the call's failure.

    The first task's version answers for all (TensorFlow Serving's rule). TensorFlow Serving runs
    the session once; here each signature runs by itself, with the same answers.
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
    """Check the tasks and return their runners; the order of the checks is TensorFlow Serving's."""
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
    """The running tasks. The last one to end completes the call: the handle must outlive them."""

    def __init__(self, call: MultiInferenceCall, runners: Sequence[SignatureRunner]) -> None:
        self.call = call
        self._runners = runners
        self._lock = threading.Lock()
        self._outcomes: dict[int, Tensors | ServingError] = {}  # guarded by _lock

    def take(self, number: int, outcome: Tensors | ServingError) -> None:
        """Take one task's outcome; the last one completes the call."""
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
    """The completion of one task's run."""

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
