"""Counts and times of requests, cheap enough for the request path.

A request is recorded once, in one cell; both metric families, ours and TensorFlow Serving's, are
read from the cells when somebody asks.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from servingd.core.types import ServableId
from servingd.errors import Code
from servingd.observability.failures import FailureLog

EDGES_US: tuple[float, ...] = tuple(10 * 1.8**i for i in range(33))
"""TensorFlow Serving's bucket edges for latencies, in microseconds."""

EXAMPLE_EDGES: tuple[float, ...] = tuple(float(2**i) for i in range(15))
"""Its bucket edges for the number of examples in a call."""

_EDGES_S = tuple(edge / 1e6 for edge in EDGES_US)
_LOT = 500
_KEPT_VERSIONS = 5
"""A model's unloaded versions whose series stay: a scraper sees their last values."""


class Key(NamedTuple):
    """What requests are told apart by. `method` is as on the wire: REST spells it in lower case."""

    model: str
    version: int
    signature: str
    method: str
    code: Code


class Cell:
    """Count, sum and buckets of one key: of seconds, unless it has other edges.

    The last bucket has no upper edge; a sample that is one of the edges lies above it, as
    TensorFlow Serving has it. Adding is one list append; what was added is sorted into the buckets
    in lots, or when asked for.
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
        """Record one sample; from any thread."""
        self._added.append(sample)
        if len(self._added) > _LOT:
            self._sort_in()

    def copy(self) -> Cell:
        """A consistent copy."""
        while self._added:
            self._sort_in()
        result = Cell(self.edges)
        with self._lock:
            result.count, result.total = self.count, self.total
            result.buckets = list(self.buckets)
        return result

    def merge(self, other: Cell) -> None:
        """Add what another cell has recorded. Not for cells that are shared."""
        self.count += other.count
        self.total += other.total
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]

    def _sort_in(self) -> None:
        with self._lock:
            lot = self._added[:_LOT]
            del self._added[: len(lot)]  # others may append meanwhile: at the end
            places = np.searchsorted(self.edges, lot, side="right")
            for place, n in enumerate(np.bincount(places).tolist()):
                self.buckets[place] += n
            self.count += len(lot)
            self.total += sum(lot)


@dataclass(slots=True)
class _Retired:
    versions: deque[int] = field(default_factory=deque)


class RequestMetrics:
    """All cells. Their number is bounded: only models and signatures that exist have any.

    Versions that are long unloaded are folded into totals per model, method and code, so that
    TensorFlow Serving's families, which know no version, never go back.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[str, int, str, str, Code], Cell] = {}
        self._lock = threading.Lock()
        self._totals: dict[tuple[str, str, Code], Cell] = {}  # guarded by _lock
        self._retired: dict[str, _Retired] = {}  # guarded by _lock
        self._runtimes: dict[tuple[str, str], Cell] = {}
        self._examples: dict[str, Cell] = {}
        self._failures = FailureLog()

    def record(
        self, model: str, version: int, signature: str, method: str, code: Code, seconds: float
    ) -> None:
        """Record one request. `model` is empty for a model that nobody serves."""
        self.cell(model, version, signature, method, code).add(seconds)
        if code is not Code.OK:
            self._failures.note(model, method, code)

    def cell(self, model: str, version: int, signature: str, method: str, code: Code) -> Cell:
        """The cell of one key, for whoever records into it often."""
        cell = self._cells.get((model, version, signature, method, code))
        if cell is None:
            cell = self._cells.setdefault(Key(model, version, signature, method, code), Cell())
        return cell

    def runtime_cell(self, model: str, api: str) -> Cell:
        """Where the times of a model's runs go; `api` is `Predict`, `Classify` or `Regress`."""
        cell = self._runtimes.get((model, api))
        return cell or self._runtimes.setdefault((model, api), Cell())

    def count_examples(self, model: str, count: int) -> None:
        """Record how many examples a MultiInference call has had."""
        cell = self._examples.get(model)
        (cell or self._examples.setdefault(model, Cell(EXAMPLE_EDGES))).add(count)

    def runtimes(self) -> list[tuple[tuple[str, str], Cell]]:
        """Consistent copies of all cells of run times, in order."""
        return [(key, cell.copy()) for key, cell in sorted(self._runtimes.copy().items())]

    def examples(self) -> list[tuple[str, Cell]]:
        """Consistent copies of all cells of example counts, in order."""
        return [(key, cell.copy()) for key, cell in sorted(self._examples.copy().items())]

    def retire(self, servable: ServableId) -> None:
        """A version has been unloaded: its series may go when newer ones have followed."""
        with self._lock:
            versions = self._retired.setdefault(servable.name, _Retired()).versions
            if servable.version in versions:
                versions.remove(servable.version)
            versions.append(servable.version)
            if len(versions) > _KEPT_VERSIONS:
                self._fold(servable.name, versions.popleft())

    def forget(self, model: str) -> None:
        """A model is not served any more: its series go."""
        with self._lock:
            self._retired.pop(model, None)
            for totals in [key for key in self._totals if key[0] == model]:
                del self._totals[totals]
        for cell in [key for key in self._cells.copy() if key[0] == model]:
            self._cells.pop(cell, None)
        for runtime in [key for key in self._runtimes.copy() if key[0] == model]:
            self._runtimes.pop(runtime, None)
        self._examples.pop(model, None)

    def revive(self, servable: ServableId) -> None:
        """A version serves again: its series stay."""
        with self._lock:
            retired = self._retired.get(servable.name)
            if retired and servable.version in retired.versions:
                retired.versions.remove(servable.version)

    def cells(self) -> list[tuple[Key, Cell]]:
        """Consistent copies of all cells, in order."""
        return [(Key(*key), cell.copy()) for key, cell in sorted(self._cells.copy().items())]

    def totals(self) -> dict[tuple[str, str, Code], Cell]:
        """Per model, method and code, unloaded versions included."""
        with self._lock:
            totals = {key: cell.copy() for key, cell in self._totals.items()}
            for key, cell in self.cells():
                place = (key.model, key.method, key.code)
                totals.setdefault(place, Cell()).merge(cell)
        return dict(sorted(totals.items()))

    def _fold(self, model: str, version: int) -> None:
        for key in [k for k in self._cells.copy() if k[0] == model and k[1] == version]:
            cell = self._cells.pop(key)
            self._totals.setdefault((model, key[3], key[4]), Cell()).merge(cell.copy())
