"""Merge the metrics of several processes into those of one server.

Counters and histograms are added. What becomes of a gauge depends on what it says: see `GAUGES`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from servingd.observability.snapshots import (
    Families,
    FamilySnapshot,
    HistogramSnapshot,
    MetricsSnapshot,
    SnapshotRow,
    Value,
)
from servingd.observability.text_format import Labels

Combine: TypeAlias = Callable[[float, float], float]

LARGEST: Combine = max
SMALLEST: Combine = min
ADDED: Combine = operator.add

GAUGES: Mapping[tuple[str, str], Combine] = {
    # Each worker has its own queues, kept requests and sessions.
    ("servingd_queue_rows", ""): ADDED,
    ("servingd_kept_requests", ""): ADDED,
    ("servingd_kept_request_bytes", ""): ADDED,
    ("servingd_replicas", ""): ADDED,
    # What models take adds up. The limit is that of the machine, and the same for all; a process
    # that plans nothing says 0.
    ("servingd_device_bytes", "held"): ADDED,
    ("servingd_device_bytes", "in_use"): ADDED,
    ("servingd_device_bytes", "limit"): LARGEST,
    # The numbers ascend: one worker in which a version failed (50) must not be hidden by others.
    ("servingd_model_state", ""): LARGEST,
    # 1 says that there is such a worker; a version may have several graph states at a time.
    ("servingd_model_graph", ""): LARGEST,
    ("servingd_model_incomplete", ""): LARGEST,
    # The graph is the same in every worker.
    ("servingd_moved_operations", ""): LARGEST,
    # 0 says that one failed. Whoever does not read the files says 1.
    ("servingd_config_last_reload_successful", ""): SMALLEST,
    # The supervisor's and the workers' together; the server is as old as its oldest process.
    ("process_resident_memory_bytes", ""): ADDED,
    ("process_virtual_memory_bytes", ""): ADDED,
    ("process_open_fds", ""): ADDED,
    ("process_max_fds", ""): LARGEST,
    ("process_start_time_seconds", ""): SMALLEST,
    ("servingd_build_info", ""): LARGEST,
    # Whoever does not read the files again has the time of its start.
    ("servingd_config_last_reload_success_timestamp_seconds", ""): LARGEST,
}
"""How two values of a gauge become one, by its name and its label `kind`; others: the largest."""


def merge(snapshots: Sequence[MetricsSnapshot]) -> MetricsSnapshot:
    """Return one snapshot with one series per name and labels, in order of labels.

    The order of the snapshots makes no difference, and a merged one may be merged again: sums are
    exact. Histograms whose families have different edges keep the edges that all have: their counts
    there are exact too, and the others could only be guessed.
    """
    return MetricsSnapshot(
        _families(snapshot.own for snapshot in snapshots),
        _families(snapshot.registered for snapshot in snapshots),
        _families(snapshot.serving for snapshot in snapshots),
    )


def _families(parts: Iterable[Families]) -> Families:
    by_name: dict[str, list[FamilySnapshot]] = {}
    for part in parts:
        for family in part:
            by_name.setdefault(family.raw_name, []).append(family)
    return tuple(_family(found) for found in by_name.values())


def _family(found: Sequence[FamilySnapshot]) -> FamilySnapshot:
    first, filled = found[0], [family for family in found if family.rows]
    edges = _common_edges([family.edges for family in filled])
    rows: dict[Labels, Value] = {}
    for family in filled:
        for labels, value in _with_edges(family, edges):
            before = rows.get(labels)
            rows[labels] = value if before is None else _sum(first, labels, before, value)
    ordered = tuple(sorted(rows.items(), key=operator.itemgetter(0)))
    return FamilySnapshot(first.raw_name, first.kind, ordered, first.help, first.unit, edges)


def _sum(family: FamilySnapshot, labels: Labels, one: Value, other: Value) -> Value:
    if isinstance(one, HistogramSnapshot):
        assert isinstance(other, HistogramSnapshot)  # a name has one kind
        return HistogramSnapshot(
            tuple(map(operator.add, one.buckets, other.buckets)),
            one.count + other.count,
            exact((*one.sums, *other.sums)),
        )
    assert not isinstance(other, HistogramSnapshot)
    if family.kind != "gauge":
        return one + other
    key = family.raw_name, next((text for name, text in labels if name == "kind"), "")
    return GAUGES.get(key, LARGEST)(one, other)


def exact(terms: Sequence[float]) -> tuple[float, ...]:
    """Return a few floats with exactly the same sum, so that its rounding depends on no order.

    Each is at most what rounding took from those after it (Shewchuk's expansion).
    """
    parts: list[float] = []
    for term in terms:
        larger, kept = term, 0
        for part in parts:
            high, low = (larger, part) if abs(larger) >= abs(part) else (part, larger)
            larger = high + low
            rounded = low - (larger - high)
            if rounded:
                parts[kept] = rounded
                kept += 1
        parts[kept:] = [larger]
    return tuple(parts)


def _common_edges(found: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Return the edges that all have, ascending."""
    first = found[0] if found else ()
    if all(edges == first for edges in found):
        return first
    return tuple(sorted(set(first).intersection(*found)))


def _with_edges(family: FamilySnapshot, edges: tuple[float, ...]) -> Iterable[SnapshotRow]:
    """Return a family's series with fewer edges."""
    if family.edges == edges:
        return family.rows
    ends = [family.edges.index(edge) + 1 for edge in edges]
    return [
        (labels, _coarser(value, ends) if isinstance(value, HistogramSnapshot) else value)
        for labels, value in family.rows
    ]


def _coarser(value: HistogramSnapshot, ends: Sequence[int]) -> HistogramSnapshot:
    bounds = zip((0, *ends), (*ends, len(value.buckets)), strict=True)
    buckets = tuple(sum(value.buckets[start:end]) for start, end in bounds)
    return HistogramSnapshot(buckets, value.count, value.sums)
