"""Parts of composites without a server: models that are functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from servingd.core.types import ModelSpec, Signature, Tensors, TensorSpec
from servingd.errors import NotFound, ServingError


class FakePart:
    """A ready version whose runner calls a function; it counts its handles."""

    def __init__(
        self,
        function: Callable[..., Tensors] | None,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
    ) -> None:
        self.signature = Signature("serving_default", inputs, outputs)
        self.runners = {"serving_default": self}
        self.held = 0
        self.calls: list[tuple[Tensors, object]] = []
        self._function = function

    def release(self) -> None:
        self.held -= 1

    def run(self, inputs, done) -> None:
        """Answer at once; a part without a function answers when `answer` is called."""
        if self._function is None:
            self.calls.append((inputs, done))
        else:
            try:
                outputs = self._function(**inputs)
            except ServingError as error:
                done.fail(error)
            else:
                done.succeed(outputs)

    def answer(self, outputs: Tensors | ServingError) -> None:
        _, done = self.calls.pop(0)
        if isinstance(outputs, ServingError):
            done.fail(outputs)
        else:
            done.succeed(outputs)


class FakeModels:
    """The models of a process; see `core.call_protocols.Models`."""

    def __init__(self, **parts: FakePart) -> None:
        self.parts = parts

    def acquire(self, spec: ModelSpec) -> FakePart:
        if spec.name not in self.parts:
            raise NotFound(f"there is no model {spec.name}")
        part = self.parts[spec.name]
        part.held += 1
        return part


class Told:
    """A completion that keeps the outcome."""

    deadline: float | None = None
    alone = False

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.outcomes: list[Tensors | ServingError] = []

    def alive(self) -> bool:
        return True

    def priority(self):
        from servingd.core.batching.queue import Priority

        return Priority.HIGH

    def succeed(self, outputs: Tensors) -> None:
        self.outcomes.append(outputs)

    def fail(self, error: ServingError) -> None:
        self.outcomes.append(error)
