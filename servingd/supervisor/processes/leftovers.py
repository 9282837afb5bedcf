"""Memory that unloads have left behind in a worker: when it is worth a new worker.

An allocator gives little back, so a worker that has served many versions holds more than one that
has just loaded the same. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Baseline:
    """A worker when it had just begun to serve."""

    resident: int
    """Its resident bytes."""
    held: int
    """Bytes that its models held then, as planned or measured."""


def left_behind(baseline: Baseline, resident: int, held: int) -> int:
    """Return the bytes that are resident without a model that holds them."""
    expected = baseline.resident + held - baseline.held
    return max(0, resident - max(expected, 0))


def is_worth_replacing(baseline: Baseline, resident: int, held: int, share: float) -> bool:
    """Return whether unloads have left more than a share of a worker's memory behind."""
    left = left_behind(baseline, resident, held)
    return share > 0 and left > share * max(1, resident - left)
