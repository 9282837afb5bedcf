"""TF Lite's interpreters: one call at a time each, so there is a pool of them."""

from __future__ import annotations

import logging
import queue
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from servingd.core.types import Signature, Tensors, TensorSpec
from servingd.errors import (
    DataLoss,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ServingError,
    Unavailable,
    Unimplemented,
)
from servingd.servables.synthetic_inputs import synthetic_inputs
from servingd.servables.tensorflow_runtime.runtime import tensorflow
from servingd.servables.tflite.signature_defs import signature_defs
from servingd.wire.tensors.types import data_type_of

DEFAULT_SIGNATURE = "serving_default"

_MAX_WAIT_S = 600.0
"""Seconds that a call without a deadline waits for an interpreter."""

_MAX_ERROR_BYTES = 64 << 10
"""Bytes of error texts: an interpreter keeps all of them, and is made anew with so many."""

_log = logging.getLogger(__name__)


class _Call(Protocol):
    """One signature of one interpreter, as TF Lite's own runners have it."""

    def get_input_details(self) -> Mapping[str, Any]: ...

    def get_output_details(self) -> Mapping[str, Any]: ...

    def __call__(self, **inputs: Any) -> dict[str, Any]: ...


class Interpreter:
    """One interpreter of a model; used from one thread at a time.

    A model is run through the SignatureDefs in its metadata, or else through its own signatures; of
    one that has neither, all inputs and outputs make up one signature, by the names of their
    tensors.
    """

    def __init__(self, content: bytes) -> None:
        """Raises DataLoss, Unimplemented or Internal if the model cannot be run here."""
        self._content = content
        self._defined = signature_defs(content)
        self._make()

    def _make(self) -> None:
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        lite = tensorflow().lite
        try:
            self._interpreter = lite.Interpreter(model_content=self._content, num_threads=1)
        except (ValueError, RuntimeError) as error:
            raise DataLoss(f"the TF Lite model cannot be read: {error}") from error
        self._error_bytes = 0
        self._allocate()
        self._calls: dict[str, _Call] = self._defined_calls() or {
            name: self._interpreter.get_signature_runner(name)
            for name in self._interpreter.get_signature_list()
        }
        if not self._calls:
            inputs, outputs = self._tensors()
            self._calls[DEFAULT_SIGNATURE] = _PlainCall(self._interpreter, inputs, outputs)

    def _defined_calls(self) -> dict[str, _Call]:
        """Return a call per SignatureDef in the metadata whose tensors all exist."""
        calls: dict[str, _Call] = {}
        inputs, outputs = self._tensors()
        for name, signature in self._defined.items():
            try:
                calls[name] = _PlainCall(
                    self._interpreter,
                    {a: _named(spec, inputs) for a, spec in signature.inputs.items()},
                    {a: _named(spec, outputs) for a, spec in signature.outputs.items()},
                )
            except KeyError as error:
                _log.warning("signature %s of a TF Lite model names no tensor: %s", name, error)
        return calls

    def _tensors(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the details of the model's inputs and outputs, by the names of their tensors."""
        body = self._interpreter
        sides = (body.get_input_details(), body.get_output_details())
        inputs, outputs = ({d["name"]: d for d in side} for side in sides)
        return inputs, outputs

    def _allocate(self) -> None:
        """Plan the memory, if the model's own shapes allow it."""
        try:
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            text = self._new_error_text(error)
            if "custom op" in text or "Select TensorFlow op" in text:
                raise Unimplemented(f"the TF Lite model cannot be run: {text}") from error
            if not any(-1 in d["shape_signature"] for d in self._interpreter.get_input_details()):
                raise Internal(f"the TF Lite model cannot be run: {text}") from error
            _log.debug("a TF Lite model needs other sizes than its own: %s", text)

    def signatures(self) -> dict[str, Signature]:
        """Return the model's signatures. Raises Unimplemented for types that are not served."""
        return {
            name: self._signature(
                name, _specs(call.get_input_details()), _specs(call.get_output_details())
            )
            for name, call in self._calls.items()
        }

    def _signature(
        self, name: str, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]
    ) -> Signature:
        defined = self._defined.get(name)
        if defined is None:
            return Signature(name, inputs, outputs)
        return Signature(name, inputs, outputs, defined.method_name, definition=defined.definition)

    def run(self, name: str, inputs: Tensors) -> Tensors:
        """Run a signature; return copies of all its outputs. Raises a ServingError."""
        try:
            return self._calls[name](**inputs)
        except ValueError as error:  # a type or a value that cannot be set
            raise InvalidArgument(str(error).strip()) from error
        except RuntimeError as error:
            raise self._failure(error) from error

    def check_that_it_runs(self, signatures: Mapping[str, Signature]) -> None:
        """Raise Internal if no signature can be run on any synthetic inputs.

        Inputs that it refuses for their sizes or types prove nothing, nor does one that is too
        large to be made: clients may have better ones.
        """
        last: ServingError | None = None
        for name, signature in signatures.items():
            for made in _synthetic_inputs(signature):
                if made is None:
                    return
                try:
                    self.run(name, made)
                except Internal as error:
                    last = error
                except ServingError:
                    return
                else:
                    return
        if last is not None:
            raise Internal(f"the TF Lite model fails whatever it is given: {last.message}")

    def _failure(self, error: RuntimeError) -> ServingError:
        text = self._new_error_text(error)
        if self._error_bytes > _MAX_ERROR_BYTES:
            self._make()
        # It is prepared for the sizes of the inputs, and invoked with their values.
        return InvalidArgument(text) if "failed to prepare" in text else Internal(text)

    def _new_error_text(self, error: Exception) -> str:
        """Return what is new in an error's text: TF Lite repeats the errors of earlier calls."""
        text = str(error)
        new = text[self._error_bytes :] if isinstance(error, RuntimeError) else text
        self._error_bytes = (
            max(self._error_bytes, len(text))
            if isinstance(error, RuntimeError)
            else self._error_bytes
        )
        return new.strip() or "TF Lite does not say why"


def _synthetic_inputs(signature: Signature) -> Iterator[Tensors | None]:
    """Yield inputs of one row and of two: zeros, ones, and what lies between."""
    for rows in (1, 2):
        made = synthetic_inputs(signature, rows)
        if made is None:
            yield None
            return
        yield made
        for value in (0, 1):
            yield {alias: _filled(array, value) for alias, array in made.items()}


def _filled(array: np.ndarray[Any, Any], value: int) -> np.ndarray[Any, Any]:
    if array.dtype == object:
        return np.full(array.shape, b"a" * value, object)
    return np.full(array.shape, value, array.dtype)


def _named(spec: TensorSpec, tensors: Mapping[str, Any]) -> Any:
    """Return a tensor by the name that a SignatureDef gives it. Raises KeyError."""
    name = spec.tensor_name
    return tensors[name if name in tensors else name.removesuffix(":0")]


class _PlainCall:
    """Runs a model by its tensors, as a signature runner would; tensors by alias."""

    def __init__(self, body: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        self._interpreter = body
        self._inputs = inputs
        self._outputs = outputs
        self._shapes: dict[str, tuple[int, ...]] = {}  # those that memory is planned for

    def get_input_details(self) -> Mapping[str, Any]:
        return self._inputs

    def get_output_details(self) -> Mapping[str, Any]:
        return self._outputs

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        shapes = {alias: array.shape for alias, array in inputs.items()}
        if shapes != self._shapes:
            self._shapes = {}  # if this fails, nothing is planned
            for alias, shape in shapes.items():
                self._interpreter.resize_tensor_input(self._inputs[alias]["index"], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for alias, array in inputs.items():
            self._interpreter.set_tensor(self._inputs[alias]["index"], array)
        self._interpreter.invoke()
        return {a: self._interpreter.get_tensor(d["index"]) for a, d in self._outputs.items()}


def _specs(details: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        alias: TensorSpec(
            data_type_of(np.dtype(found["dtype"])),
            tuple(None if size < 0 else int(size) for size in found["shape_signature"]),
            found["name"],
        )
        for alias, found in sorted(details.items())
    }


class Pool:
    """The interpreters of one model. From any thread."""

    def __init__(self, content: bytes, size: int) -> None:
        """Makes them all: a call must not wait for one to be made. Raises as Interpreter does."""
        first = Interpreter(content)
        self.signatures = first.signatures()
        first.check_that_it_runs(self.signatures)
        self._size = size
        self._idle: queue.LifoQueue[Interpreter] = queue.LifoQueue()  # the last used is warm
        self._idle.put(first)
        for _ in range(size - 1):
            self._idle.put(Interpreter(content))

    @contextmanager
    def borrow(self, deadline: float | None) -> Iterator[Interpreter]:
        """Lend an interpreter for one call, as soon as one is free.

        Raises DeadlineExceeded, or Unavailable where the call has no deadline.
        """
        wait_s = _MAX_WAIT_S if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            interpreter = self._idle.get(timeout=wait_s)
        except queue.Empty:
            text = f"none of {self._size} TF Lite interpreters was free for {wait_s:.3f} s"
            raise (Unavailable if deadline is None else DeadlineExceeded)(text) from None
        try:
            yield interpreter
        finally:
            self._idle.put(interpreter)

    def close(self) -> None:
        """Free them; no call is under way."""
        while not self._idle.empty():
            self._idle.get_nowait()
