"""What a run of calls comes to: rates and percentiles. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when it was due, how long its answer took from then, and its error.

    The error is a code, or the name of another exception's type; empty for a call that succeeded.
    """

    due_s: float
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: so many callers, or calls at a rate, for some seconds."""

    load: str
    """`4 callers`, or `500 calls/s`."""
    seconds: float
    calls: int
    errors: Mapping[str, int]
    """Failed calls by their error."""
    calls_per_s: float
    """Calls that succeeded."""
    rows_per_s: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    client_cpu: float
    """Share of one core that the client took: near 1 the client is the limit, not the server."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields by name; None for nan, which JSON does not have."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


def figures(
    load: str, calls: Sequence[Call], seconds: float, rows: int, client_cpu: float
) -> Figures:
    """Return the figures of a run; latencies are those of calls that succeeded.

    `rows` is how many each call had. Without a call that succeeded, latencies are nan.
    """
    good = np.array([call.seconds for call in calls if not call.error]) * 1e3
    nothing = good.size == 0
    p50, p90, p99 = (
        (float("nan"),) * 3 if nothing else (float(p) for p in np.percentile(good, PERCENTILES))
    )
    return Figures(
        load,
        seconds,
        len(calls),
        dict(Counter(call.error for call in calls if call.error)),
        good.size / seconds,
        good.size * rows / seconds,
        float("nan") if nothing else float(good.mean()),
        p50,
        p90,
        p99,
        float("nan") if nothing else float(good.max()),
        client_cpu,
    )
