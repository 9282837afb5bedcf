"""The metrics of one process as plain data, and the pages made of it.

A process with several workers sends these over a socket and adds them up (`merge.py`). A snapshot
holds everything that `Metrics.page` shows, and gives the same text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from servingd.observability.requests import Histogram
from servingd.observability.text_format import Family, Labels, first_value, write

_COUNTED = "_total"
"""What prometheus-client adds to the name of a counter's series."""


class HistogramSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """Buckets, count and sum of one series; its family has the edges."""

    buckets: tuple[int, ...]
    """One more than there are edges; the last one has no upper edge."""
    count: int
    sums: tuple[float, ...]
    """Floats whose exact sum is the sum of the samples: rounding must not make it go back."""

    @property
    def total(self) -> float:
        """The sum of the samples, rounded once."""
        return math.fsum(self.sums)


Value: TypeAlias = int | float | HistogramSnapshot
SnapshotRow: TypeAlias = tuple[Labels, Value]


class FamilySnapshot(msgspec.Struct, frozen=True, array_like=True):
    """One metric with its series."""

    raw_name: str
    kind: str
    """`counter`, `gauge` or `histogram`."""
    rows: tuple[SnapshotRow, ...]
    help: str = ""
    unit: float = 1.0
    """The factor by which a histogram's samples are multiplied."""
    edges: tuple[float, ...] = ()
    """Of its histograms' buckets."""


Families: TypeAlias = tuple[FamilySnapshot, ...]


class MetricsSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """All metrics of a process, in the order of its page; by default none."""

    own: Families = ()
    """servingd's large families."""
    registered: Families = ()
    """Those of prometheus-client, whose counters' series are called `NAME_total`."""
    serving: Families = ()
    """TensorFlow Serving's, sorted by name."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(MetricsSnapshot)


def encode(snapshot: MetricsSnapshot) -> bytes:
    """Return a snapshot as bytes."""
    return _encoder.encode(snapshot)


def decode(data: bytes) -> MetricsSnapshot:
    """Return the snapshot that was encoded. Raises msgspec.DecodeError if it is none."""
    return _decoder.decode(data)


def snapshot_of(
    own: Iterable[Family], registered: Collector, serving: Iterable[Family]
) -> MetricsSnapshot:
    """Return a snapshot of families, whose histograms nobody else may change any more."""
    return MetricsSnapshot(
        tuple(_family(family) for family in own),
        tuple(_registered(metric) for metric in registered.collect()),
        tuple(_family(family) for family in serving),
    )


def page(snapshot: MetricsSnapshot) -> bytes:
    """Return all families as Prometheus text; see `Metrics.page`."""
    own = _text(snapshot.own)
    return own + generate_latest(_Registered(snapshot.registered)) + serving_page(snapshot)


def serving_page(snapshot: MetricsSnapshot) -> bytes:
    """Return TensorFlow Serving's families as Prometheus text; see `Metrics.serving_page`."""
    return _text(snapshot.serving)


def serving_values(snapshot: MetricsSnapshot, names: Sequence[str]) -> dict[str, int]:
    """Return single values by TensorFlow Serving's names; see `Metrics.serving_values`."""
    known = {family.raw_name: family for family in snapshot.serving if family.raw_name in names}
    return {name: first_value(_written(known[name]) if name in known else None) for name in names}


def _family(family: Family) -> FamilySnapshot:
    edges = next((v.edges for _, v in family.rows if isinstance(v, Histogram)), ())
    return FamilySnapshot(
        family.raw_name,
        family.kind,
        tuple((_sendable(labels), _value(value)) for labels, value in family.rows),
        family.help,
        family.unit,
        edges,  # all of a family have the same
    )


def _registered(metric: Metric) -> FamilySnapshot:
    rows = tuple((_sendable(tuple(s.labels.items())), s.value) for s in metric.samples)
    return FamilySnapshot(metric.name, metric.type, rows, metric.documentation)


def _value(value: int | Histogram) -> Value:
    if isinstance(value, Histogram):
        return HistogramSnapshot(tuple(value.buckets), value.count, (value.total,))
    return value


def _sendable(labels: Labels) -> Labels:
    """Return labels as pages show them: a path need not be UTF-8."""
    if all(text.isascii() for _, text in labels):
        return labels
    return tuple((name, text.encode(errors="replace").decode()) for name, text in labels)


def _text(families: Families) -> bytes:
    return write([_written(family) for family in families]).encode(errors="replace")


def _written(family: FamilySnapshot) -> Family:
    rows = [(labels, _writable(value, family.edges)) for labels, value in family.rows]
    return Family(family.raw_name, family.kind, rows, family.unit, family.help)


def _writable(value: Value, edges: tuple[float, ...]) -> int | Histogram:
    if isinstance(value, HistogramSnapshot):
        histogram = Histogram(edges)
        histogram.buckets = list(value.buckets)
        histogram.count, histogram.total = value.count, value.total
        return histogram
    return int(value)


@dataclass(frozen=True, slots=True)
class _Registered(Collector):
    """Gives prometheus-client its families back, so that it writes them."""

    families: Families

    def collect(self) -> Iterable[Metric]:
        for family in self.families:
            metric = Metric(family.raw_name, family.help, family.kind)
            name = family.raw_name + (_COUNTED if family.kind == "counter" else "")
            for labels, value in family.rows:
                assert not isinstance(value, HistogramSnapshot)  # there are none
                metric.add_sample(name, dict(labels), value)
            yield metric
