"""How calls are dispatched, by settings of the server and the model; the batch policy of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from servingd.core.batching.batch_limits import (
    MAX_ROWS,
    UNMEASURED_ROWS,
    BatchLimits,
    BatchPolicy,
    BatchRules,
    FixedPolicy,
    LatencyGoalPolicy,
    RunTimes,
    WaitingPolicy,
)
from servingd.core.batching.refusal import AdmissionLimits
from servingd.core.servable import Servable
from servingd.core.types import Signature
from servingd.runtime.warm_up.self_warm_up import SelfWarmUp

_ALONE = BatchLimits(full_rows=1)


class ModelBatching(NamedTuple):
    """How one model's calls are batched, by its configuration."""

    goal_s: float = 0.0
    """Its latency goal in seconds; 0: none."""
    merging: str = "auto"
    """Whether waiting calls are merged: `auto`, `always` or `never`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchOptions:
    """When calls run inline, are merged, or wait."""

    inline_below_s: float = 200e-6
    """Seconds below which a call runs in the transport's thread."""

    merge_above_s: float = 80e-6
    """Seconds below which a call is not merged: merging would cost more."""

    merge: bool = True
    """Whether waiting calls are merged where that is known to be correct."""

    max_merged_rows: int = 512
    """Rows of the largest batch of a model without batching parameters."""

    model: ModelBatching = field(default_factory=ModelBatching)
    """The settings of models that have none of their own."""

    limits: AdmissionLimits = field(default_factory=AdmissionLimits)
    """The most that may wait in front of one signature."""

    workers: int = 2
    """Threads of one signature's queue; each runs one batch at a time."""

    idle_s: float = 30.0
    """Seconds without work after which a thread ends; it is started again when needed."""

    self_warm_up: SelfWarmUp = field(default_factory=lambda: SelfWarmUp(enabled=False))
    """Keeps a sample of the requests to warm up later versions."""


def batch_policy(
    servable: Servable,
    signature: Signature,
    options: DispatchOptions,
    model: ModelBatching,
    times: RunTimes,
) -> BatchPolicy:
    """Return the batch policy of a signature, by the model's settings."""
    ruled = servable.ruled_batching
    if ruled is not None:
        reason = "timer" if ruled.hold_s else "idle"
        limits = BatchLimits(
            full_rows=ruled.rules.max_batch_rows, hold_s=ruled.hold_s, reason=reason
        )
        return FixedPolicy(ruled.rules, limits)
    rules = BatchRules(
        max_request_rows=MAX_ROWS,
        max_batch_rows=options.max_merged_rows,
        max_enqueued_batches=MAX_ROWS,
    )
    if not options.merge or model.merging == "never":
        return FixedPolicy(rules, _ALONE)

    def rows_worth() -> int:
        known = servable.rows_worth_merging(signature.name)
        if not known and model.merging == "always":
            return min(options.max_merged_rows, UNMEASURED_ROWS)
        return min(options.max_merged_rows, known)

    if model.goal_s:
        return LatencyGoalPolicy(rules, model.goal_s, times, rows_worth)
    return WaitingPolicy(rules, rows_worth)
