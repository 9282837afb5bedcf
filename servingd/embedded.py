"""A server inside another program: models are loaded, swapped and batched, and no port is open.

import servingd

with servingd.Server(model_repository="/models") as server:
server.wait_until_ready()
print(server.predict("half_plus_two", {"x": [1.0, 2.0]}))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from servingd.client.casting import fitted
from servingd.config.effective import configure
from servingd.config.flags.parser import FLAGS, nearest
from servingd.config.server import ServerConfig
from servingd.core.batching.queue import Priority
from servingd.core.call_protocols import ServableHandle, SignatureRunner
from servingd.core.types import ModelSpec, Signature, Tensors, TensorSpec
from servingd.errors import (
    DeadlineExceeded,
    InvalidConfig,
    ServingError,
    as_serving_error,
)
from servingd.inference.predict import bind, no_such_signature, predict
from servingd.server import Planes
from servingd.wire.tensors.types import OBJECT, numpy_dtype

Array: TypeAlias = np.ndarray[Any, Any]

_POLL_S = 0.02


class Server:
    """Serves models within this process. A context manager; calls may come from any thread."""

    def __init__(self, config: ServerConfig | None = None, **flags: Any) -> None:
        """Read the configuration: a whole one, or flags of `servingd serve` by name.

        Ports in it mean nothing. Raises InvalidConfig, or another ServingError naming a file.
        """
        for name in flags:
            if name not in FLAGS:
                raise InvalidConfig(f"there is no flag {name}{nearest(name, FLAGS)}")
        if config is not None and flags:
            raise InvalidConfig("expected a configuration or flags, got both")
        self._planes = Planes(config or configure(flags, {}))
        self._stack = ExitStack()

    def start(self) -> None:
        """Load what is there; returns before the models are up. Once."""
        planes = self._planes
        planes.control.check()
        with ExitStack() as stack:
            planes.worker.start()
            stack.callback(planes.worker.stop)
            planes.control.start()
            stack.callback(planes.control.stop)
            stack.callback(planes.control.begin_to_stop)
            stack.callback(planes.worker.first_calls.stop)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Unload everything; calls under way are ended."""
        self._stack.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until every model is available. Raises DeadlineExceeded with what is wrong."""
        deadline = time.monotonic() + timeout_s
        while (reason := self._planes.control.why_not_ready()) is not None:
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(f"not ready within {timeout_s:g} s: {reason}")
            time.sleep(_POLL_S)  # readiness has many causes, and nobody else waits here

    def states(self) -> dict[str, dict[int, str]]:
        """Return the states of all versions, by model and version: `AVAILABLE` and so on."""
        monitor = self._planes.states
        return {
            name: {state.id.version: state.state.name for state in monitor.of_model(name)}
            for name in monitor.names()
        }

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        outputs: Sequence[str] = (),
        timeout_s: float | None = 30.0,
    ) -> dict[str, Array]:
        """Run a model, and wait for its outputs.

        Args:
            model: its name.
            inputs: arrays by name, or what `np.asarray` makes arrays of; numbers are cast to the
                signature's types where no value changes.
            version: the version; None: the latest.
            label: the version's label, in its place.
            signature: the signature; empty: `serving_default`.
            outputs: the outputs that are wanted; empty: all.
            timeout_s: seconds to wait; None: for ever.

        Raises:
            ServingError: as a client of the server would be told.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        call = _Call(ModelSpec(model, version, label, signature), inputs, outputs, deadline)
        try:
            predict(self._planes.worker.models, call)
        except ServingError as error:
            call.fail(error)
        except BaseException as error:
            call.fail(as_serving_error(error))
            raise
        return call.outcome()


class _Call:
    """One call, whose thread waits; see `inference.predict.PredictCall`."""

    alone = False

    def __init__(
        self,
        spec: ModelSpec,
        inputs: Mapping[str, Any],
        output_filter: Sequence[str],
        deadline: float | None,
    ) -> None:
        self.spec = spec
        self.output_filter = output_filter
        self.deadline = deadline
        self.handle: ServableHandle | None = None
        self.runner: SignatureRunner | None = None
        self._inputs = inputs
        self._ended = threading.Event()
        self._outputs: Tensors = {}
        self._error: ServingError | None = None

    def priority(self) -> Priority:
        return Priority.NORMAL

    def alive(self) -> bool:
        return not self._ended.is_set() and (
            self.deadline is None or time.monotonic() < self.deadline
        )

    def begin_batch(self) -> Callable[[], None] | None:
        return None

    def bind(self, signature: Signature) -> Tensors:
        return bind(signature, self._inputs, self._array)

    def no_such_signature(self, name: str) -> ServingError:
        return no_such_signature(name)

    def succeed(self, outputs: Tensors) -> None:
        self._outputs = {name: np.array(array) for name, array in outputs.items()}
        self._end()

    def fail(self, error: ServingError) -> None:
        self._error = error
        self._end()

    def outcome(self) -> dict[str, Array]:
        """Wait for the outputs. Raises ServingError."""
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        if not self._ended.wait(left):
            raise DeadlineExceeded("the call took too long")
        if self._error is not None:
            raise self._error
        wanted = self.output_filter or self._outputs
        return {name: np.asarray(self._outputs[name]) for name in wanted}

    def _array(self, alias: str, spec: TensorSpec) -> Array:
        value, dtype = self._inputs[alias], numpy_dtype(spec.data_type)
        if dtype == OBJECT:
            texts = np.asarray(value)
            if texts.dtype.kind == "U":
                texts = np.char.encode(texts, "utf-8")
            return np.asarray(texts, object)
        return fitted(value, np.asarray(value), dtype)

    def _end(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.release()
        self._ended.set()
