"""One call of a sharded servable: scatter the rows, ask each shard, gather the answers in order.

Whoever completes the last shard's part completes the call; nobody waits.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from servingd.core.batching.queue import Priority
from servingd.core.call_protocols import Completion
from servingd.core.types import Signature, Tensors
from servingd.errors import (
    Code,
    Internal,
    InvalidArgument,
    ServingError,
    as_serving_error,
    error_from_code,
)
from servingd.servables.assembled.sharded.layout import Layout, Replica
from servingd.servables.assembled.splitting import rows_of_shards, shards_by_hash, shards_by_range
from servingd.wire.tensors.types import numpy_dtype, type_name

Array = np.ndarray[Any, Any]

ANSWERED = "answered"
"""The output that says which rows a shard has answered, where failures give defaults."""
_TRIED_ELSEWHERE = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.NOT_FOUND})
"""Errors of a replica after which another one is asked."""
_OF_THE_CALLER = frozenset({Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, Code.UNIMPLEMENTED})
"""Errors that no rule hides: the request is wrong."""

Ask = Callable[[Replica, Tensors, Completion], None]
"""Begins a call of a replica."""
Order = Callable[[int], Sequence[Replica]]
"""Returns a shard's replicas in the order in which they are to be asked."""


class ShardedCall:
    """One call; from any thread."""

    def __init__(
        self,
        layout: Layout,
        signature: Signature,
        inputs: Tensors,
        done: Completion,
        ended: Callable[[], None],
    ) -> None:
        """`ended` is called once, when no shard is asked any more.

        Raises InvalidArgument for keys that cannot be split, or inputs of other rows; then it is
        not called.
        """
        self.done = done
        self._layout = layout
        self._signature = signature
        self._ended = ended
        self._lock = threading.Lock()
        self._outputs: dict[str, Array] = {}  # guarded by _lock
        self._pending = 1  # the thread that starts the call; guarded by _lock
        self._over = False  # guarded by _lock
        keys = inputs[layout.key]
        self._shape = keys.shape if len(inputs) == 1 else keys.shape[:1]
        self._count = math.prod(self._shape)
        self._inputs = {alias: self._flat(alias, array) for alias, array in inputs.items()}
        self.answered = np.zeros(self._count, bool)
        count, flat = len(layout.shards), self._inputs[layout.key]
        shards = (
            shards_by_hash(flat, count)
            if layout.bounds is None
            else shards_by_range(flat, layout.bounds)
        )
        self._rows = rows_of_shards(shards, count)

    def _flat(self, alias: str, array: Array) -> Array:
        """Return an input by rows. Raises InvalidArgument if it has others than the key."""
        rows = len(self._shape)
        if array.shape[:rows] != self._shape or (alias == self._layout.key and array.ndim > rows):
            raise InvalidArgument(
                f"input {alias}: expected {self._count} rows, as {self._layout.key} has, got the "
                f"shape {list(array.shape)}"
            )
        return array.reshape(self._count, *array.shape[rows:])

    def start(self, ask: Ask, order: Order) -> None:
        """Ask each shard that has rows; without rows, the first one, for the outputs' shapes."""
        for shard, rows in enumerate(self._rows):
            if len(rows) or (not self._count and not shard):
                with self._lock:
                    self._pending += 1
                _ShardCall(self, shard, rows, order(shard), ask).next()
        self._leave()

    def inputs_of(self, rows: Array) -> Tensors:
        """Return the inputs of some rows."""
        return {alias: array[rows] for alias, array in self._inputs.items()}

    def answer(self, shard: int, rows: Array, outputs: Tensors) -> None:
        """Take a shard's answer."""
        try:
            with self._lock:
                for alias in self._signature.outputs:
                    if alias != ANSWERED:
                        self._place(alias, rows, outputs[alias])
                self.answered[rows] = True
        except (ValueError, KeyError, IndexError, TypeError) as error:
            self.fail(Internal(f"shard {shard}: its answer does not fit the others': {error}"))
        self._leave()

    def _place(self, alias: str, rows: Array, output: Array) -> None:
        """Put an output's rows where they belong; with the lock held."""
        data_type = self._signature.outputs[alias].data_type
        if output.dtype != numpy_dtype(data_type):
            raise ValueError(f"output {alias}: expected {type_name(data_type)}, got {output.dtype}")
        whole = self._outputs.get(alias)
        if whole is None:
            shape = (self._count, *output.shape[1:])
            empty = (
                np.full(shape, b"", object)
                if output.dtype.hasobject
                else np.zeros(shape, output.dtype)
            )
            whole = self._outputs[alias] = empty
        if output.shape != (len(rows), *whole.shape[1:]):
            raise ValueError(
                f"output {alias}: expected the shape {[len(rows), *whole.shape[1:]]}, got "
                f"{list(output.shape)}"
            )
        whole[rows] = output

    def shard_failed(self, shard: int, replica: Replica, error: ServingError) -> None:
        """Fail the call, or leave the shard's rows as they are."""
        if self._layout.fails or error.code in _OF_THE_CALLER:
            named = error_from_code(error.code, f"shard {shard} ({replica}): {error.message}")
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
        """Complete the call when no shard is asked any more."""
        with self._lock:
            self._pending -= 1
            if self._pending:
                return
            first, self._over = not self._over, True
        try:
            if first:
                self._complete()
        finally:
            self._ended()

    def _complete(self) -> None:
        try:
            outputs = self._gathered()
        except BaseException as error:
            self.done.fail(as_serving_error(error))
        else:
            self.done.succeed(outputs)

    def _gathered(self) -> Tensors:
        """Return the outputs in the order of the rows; defaults where no shard has answered."""
        outputs: dict[str, Array] = {}
        for alias, spec in self._signature.outputs.items():
            if alias == ANSWERED:
                whole: Array = self.answered
            elif alias in self._outputs:
                whole = self._outputs[alias]
            else:
                inner = tuple(size or 0 for size in (spec.shape or ())[len(self._shape) :])
                dtype = numpy_dtype(spec.data_type)
                fill = b"" if dtype.hasobject else 0
                whole = np.full((self._count, *inner), fill, dtype)
            outputs[alias] = whole.reshape(*self._shape, *whole.shape[1:])
        return outputs


class _ShardCall(Completion):
    """One shard's part of a call: its replicas are asked one after the other."""

    def __init__(
        self,
        call: ShardedCall,
        shard: int,
        rows: Array,
        replicas: Sequence[Replica],
        ask: Ask,
    ) -> None:
        self.deadline = call.done.deadline
        self._call = call
        self._shard = shard
        self._rows = rows
        self._left = list(replicas)
        self._ask = ask
        self._replica = self._left[0]

    def next(self) -> None:
        """Ask the next replica."""
        self._replica = self._left.pop(0)
        try:
            self._ask(self._replica, self._call.inputs_of(self._rows), self)
        except BaseException as error:
            self.fail(as_serving_error(error))

    def alive(self) -> bool:
        expired = self.deadline is not None and time.monotonic() > self.deadline
        return not self._call.over and not expired and self._call.done.alive()

    def priority(self) -> Priority:
        return self._call.done.priority()

    def succeed(self, outputs: Tensors) -> None:
        self._call.answer(self._shard, self._rows, outputs)

    def fail(self, error: ServingError) -> None:
        if self._left and error.code in _TRIED_ELSEWHERE and self.alive():
            self.next()
        else:
            self._call.shard_failed(self._shard, self._replica, error)
