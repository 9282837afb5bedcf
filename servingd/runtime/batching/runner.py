"""Run a dispatched batch: merge its calls, and give each one its rows of the outputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from servingd.core.batching.batch_limits import RunTimes
from servingd.core.batching.merge import Merged, merge, next_allowed, split
from servingd.core.batching.queue import Batch, Piece
from servingd.core.call_protocols import Completion
from servingd.core.servable import Servable
from servingd.core.types import Signature, Tensors
from servingd.errors import Code, DeadlineExceeded, ServingError, as_serving_error
from servingd.observability.batches import ROW_EDGES, QueueStats
from servingd.observability.requests import Histogram
from servingd.runtime.batching.waiting_calls import WaitingCall, hand_over

_log = logging.getLogger(__name__)

_NO_CALL_AT_FAULT = frozenset(
    {Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.UNAVAILABLE}
)
"""Errors of a merged run that no single call causes. Running each call again as well would make a
shortage of memory or of time worse.
"""


class ObserveRun(Protocol):
    """Who learns what calls cost."""

    def __call__(self, inputs: Tensors, seconds: float, /) -> None:
        """Record the seconds of a run of one call by itself."""
        ...


class BatchRunner:
    """Runs the batches of one signature; from several threads at once."""

    def __init__(
        self,
        servable: Servable,
        signature: Signature,
        times: RunTimes,
        observe: ObserveRun,
        stats: QueueStats,
        allowed_rows: Sequence[int] = (),
    ) -> None:
        self._servable = servable
        self._signature = signature
        self._times = times
        self._observe = observe
        self._stats = stats
        self._allowed_rows = allowed_rows

    def __call__(self, batch: Batch[WaitingCall]) -> None:
        """Run a batch and complete its calls; never raises."""
        for call in batch.dropped:
            hand_over(call.done.fail, DeadlineExceeded("Deadline Exceeded"))
        pieces = batch.pieces
        if not pieces:
            return
        alone = len(pieces) == 1 and pieces[0].rows == pieces[0].payload.rows
        if alone and next_allowed(batch.rows, self._allowed_rows) == batch.rows:
            self._run_alone(pieces[0].payload)
        else:
            self._run_merged(pieces, batch.rows)

    def _run_alone(self, call: WaitingCall) -> None:
        started = time.perf_counter()
        self._run(call.inputs, call.done)
        seconds = time.perf_counter() - started
        self._times.observe(call.rows, seconds)
        self._observe(call.inputs, seconds)

    def _run_merged(self, pieces: list[Piece[WaitingCall]], rows: int) -> None:
        """Merge the calls, run them as one, and deliver the outputs."""
        target = next_allowed(rows, self._allowed_rows)
        try:
            merged = merge(
                [piece.payload.part(piece.start, piece.rows) for piece in pieces], target
            )
        except Exception as error:  # they cannot be merged: each fails or runs by itself
            self._one_by_one(pieces, as_serving_error(error))
            return
        self._count(rows, merged.rows)
        started = time.perf_counter()
        self._run(merged.inputs, _Shared(self, pieces, merged))
        self._times.observe(merged.rows, time.perf_counter() - started)

    def deliver(self, pieces: list[Piece[WaitingCall]], merged: Merged, outputs: Tensors) -> None:
        """Split the outputs of a merged run, and complete each call with its rows."""
        try:
            answers = split(outputs, [piece.rows for piece in pieces], merged)
        except Exception as error:
            self._one_by_one(pieces, as_serving_error(error))
            return
        flush = pieces[0].payload.done.begin_batch()
        try:
            for piece, answer in zip(pieces, answers, strict=True):
                piece.payload.succeed(piece.start, piece.rows, answer)
        finally:
            if flush is not None:
                flush()

    def _one_by_one(self, pieces: list[Piece[WaitingCall]], error: ServingError) -> None:
        """Run each call by itself after a merged run failed: one of them may have caused it."""
        if len(pieces) == 1 or error.code in _NO_CALL_AT_FAULT:
            for piece in pieces:
                piece.payload.fail(error)
            return
        for piece in pieces:
            if piece.payload.done.alive():
                self._run(piece.payload.part(piece.start, piece.rows), _Alone(piece))
            else:
                self._stats.dropped += 1
                piece.payload.fail(DeadlineExceeded("Deadline Exceeded"))

    def _run(self, inputs: Tensors, done: Completion) -> None:
        """Run inputs on the servable; an exception becomes the completion's failure."""
        try:
            self._servable.run(self._signature, inputs, done)
        except ServingError as error:
            hand_over(done.fail, error)
        except BaseException as error:  # a model's own code may even raise SystemExit
            _log.exception("a call of signature %s failed", self._signature.name)
            hand_over(done.fail, as_serving_error(error))

    def _count(self, rows: int, filled: int) -> None:
        if self._stats.configured:
            padding = self._stats.padding
            (padding.get(filled) or padding.setdefault(filled, Histogram(ROW_EDGES))).add(
                filled - rows
            )


class _Shared(Completion):
    """The completion of a merged run."""

    def __init__(
        self, runner: BatchRunner, pieces: list[Piece[WaitingCall]], merged: Merged
    ) -> None:
        deadlines = [piece.payload.done.deadline for piece in pieces]
        known = [deadline for deadline in deadlines if deadline is not None]
        self.deadline = max(known) if len(known) == len(deadlines) else None
        self._runner = runner
        self._pieces = pieces
        self._merged = merged

    def alive(self) -> bool:
        return any(piece.payload.done.alive() for piece in self._pieces)

    def succeed(self, outputs: Tensors) -> None:
        self._runner.deliver(self._pieces, self._merged, outputs)

    def fail(self, error: ServingError) -> None:
        self._runner._one_by_one(self._pieces, error)


class _Alone(Completion):
    """The completion of one piece that runs by itself."""

    def __init__(self, piece: Piece[WaitingCall]) -> None:
        self._piece = piece
        self.deadline = piece.payload.done.deadline
        whole = piece.rows == piece.payload.rows  # parts of a call are joined with all outputs
        self.output_filter = getattr(piece.payload.done, "output_filter", ()) if whole else ()

    def alive(self) -> bool:
        return self._piece.payload.done.alive()

    def succeed(self, outputs: Tensors) -> None:
        piece = self._piece
        piece.payload.succeed(piece.start, piece.rows, dict(outputs))

    def fail(self, error: ServingError) -> None:
        self._piece.payload.fail(error)
