"""Self-warming: a new version runs a few recent requests of its model before it is published.

Runners sample the calls that succeed, at growing intervals; the samples are kept in memory only,
within limits. A version that cannot answer one of them is loaded all the same: that may be
intended.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from servingd.core.batching.cost import CostMeter
from servingd.core.batching.queue import Priority
from servingd.core.batching.samples import (
    Sample,
    SampleLimits,
    Samples,
    batches,
    fitting,
    sample_of,
)
from servingd.core.call_protocols import Completion
from servingd.core.callbacks import nothing
from servingd.core.servable import Servable
from servingd.core.types import ServableId, Signature, Tensors
from servingd.errors import Cancelled, DeadlineExceeded, ServingError, as_serving_error

_FIRST_S = 0.01
_LONGEST_S = 10.0
"""The longest interval between two samples of a runner; it doubles from sample to sample."""

_MAX_CALL_S = 2.0
"""Seconds above which a call is not kept: running it would slow a load down as much."""

_BUDGET_S = 5.0
"""Seconds after which a load begins no further run, and waits no longer for one under way."""

_RUNS = 2
"""How often each request is run: the first run may be slow, the last one gives its cost."""

_MAX_BATCH_BYTES = 64 << 20

_log = logging.getLogger(__name__)


_LARGE_BYTES = 64 << 10
_MAX_DEFERRED = 4


def _is_large(inputs: Tensors) -> bool:
    """Return whether copying inputs takes long; strings are copied one by one."""
    return sum(a.nbytes * (8 if a.dtype == object else 1) for a in inputs.values()) > _LARGE_BYTES


class Sampler:
    """Decides which calls of one runner are kept. Thread-safe; a race costs one more sample."""

    __slots__ = ("_interval_s", "_keep", "due")

    def __init__(self, keep: Callable[[Tensors], None] | None) -> None:
        self.due = math.inf if keep is None else -math.inf
        """The time, by `time.perf_counter`, after which the next call is to be watched."""
        self._keep = keep
        self._interval_s = _FIRST_S

    def watch(self, inputs: Tensors, done: Completion, now: float) -> Completion:
        """Return the completion to run a call with: it keeps the request if the call succeeds."""
        if self._keep is None:
            return done
        self.due = now + self._interval_s
        self._interval_s = min(_LONGEST_S, 2 * self._interval_s)
        return _Watched(inputs, done, now, self._keep)


class _Watched(Completion):
    """The completion of a call whose request is kept if it succeeds soon enough."""

    def __init__(
        self, inputs: Tensors, done: Completion, began: float, keep: Callable[[Tensors], None]
    ) -> None:
        self.deadline = done.deadline
        self.output_filter = getattr(done, "output_filter", ())
        self._inputs = inputs
        self._done = done
        self._began = began
        self._keep = keep

    def priority(self) -> Priority:
        return self._done.priority()

    def alive(self) -> bool:
        return self._done.alive()

    def begin_batch(self) -> Callable[[], None] | None:
        return self._done.begin_batch()

    def fail(self, error: ServingError) -> None:
        self._done.fail(error)

    def succeed(self, outputs: Tensors) -> None:
        try:
            if time.perf_counter() - self._began <= _MAX_CALL_S:
                # Before the answer: otherwise a large request is kept alive longer than its call.
                self._keep(self._inputs)
        except Exception:  # the caller gets its answer, even if the sample cannot be kept
            _log.exception("a request could not be kept")
        self._done.succeed(outputs)


@dataclass(slots=True)
class _Plan:
    """The runs that warm a version up, in order."""

    runs: list[tuple[Signature, Tensors, bool]] = field(default_factory=list)
    """Signature, inputs, and whether the inputs are a kept request as it was sent."""
    rows: set[int] = field(default_factory=set)
    skipped: int = 0
    """Kept requests that do not fit the version."""


class MakeInputs(Protocol):
    """What makes inputs for batches of sizes that nobody sent as one request."""

    def __call__(self, signature: Signature, rows: int, /) -> Tensors | None:
        """Return synthetic inputs of so many rows; None where they cannot be made."""
        ...


class OnSelfWarmed(Protocol):
    """Who is told that a version has run kept requests."""

    def __call__(self, servable_id: ServableId, outcomes: Mapping[str, int], /) -> None:
        """Take how many of them were `answered`, `failed` and `skipped`."""
        ...


def _no_rows(model: str) -> Mapping[str, Sequence[int]]:
    return {}


class SelfWarmUp:
    """Keeps requests, and runs them on new versions. Thread-safe."""

    def __init__(
        self,
        rows_in_use: Callable[[str], Mapping[str, Sequence[int]]] = _no_rows,
        made_up: MakeInputs = nothing,
        warmed: OnSelfWarmed = nothing,
        *,
        enabled: bool = True,
        limits: SampleLimits | None = None,
        budget_s: float = _BUDGET_S,
        later: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`rows_in_use` returns the rows that a model's batches have, by signature.

        `later` runs a slow job on another thread; without it, jobs run at once.
        """
        self._later = later
        self._deferred = 0  # large requests that wait for that thread; a race costs one more
        self._rows_in_use = rows_in_use
        self._made_up = made_up
        self._warmed = warmed
        self._enabled = enabled
        self._limits = limits or SampleLimits()
        self._budget_s = budget_s
        self._lock = threading.Lock()
        self._samples = Samples(self._limits)  # guarded by _lock
        # What runs of the newest version cost, by its model: guarded by _lock
        self._costs: dict[str, tuple[int, dict[str, list[tuple[int, float]]]]] = {}

    def keep_only(self, models: Iterable[str]) -> None:
        """Set the configured models; the kept requests of other models are dropped."""
        wanted = frozenset(models)
        with self._lock:
            self._samples.keep_only(wanted)
            self._costs = {name: of for name, of in self._costs.items() if name in wanted}

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """Return how many requests of each model are kept, and the bytes that they take."""
        with self._lock:
            return self._samples.sizes()

    # Runners --------------------------------------------------------------------------------------

    def sampler(self, servable_id: ServableId, servable: Servable, signature: Signature) -> Sampler:
        """Return the sampler for a new runner."""
        if not self._enabled or not servable.may_be_repeated(signature.name):
            return Sampler(None)
        return Sampler(lambda inputs: self._keep(servable_id.name, signature, inputs))

    def tell_costs(self, servable_id: ServableId, signature: str, meter: CostMeter) -> None:
        """Record in a new runner's meter what warm-up runs cost, so that cheap calls run inline."""
        with self._lock:
            version, by_signature = self._costs.get(servable_id.name, (0, {}))
            found = by_signature.get(signature, []) if version == servable_id.version else []
        for size, seconds in found:
            meter.observe(size, seconds)

    def _keep(self, model: str, signature: Signature, inputs: Tensors) -> None:
        """Keep a request; a large one is copied on another thread, and few at a time."""
        if self._later is None or not _is_large(inputs):
            self._keep_now(model, signature, inputs)
        elif self._deferred < _MAX_DEFERRED:
            self._deferred += 1

            def keep() -> None:
                try:
                    self._keep_now(model, signature, inputs)
                finally:
                    self._deferred -= 1

            self._later(keep)

    def _keep_now(self, model: str, signature: Signature, inputs: Tensors) -> None:
        sample = sample_of(inputs, signature, self._limits.request_bytes)
        if sample is not None:
            with self._lock:
                self._samples.add(model, signature.name, sample)

    # Loads ----------------------------------------------------------------------------------------

    def __call__(self, servable_id: ServableId, servable: Servable) -> None:
        """Run the kept requests on a version that was just loaded, and report it; never raises."""
        if not self._enabled:
            return
        started = time.monotonic()
        costs: dict[str, list[tuple[int, float]]] = {}
        try:
            plan = self._plan(servable_id.name, servable)
            outcomes = self._run(servable_id, servable, plan, costs)
        except Exception:  # the version serves without this warm-up
            _log.exception("%s is not warmed with kept requests", servable_id)
            return
        with self._lock:
            self._costs[servable_id.name] = (servable_id.version, costs)
        if outcomes:
            self._warmed(servable_id, outcomes)
            _log.info(
                "%s is warmed with %d kept requests (%d failed, %d skipped), batch sizes %s, in "
                "%.3f s",
                servable_id,
                outcomes["answered"],
                outcomes["failed"],
                outcomes["skipped"],
                sorted(plan.rows) or "as they were",
                time.monotonic() - started,
            )

    def again(self, servable_id: ServableId, servable: Servable) -> None:
        """Run the kept requests on a new servable of a version already serving; never raises."""
        if not self._enabled:
            return
        try:
            self._run(servable_id, servable, self._plan(servable_id.name, servable), {})
        except Exception:
            _log.exception("%s is not warmed again with kept requests", servable_id)

    def _plan(self, model: str, servable: Servable) -> _Plan:
        """Plan the runs: first all requests as they were sent, then batches of the sizes in use."""
        plan = _Plan()
        with self._lock:
            kept = self._samples.of(model)
        in_use = self._rows_in_use(model)
        larger: list[tuple[Signature, Tensors, bool]] = []
        for name, signature in servable.signatures.items():
            if not servable.may_be_repeated(name):
                continue
            requests = self._fitting(kept.get(name, []), signature, plan)
            rows = in_use.get(name, ())
            plan.runs += [(signature, inputs, True) for inputs in requests]
            sized = batches(requests, rows, _MAX_BATCH_BYTES)
            if not requests:
                sized = [made for n in rows if (made := self._made_up(signature, n)) is not None]
            larger += [(signature, inputs, False) for inputs in sized]
            plan.rows.update(rows if sized else ())
        plan.skipped += sum(len(of) for name, of in kept.items() if name not in servable.signatures)
        plan.runs += larger
        return plan

    def _fitting(self, kept: Sequence[Sample], signature: Signature, plan: _Plan) -> list[Tensors]:
        found = [fitting(sample, signature) for sample in kept]
        plan.skipped += found.count(None)
        return [inputs for inputs in found if inputs is not None]

    def _run(
        self,
        servable_id: ServableId,
        servable: Servable,
        plan: _Plan,
        costs: dict[str, list[tuple[int, float]]],
    ) -> Counter[str]:
        """Run the plan within the budget; count outcomes, and collect the costs of the runs."""
        outcomes = Counter({"skipped": plan.skipped} if plan.skipped else {})
        until = time.monotonic() + self._budget_s
        for signature, inputs, kept in plan.runs:
            outcome = "skipped"
            if time.monotonic() < until:
                seconds, error = self._repeated(servable, signature, inputs, until)
                outcome = "failed" if error else "answered"
                if isinstance(error, Cancelled):
                    break  # the load was cancelled
                if error is not None:  # logged without its text, which may quote the request
                    text = "%s: a kept request of signature %s fails with %s, which is no harm"
                    level = logging.INFO if kept else logging.DEBUG
                    _log.log(level, text, servable_id, signature.name, error.code.name)
                else:
                    size = sum(array.nbytes for array in inputs.values())
                    costs.setdefault(signature.name, []).append((size, seconds))
            if kept:
                outcomes[outcome] += 1
        return outcomes

    def _repeated(
        self, servable: Servable, signature: Signature, inputs: Tensors, until: float
    ) -> tuple[float, ServingError | None]:
        """Run a request several times if time permits.

        Returns the last run's seconds, and its error if it failed.
        """
        seconds, error = 0.0, None
        for _ in range(_RUNS):
            started = time.monotonic()
            error = _outcome(servable, signature, inputs, self._budget_s)
            seconds = time.monotonic() - started
            if error is not None or time.monotonic() + seconds > until:
                break
        return seconds, error


def _outcome(
    servable: Servable, signature: Signature, inputs: Tensors, timeout_s: float
) -> ServingError | None:
    """Run a request once and wait for it; return its error, if it failed."""
    done = _Dropped(timeout_s)
    try:
        servable.run(signature, inputs, done)
    except Exception as error:
        return as_serving_error(error)
    if not done.over.wait(timeout_s):
        return DeadlineExceeded("a kept request was not answered in time")
    return done.error


class _Dropped(Completion):
    """The completion of a run whose outputs are dropped."""

    def __init__(self, timeout_s: float) -> None:
        self.deadline: float | None = time.monotonic() + timeout_s
        self.error: ServingError | None = None
        self.over = threading.Event()

    def alive(self) -> bool:
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return not late and not self.over.is_set()

    def succeed(self, outputs: Tensors) -> None:
        self.over.set()

    def fail(self, error: ServingError) -> None:
        self.error = error
        self.over.set()
