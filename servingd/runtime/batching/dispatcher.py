"""Run a call inline if that is cheap; else enqueue it in its signature's own queue.

A thread hand-off costs more than a cheap model; a slow model run in the transport's thread would
delay every other call. The cost is measured by signature and by size of the inputs, as a
decaying minimum, because a mean rises under contention and would send cheap calls behind slow ones.

Calls of a row-wise signature are merged in its queue, unless they are so cheap that merging costs
more, or no other call is in flight.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Mapping
from threading import get_ident
from typing import Any, NamedTuple

from servingd.core.batching.batch_limits import (
    FixedPolicy,
    RunTimes,
)
from servingd.core.batching.cost import CostMeter
from servingd.core.batching.merge import FormedInputs, kind_of, next_allowed, rows_of
from servingd.core.call_protocols import Completion, SignatureRunner
from servingd.core.servable import Replicated, RuledBatching, RunLimits, Servable
from servingd.core.shapes import fits
from servingd.core.types import ServableId, Signature, Tensors
from servingd.errors import InvalidArgument, ServingError, as_serving_error
from servingd.observability.batches import BatchMetrics, QueueStats
from servingd.runtime.batching.batcher import Batcher, BatcherOptions
from servingd.runtime.batching.gathering import Gatherings
from servingd.runtime.batching.inline_runs import InlineRuns
from servingd.runtime.batching.options import DispatchOptions, ModelBatching, batch_policy
from servingd.runtime.batching.runner import BatchRunner
from servingd.runtime.batching.waiting_calls import SplitCall, WaitingCall

_log = logging.getLogger(__name__)

_SAMPLED_STRINGS = 1024
"""The number of a tensor's strings that are measured to estimate the bytes of all."""
_STRING_BYTES = 33
"""Bytes that a string takes besides its characters."""


class TransportThreads(NamedTuple):
    """What the threads of the transports do; shared by all runners."""

    inline: InlineRuns
    gatherings: Gatherings


class QueuedRunner:
    """One signature's runner. Thread-safe."""

    __slots__ = (
        "_batcher",
        "_gatherings",
        "_inline",
        "_inline_below_s",
        "_merge_above_s",
        "_meter",
        "_ruled",
        "_runs_inline",
        "_sampler",
        "_servable",
        "notes",
        "policy",
        "signature",
        "stats",
        "times",
    )

    def __init__(
        self,
        servable_id: ServableId,
        servable: Servable,
        signature: Signature,
        options: DispatchOptions,
        model: ModelBatching,
        stats: QueueStats,
        threads: TransportThreads,
    ) -> None:
        self.signature = signature
        self._inline, self._gatherings = threads
        self.notes: dict[str, Any] = {}
        self.stats = stats
        self.times = RunTimes()
        self._servable = servable
        self._runs_inline = not isinstance(servable, RunLimits) or servable.runs_inline
        self._inline_below_s = options.inline_below_s if self._runs_inline else 0.0
        self._merge_above_s = min(options.merge_above_s, self._inline_below_s)
        self._meter = CostMeter()
        options.self_warm_up.tell_costs(servable_id, signature.name, self._meter)
        self._sampler = options.self_warm_up.sampler(servable_id, servable, signature)
        self._ruled = servable.ruled_batching
        self.policy = batch_policy(servable, signature, options, model, self.times)
        runner = BatchRunner(
            servable,
            signature,
            self.times,
            self._observe,
            stats,
            self._ruled.allowed_rows if self._ruled else (),
        )
        self._batcher = Batcher(
            f"{servable_id.name}:{servable_id.version}/{signature.name}",
            runner,
            self.policy,
            self.times,
            _batcher_options(servable, options),
            stats,
        )

    def run(self, inputs: Tensors, done: Completion) -> None:
        """Run a call now if calls with inputs of its size are cheap, else enqueue it."""
        form = inputs.form if type(inputs) is FormedInputs else None
        size = 0
        if form is not None:
            size = form.size
        else:
            for array in inputs.values():
                size += array.nbytes
        cost = self._meter.cost(size)
        inline = self._inline
        if (
            self._ruled is None
            and (
                cost < self._merge_above_s
                or (cost < self._inline_below_s and self._gains_nothing_by_waiting(done))
            )
            and not (inline and inline.one_is_stuck())
        ):
            self._run_now(inputs, done, size)
        else:
            self._enqueue(inputs, done, size)

    def refuse_waiting(self) -> None:
        """Fail every call that waits in the queue."""
        self._batcher.refuse_waiting()

    def close(self) -> None:
        """End the queue's threads. No call is waiting: the runner's version has been drained."""
        self._batcher.close()

    def explain(self) -> Mapping[str, Any]:
        """Return the queue's figures for the admin API: batches, costs of runs, and limits."""
        wait_s, limits = self._batcher.estimate()
        stats, rows = self.stats, self.stats.rows.copy()
        return {
            "signature": self.signature.name,
            "worth_merging": self._servable.rows_worth_merging(self.signature.name),
            "not_merged": self._why_not_merged(),
            "batch": {
                "full_rows": limits.full_rows,
                "hold_ms": round(limits.hold_s * 1e3, 3),
                "left": dict(stats.dispatched),
                "mean_rows": round(rows.total / rows.count, 2) if rows.count else None,
            },
            "run_ms_by_rows": {rows: round(s * 1e3, 3) for rows, s in self.times.by_rows().items()},
            "waiting_rows": stats.waiting_rows,
            "estimated_wait_ms": round(wait_s * 1e3, 3),
            "dropped": stats.dropped,
            "refused": dict(stats.refused),
        }

    def _why_not_merged(self) -> str:
        """Return why calls are not merged, for people to read; empty where they are."""
        if self._merges():
            return ""
        if isinstance(self.policy, FixedPolicy):
            return "merging is off"
        reason = self._servable.why_not_merged(self.signature.name)
        return reason or "more rows at once do not get cheaper"

    def _gains_nothing_by_waiting(self, done: Completion) -> bool:
        return (done.alone and self._batcher.quiet) or not self._merges()

    def _merges(self) -> bool:
        return self.policy.limits().full_rows > 1

    def _enqueue(self, inputs: Tensors, done: Completion, size: int) -> None:
        """Enqueue a call; one without rows runs at once, unless it may hang."""
        ruled = self._ruled
        merges = ruled is not None or self._merges()
        if type(inputs) is FormedInputs and merges and ruled is None and inputs.form.kind:
            _, rows, kind = inputs.form
        else:
            rows, kind = _rows_and_kind(self.signature, inputs, ruled, merges)
        if rows == 0:  # there is nothing to batch, and nothing to compute
            if self._runs_inline:
                self._run_now(inputs, done, size)
                return
            rows, kind = next_allowed(1, ruled.allowed_rows if ruled else ()), object()
        started = time.perf_counter()
        if started > self._sampler.due:
            done = self._sampler.watch(inputs, done, started)
        call = WaitingCall(inputs, done, rows, time.monotonic(), _input_bytes(inputs, size))
        if ruled is not None:
            for _ in inputs:
                self.stats.input_rows.add(rows)
            if ruled.rules.splits:
                call.split = SplitCall()
        gathering = self._gatherings.get(get_ident())
        if gathering is None:
            self._batcher.put(call, kind, done.priority())
        else:
            gathering.add(self._batcher, call, kind, done.priority())

    def _run_now(self, inputs: Tensors, done: Completion, size: int) -> None:
        """Run a call in this thread, and measure it."""
        started = time.perf_counter()
        if started > self._sampler.due:
            done = self._sampler.watch(inputs, done, started)
        thread, inline = get_ident(), self._inline
        inline[thread] = started
        try:
            self._servable.run(self.signature, inputs, done)
        except ServingError as error:
            done.fail(error)
        except BaseException as error:  # a model's own code may even raise SystemExit
            _log.exception("a call of signature %s failed", self.signature.name)
            done.fail(as_serving_error(error))
        inline.pop(thread, None)
        self._meter.observe(size, time.perf_counter() - started)

    def _observe(self, inputs: Tensors, seconds: float) -> None:
        self._meter.observe(sum(array.nbytes for array in inputs.values()), seconds)


def _input_bytes(inputs: Tensors, size: int) -> int:
    """Return the bytes that inputs take: arrays, and strings, which are estimated if many."""
    for array in inputs.values():
        if array.dtype == object and array.size:
            step = max(1, array.size // _SAMPLED_STRINGS)
            texts = array.ravel()[::step].tolist()
            size += _STRING_BYTES * array.size + step * sum(map(len, texts))
    return size


def _batcher_options(servable: Servable, options: DispatchOptions) -> BatcherOptions:
    """Return the options of a servable's queues.

    The threads are as many as configured, else as the devices take, else as there are cores.
    """
    replicas, at_once = 1, 0
    if isinstance(servable, Replicated):
        replicas, at_once = len(servable.replicas), servable.runs_at_once
    if isinstance(servable, RunLimits):
        at_once = servable.concurrency
    ruled = servable.ruled_batching.threads if servable.ruled_batching else 0
    return BatcherOptions(
        workers=max(ruled or at_once or options.workers, replicas),
        replicas=replicas,
        idle_s=options.idle_s,
        limits=options.limits,
    )


def _rows_and_kind(
    signature: Signature, inputs: Tensors, ruled: RuledBatching | None, merges: bool
) -> tuple[int, Hashable]:
    """Return how many rows a call has, and which others it may be merged with.

    A call whose shapes do not match the signature runs by itself: what is known of the signature
    does not hold for it. With batching parameters it is merged with others of its shape. Raises
    InvalidArgument if the model has batching parameters and the call cannot be batched.
    """
    if ruled is not None:
        return rows_of(inputs), kind_of(inputs, ruled.pads_lengths)
    if not merges:
        return 1, None
    if not fits(signature, inputs):
        return 1, object()
    try:
        return rows_of(inputs), kind_of(inputs)
    except InvalidArgument:
        return 1, object()  # the model may be able to run it by itself


class Dispatcher:
    """Opens a runner per signature of each ready servable; see `core.servable.Dispatcher`."""

    def __init__(
        self, options: DispatchOptions | None = None, metrics: BatchMetrics | None = None
    ) -> None:
        self._options = options or DispatchOptions()
        self._metrics = metrics or BatchMetrics()
        self._models: Mapping[str, ModelBatching] = {}  # replaced whole
        self.gatherings = Gatherings()
        """Threads that read calls in batches open one, so that their calls are queued together."""
        self._threads = TransportThreads(InlineRuns(), self.gatherings)
        self._lock = threading.Lock()
        self._runners: dict[ServableId, dict[str, QueuedRunner]] = {}  # guarded by _lock

    def configure(self, models: Mapping[str, ModelBatching]) -> None:
        """Replace the settings of all models, by name; they hold for versions opened later."""
        self._models = models

    def open(self, servable_id: ServableId, servable: Servable) -> Mapping[str, SignatureRunner]:
        """Return one runner per signature, by its name; starts no thread."""
        runners = {
            name: QueuedRunner(
                servable_id,
                servable,
                signature,
                self._options,
                self._models.get(servable_id.name, self._options.model),
                self._metrics.open(servable_id, name, servable.ruled_batching is not None),
                self._threads,
            )
            for name, signature in servable.signatures.items()
        }
        with self._lock:
            self._runners[servable_id] = runners
        return runners

    def explain(self, name: str) -> Mapping[int, list[Mapping[str, Any]]]:
        """Return the figures of a model's queues by version, for people to read."""
        with self._lock:
            found = [
                (s.version, list(runners.values()))
                for s, runners in self._runners.items()
                if s.name == name
            ]
        return {version: [runner.explain() for runner in runners] for version, runners in found}

    def refuse_waiting(self) -> None:
        """Fail every call that waits: the server stops."""
        with self._lock:
            runners = [r for by_name in self._runners.values() for r in by_name.values()]
        for runner in runners:
            runner.refuse_waiting()

    def close(self, servable_id: ServableId) -> None:
        """End the threads of a drained servable's runners."""
        with self._lock:
            runners = self._runners.pop(servable_id, {})
        for runner in runners.values():
            runner.close()
        self._metrics.close(servable_id)
