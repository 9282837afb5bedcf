"""Counts and times of requests, cheap enough for the request path.

A request is recorded once, in one histogram; both metric families, servingd's and TensorFlow
Serving's, are read from the histograms when somebody asks.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from servingd.core.types import ServableId
from servingd.errors import Code
from servingd.observability.failures import FailureLog

EDGES_US: tuple[float, ...] = tuple(10 * 1.8**i for i in range(33))
"""TensorFlow Serving's bucket edges for latencies, in microseconds."""

EXAMPLE_EDGES: tuple[float, ...] = tuple(float(2**i) for i in range(15))
"""TensorFlow Serving's bucket edges for the number of examples in a call."""

_EDGES_S = tuple(edge / 1e6 for edge in EDGES_US)
_BLOCK = 500
K = TypeVar("K")
KEPT_VERSIONS = 5
"""The number of a model's unloaded versions whose series stay, for scrapers to see once more."""


class Key(NamedTuple):
    """The labels of a request. `method` is as in its API: REST's are in lower case.

    Those of the Open Inference Protocol begin with OIP.
    """

    model: str
    version: int
    signature: str
    method: str
    code: Code


OIP = "oip:"
"""The beginning of the methods of the Open Inference Protocol."""
_OVER_HTTP = ("AdminAction",)


def protocol_of(method: str) -> str:
    """Return the protocol of a method in a Key: each belongs to one."""
    name = method.removeprefix(OIP)
    transport = "rest" if name == name.lower() or name in _OVER_HTTP else "grpc"
    return f"oip_{transport}" if name != method else transport


class Histogram:
    """Count, sum and buckets of one key: of seconds, unless it has other edges.

    The last bucket has no upper edge; a sample equal to an edge counts above it, as in TensorFlow
    Serving. Adding is one list append; the samples are sorted into the buckets in blocks, or when
    the histogram is read.
    """

    __slots__ = ("_added", "_lock", "buckets", "count", "edges", "total")

    def __init__(self, edges: tuple[float, ...] = _EDGES_S) -> None:
        self.edges = edges
        self._lock = threading.Lock()
        self._added: list[float] = []
        # Guarded by _lock:
        self.count = 0
        self.total = 0.0
        self.buckets = [0] * (len(edges) + 1)

    def add(self, sample: float) -> None:
        """Record one sample. Thread-safe."""
        self._added.append(sample)
        if len(self._added) > _BLOCK:
            self._fill_buckets()

    def copy(self) -> Histogram:
        """Return a consistent copy."""
        while self._added:
            self._fill_buckets()
        result = Histogram(self.edges)
        with self._lock:
            result.count, result.total = self.count, self.total
            result.buckets = list(self.buckets)
        return result

    def merge(self, other: Histogram) -> None:
        """Add the samples of another histogram. Not thread-safe."""
        self.count += other.count
        self.total += other.total
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]

    def _fill_buckets(self) -> None:
        """Sort a block of samples into the buckets."""
        with self._lock:
            block = self._added[:_BLOCK]
            del self._added[: len(block)]  # other threads may append meanwhile, at the end
            places = np.searchsorted(self.edges, block, side="right")
            for place, n in enumerate(np.bincount(places).tolist()):
                self.buckets[place] += n
            self.count += len(block)
            self.total += sum(block)


def add_up(totals: dict[K, Histogram], key: K, copy: Histogram) -> None:
    """Add a copy of a histogram to the total of a key; the first one becomes the total."""
    total = totals.setdefault(key, copy)
    if total is not copy:
        total.merge(copy)


@dataclass(slots=True)
class _Retired:
    versions: deque[int] = field(default_factory=deque)


class RequestMetrics:
    """All histograms. Their number is bounded: only models and signatures that exist have any.

    Versions that were unloaded long ago are added to totals per model, method and code, so that
    TensorFlow Serving's families, which have no version, never decrease.
    """

    def __init__(self) -> None:
        self._histograms: dict[tuple[str, int, str, str, Code], Histogram] = {}
        self._lock = threading.Lock()
        self._totals: dict[tuple[str, str, Code], Histogram] = {}  # guarded by _lock
        self._retired: dict[str, _Retired] = {}  # guarded by _lock
        self._runtimes: dict[tuple[str, str], Histogram] = {}
        self._examples: dict[str, Histogram] = {}
        self._parts: dict[str, int] = {}  # guarded by _lock
        self._failures = FailureLog()

    def record(
        self,
        model: str,
        version: int,
        signature: str,
        method: str,
        code: Code,
        seconds: float,
        request_id: str = "",
    ) -> None:
        """Record one request; its id is for the log of failures.

        `model` is empty for a model that is not served.
        """
        self.histogram(model, version, signature, method, code).add(seconds)
        if code is not Code.OK:
            self._failures.note(model, method, code, request_id)

    def histogram(
        self, model: str, version: int, signature: str, method: str, code: Code
    ) -> Histogram:
        """Return the histogram of one key, for callers that record into it often."""
        histogram = self._histograms.get((model, version, signature, method, code))
        if histogram is None:
            histogram = self._histograms.setdefault(
                Key(model, version, signature, method, code), Histogram()
            )
        return histogram

    def runtime_cell(self, model: str, api: str) -> Histogram:
        """Return the histogram of a model's runs; `api` is `Predict`, `Classify` or `Regress`."""
        histogram = self._runtimes.get((model, api))
        return histogram or self._runtimes.setdefault((model, api), Histogram())

    def count_examples(self, model: str, count: int) -> None:
        """Record the number of examples of a MultiInference call."""
        histogram = self._examples.get(model)
        (histogram or self._examples.setdefault(model, Histogram(EXAMPLE_EDGES))).add(count)

    def count_part(self, model: str) -> None:
        """Count one part of an answer that is streamed."""
        with self._lock:
            self._parts[model] = self._parts.get(model, 0) + 1

    def parts(self) -> list[tuple[str, int]]:
        """Return the number of parts that were streamed, by model, in order."""
        with self._lock:
            return sorted(self._parts.items())

    def runtimes(self) -> list[tuple[tuple[str, str], Histogram]]:
        """Return consistent copies of all histograms of run times, in order."""
        return [(key, histogram.copy()) for key, histogram in sorted(self._runtimes.copy().items())]

    def examples(self) -> list[tuple[str, Histogram]]:
        """Return consistent copies of all histograms of example counts, in order."""
        return [(key, histogram.copy()) for key, histogram in sorted(self._examples.copy().items())]

    def retire(self, servable_id: ServableId) -> None:
        """Mark a version as unloaded: its series are removed when newer versions have followed."""
        with self._lock:
            versions = self._retired.setdefault(servable_id.name, _Retired()).versions
            if servable_id.version in versions:
                versions.remove(servable_id.version)
            versions.append(servable_id.version)
            if len(versions) > KEPT_VERSIONS:
                self._fold(servable_id.name, versions.popleft())

    def forget(self, model: str) -> None:
        """Remove the series of a model that is not served any more."""
        with self._lock:
            self._retired.pop(model, None)
            self._parts.pop(model, None)
            for totals in [key for key in self._totals if key[0] == model]:
                del self._totals[totals]
        for histogram in [key for key in self._histograms.copy() if key[0] == model]:
            self._histograms.pop(histogram, None)
        for runtime in [key for key in self._runtimes.copy() if key[0] == model]:
            self._runtimes.pop(runtime, None)
        self._examples.pop(model, None)

    def revive(self, servable_id: ServableId) -> None:
        """Keep the series of a version that serves again."""
        with self._lock:
            retired = self._retired.get(servable_id.name)
            if retired and servable_id.version in retired.versions:
                retired.versions.remove(servable_id.version)

    def histograms(self) -> list[tuple[Key, Histogram]]:
        """Return consistent copies of all histograms, in order."""
        return [
            (Key(*key), histogram.copy())
            for key, histogram in sorted(self._histograms.copy().items())
        ]

    def totals(self) -> dict[tuple[str, str, Code], Histogram]:
        """Return histograms per model, method and code, unloaded versions included."""
        with self._lock:
            totals = {key: histogram.copy() for key, histogram in self._totals.items()}
            for key, histogram in self.histograms():
                add_up(totals, (key.model, key.method, key.code), histogram)
        return dict(sorted(totals.items()))

    def _fold(self, model: str, version: int) -> None:
        for key in [k for k in self._histograms.copy() if k[0] == model and k[1] == version]:
            histogram = self._histograms.pop(key)
            self._totals.setdefault((model, key[3], key[4]), Histogram()).merge(histogram.copy())
