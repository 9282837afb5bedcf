"""Whom to refuse, and what to tell them: a call that cannot be answered in time is told so now."""

from __future__ import annotations

from dataclasses import dataclass

from servingd.core.batching.queue import Priority
from servingd.errors import ResourceExhausted, ServingError, Unavailable

_SHARES = {Priority.HIGH: 1.0, Priority.NORMAL: 0.9, Priority.LOW: 0.5}
"""How much of what may wait each priority may use, so that there is room for a higher one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What a call finds in front of it."""

    calls: int
    rows: int
    size: int = 0
    """Bytes of their inputs, and of its own."""
    wait_s: float
    """How long it would wait, by what runs have cost; 0 before the first run."""
    run_s: float
    """What its own run would then take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """What may wait in front of one signature."""

    max_calls: int = 1000
    max_rows: int = 1_000_000
    max_bytes: int = 1 << 30
    """Of inputs; one call alone may have more."""
    max_wait_s: float = 30.0
    """For calls that have no deadline of their own."""


def refusal(
    name: str, backlog: Backlog, left_s: float | None, priority: Priority, limits: AdmissionLimits
) -> ServingError | None:
    """Why a call is not let in; None if it is. `left_s` is what is left of its time.

    UNAVAILABLE where too much waits, RESOURCE_EXHAUSTED where its time would not do; both say when
    it may be worth while to come again.
    """
    share = _SHARES[priority]
    if (
        backlog.calls >= limits.max_calls * share
        or backlog.rows >= limits.max_rows * share
        or (backlog.calls and backlog.size > limits.max_bytes * share)
    ):
        waiting = f"{backlog.calls} waiting, {backlog.rows} rows, {backlog.size >> 20} MiB"
        error: ServingError = Unavailable(f"queue of {name} is full ({waiting})")
        error.retry_after_s = max(0.001, backlog.wait_s)
        return error
    allowed_s = limits.max_wait_s if left_s is None else left_s
    needed_s = backlog.wait_s / share + backlog.run_s
    if backlog.calls and needed_s > allowed_s:
        error = ResourceExhausted(
            f"queue of {name}: the answer would take {needed_s:.3f} s, and {allowed_s:.3f} s are "
            "left"
        )
        error.retry_after_s = max(0.001, needed_s - allowed_s)
        return error
    return None
