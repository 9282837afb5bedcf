"""Refuse a call that could not be answered in time, and say when to try again."""

from __future__ import annotations

from dataclasses import dataclass

from servingd.core.batching.queue import Priority
from servingd.errors import ResourceExhausted, ServingError, Unavailable

_SHARES = {Priority.HIGH: 1.0, Priority.NORMAL: 0.9, Priority.LOW: 0.5}
"""The share of the limits that each priority may use, so that higher ones still find room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The calls that wait in front of a new one."""

    calls: int
    rows: int
    size: int = 0
    """Bytes of the inputs of the waiting calls and of the new one."""
    wait_s: float
    """Seconds that the new call would wait, by what runs have cost; 0 before the first run."""
    run_s: float
    """Seconds that its own run would then take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """The most that may wait in front of one signature."""

    max_calls: int = 1000
    max_rows: int = 1_000_000
    max_bytes: int = 1 << 30
    """Bytes of inputs; a single call may have more."""
    max_wait_s: float = 30.0
    """Seconds of waiting for calls without a deadline of their own."""


def refusal(
    name: str, backlog: Backlog, left_s: float | None, priority: Priority, limits: AdmissionLimits
) -> ServingError | None:
    """Return the error with which a call is refused; None if it is admitted.

    `left_s` are the seconds until the call's deadline; None if it has none. The error is
    UNAVAILABLE where too many calls wait, and RESOURCE_EXHAUSTED where the call's time would not
    suffice. Both say after how many seconds it may be worth trying again.
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
