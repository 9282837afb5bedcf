"""What servables made of others know of the server: its models, other servers, who waits for which.

Composites and sharded servables are made of parts: models of this process, or of other servers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Protocol

from servingd.core.call_protocols import Completion, Models, ServableHandle
from servingd.core.readiness import Needs
from servingd.core.types import ModelSpec, ServableId, Signature, Tensors
from servingd.errors import (
    Cancelled,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ServingError,
    Unavailable,
)

_LOOK_S = 0.1
_SAY_S = 30.0

_log = logging.getLogger(__name__)


class StepListener(Protocol):
    """Who counts the steps of composites."""

    def __call__(
        self, servable_id: ServableId, step: str, seconds: float, error: ServingError | None, /
    ) -> None:
        """Count a step that has ended; on any thread."""
        ...


def ignore_steps(
    servable_id: ServableId, step: str, seconds: float, error: ServingError | None
) -> None:
    """Count nothing."""


class RemoteModels(Protocol):
    """The models of other servers. From any thread."""

    def signature(self, server: str, spec: ModelSpec, timeout_s: float) -> Signature:
        """Return a model's signature. Raises ServingError."""
        ...

    def run(self, server: str, spec: ModelSpec, inputs: Tensors, done: Completion) -> None:
        """Begin a call; `done` is completed on any thread, at its deadline at the latest."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Parts:
    """The models that servables may be made of. From any thread."""

    def __init__(self) -> None:
        self.models: Models | None = None
        """The models of this process; set before the first load. None: nothing can be loaded."""
        self.remote: RemoteModels | None = None
        """The models of other servers; set before the first load. None: there are none."""
        self.on_step: StepListener = ignore_steps
        self.needs: dict[ServableId, frozenset[str]] = {}
        """The models without which each loaded version cannot answer; entries come and go whole."""
        self._lock = threading.Lock()
        self._waiting: dict[str, frozenset[str]] = {}  # by composite; guarded by _lock

    def needs_by_model(self) -> Needs:
        """Return the models without which each model cannot answer: those of its newest version."""
        return {servable_id.name: names for servable_id, names in sorted(self.needs.copy().items())}

    def acquire(self, specs: Iterable[ModelSpec]) -> dict[ModelSpec, ServableHandle]:
        """Return a handle for each; all or none. Raises the error of the one that is not there."""
        if self.models is None:
            raise Unavailable("a servable made of others is loaded by a server only")
        held: dict[ModelSpec, ServableHandle] = {}
        try:
            for spec in specs:
                if spec not in held:
                    held[spec] = self.models.acquire(spec)
        except BaseException:
            release(held.values())
            raise
        return held

    def wait(
        self, name: str, specs: Iterable[ModelSpec], cancelled: threading.Event
    ) -> dict[ModelSpec, ServableHandle]:
        """Return a handle for each as soon as all are available; called on a load's thread.

        Raises FailedPrecondition if models wait for each other, and Cancelled.
        """
        wanted = tuple(specs)
        labels = any(spec.label is not None for spec in wanted)  # known once their version is there
        with self._lock:
            self._waiting[name] = frozenset(spec.name for spec in wanted)
        try:
            waited_s = 0.0
            while True:
                self._check_cycle(name)
                try:
                    return self.acquire(wanted)
                except (NotFound, Unavailable, InvalidArgument) as error:
                    if isinstance(error, InvalidArgument) and not labels:
                        raise
                    if waited_s % _SAY_S < _LOOK_S:
                        _log.info("%s waits for its parts: %s", name, error.message)
                if cancelled.wait(_LOOK_S):
                    raise Cancelled("Loading of servable cancelled")
                waited_s += _LOOK_S
        finally:
            with self._lock:
                self._waiting.pop(name, None)

    def _check_cycle(self, name: str) -> None:
        with self._lock:
            waiting = dict(self._waiting)
        path, seen = [name], {name}
        ahead = [(path, other) for other in sorted(waiting.get(name, ()))]
        while ahead:
            path, other = ahead.pop()
            if other == name:
                raise FailedPrecondition(
                    f"models wait for each other: {' -> '.join((*path, name))}"
                )
            if other not in seen:
                seen.add(other)
                ahead += [([*path, other], each) for each in sorted(waiting.get(other, ()))]


def release(handles: Iterable[ServableHandle]) -> None:
    """Give handles back."""
    for handle in handles:
        handle.release()


def bound(signature: Signature, inputs: Tensors) -> Tensors:
    """Return a part's inputs in the order of its signature, with its defaults.

    Raises FailedPrecondition if the part now has other inputs than when its signature was read.
    """
    for alias in inputs:
        if alias not in signature.inputs:
            raise FailedPrecondition(f"there is no input {alias} any more")
    for alias in signature.inputs:
        if alias not in inputs and alias not in signature.defaults:
            raise FailedPrecondition(f"there is a new input {alias}, which is not given")
    return {
        alias: inputs[alias] if alias in inputs else signature.defaults[alias]
        for alias in signature.inputs
    }
