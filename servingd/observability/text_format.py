"""Metric families as Prometheus text, for pages of a hundred thousand lines.

prometheus-client writes a few ten thousand lines a second, and would add `_total` and `_created` to
names that TensorFlow Serving's dashboards know without.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TypeAlias

from servingd.observability.requests import Histogram

Labels: TypeAlias = tuple[tuple[str, str], ...]
Rows: TypeAlias = Sequence[tuple[Labels, int | Histogram]]

_LABELS = "\0"
"""Where the labels go in the text of a histogram's shape."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
"""What the values of labels must not hold as it is."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its raw name (may be `/tensorflow/...`), a value or histogram per label set."""

    raw_name: str
    kind: str
    rows: Rows
    unit: float = 1.0
    """The factor by which a histogram's samples are multiplied."""
    help: str = ""
    """What it counts, for people to read; TensorFlow Serving's have none."""


def first_value(family: Family | None) -> int:
    """Return the value of a family's first series; 0 for a histogram, or if there is none."""
    value = family.rows[0][1] if family is not None and family.rows else 0
    return value if isinstance(value, int) else 0


def write(found: Sequence[Family]) -> str:
    """Return families as Prometheus text."""
    lines: list[str] = []
    for family in found:
        name = re.sub(r"[^a-zA-Z0-9_]", ":", family.raw_name)
        if family.help:
            lines.append(f"# HELP {name} {family.help}")
        lines.append(f"# TYPE {name} {family.kind}")
        for labels, value in family.rows:
            text = ",".join([f'{key}="{label.translate(_ESCAPES)}"' for key, label in labels])
            if isinstance(value, Histogram):
                lines.append(_histogram(name, text, value, family.unit))
            else:
                lines.append(f"{name}{{{text}}} {value}")
    return "\n".join(lines) + "\n" if lines else ""


def _histogram(name: str, labels: str, histogram: Histogram, unit: float) -> str:
    shape = _histogram_shape(name, histogram.edges, unit, bool(labels))
    text = shape.replace(_LABELS, labels.replace("%", "%%"))
    total = f"{histogram.total * unit:.12g}"
    return text % (*accumulate(histogram.buckets[:-1]), histogram.count, total, histogram.count)


@lru_cache(maxsize=256)
def _histogram_shape(name: str, edges: tuple[float, ...], unit: float, has_labels: bool) -> str:
    """Return the lines of a histogram, with places for its labels and numbers."""
    before = f"{_LABELS}," if has_labels else ""
    ends = (*(f"{edge * unit:g}" for edge in edges), "+Inf")
    lines = [f'{name}_bucket{{{before}le="{end}"}} %d' for end in ends]
    lines += [f"{name}_sum{{{_LABELS}}} %s", f"{name}_count{{{_LABELS}}} %d"]
    return "\n".join(lines)
