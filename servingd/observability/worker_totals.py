"""Sums over all workers that there have been: a counter does not go back when one is replaced."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

import msgspec

from servingd.observability.merge import merge
from servingd.observability.requests import KEPT_VERSIONS
from servingd.observability.serving_families import MAX_PATHS
from servingd.observability.snapshots import Families, FamilySnapshot, MetricsSnapshot
from servingd.observability.text_format import Labels

_ENDED_KEYS = 1024
"""The number of workers that ended last whose late answers are known as such."""

_MODEL = ("model", "model_name")

K = TypeVar("K", bound=Hashable)


class WorkerTotals(Generic[K]):
    """The last snapshot of each worker, and what those that ended have left. Not thread-safe.

    A worker has a key that no other has had; one that replaces another has a new one. What ended
    workers leave is one snapshot, with as many series as a worker has: of a model's versions that
    no worker shows any more the newest few stay, as in a worker.
    """

    def __init__(self) -> None:
        self._last: dict[K, MetricsSnapshot] = {}
        self._left = MetricsSnapshot()
        self._ended: dict[K, None] = {}  # the oldest first

    def update(self, worker: K, snapshot: MetricsSnapshot) -> None:
        """Replace a worker's snapshot; one that arrives after its end is dropped."""
        if worker not in self._ended:
            self._last[worker] = snapshot

    def gone(self, worker: K) -> None:
        """Keep the counters and histograms of a worker that has ended, and drop its gauges."""
        self._ended[worker] = None
        if len(self._ended) > _ENDED_KEYS:
            del self._ended[next(iter(self._ended))]
        last = self._last.pop(worker, None)
        if last is not None:
            shown = [last, *self._last.values()]
            self._left = _without_old(merge([self._left, _counted(last)]), shown)

    def forget_model(self, name: str) -> None:
        """Remove the series of a model that is not served any more, by no worker."""
        self._left = _without_model(self._left, name)
        # A worker that ends before its next answer must not bring them back.
        self._last = {key: _without_model(last, name) for key, last in self._last.items()}

    def merged(self, live: Mapping[K, MetricsSnapshot]) -> MetricsSnapshot:
        """Return the sums, with what workers have just answered.

        Of a worker that did not answer its last snapshot counts: its counters must not vanish.
        """
        for worker, snapshot in live.items():
            self.update(worker, snapshot)
        return merge([self._left, *self._last.values()])


def _counted(snapshot: MetricsSnapshot) -> MetricsSnapshot:
    """Return a snapshot without the series of gauges."""
    return _each(snapshot, lambda family, labels: family.kind != "gauge")


def _without_model(snapshot: MetricsSnapshot, name: str) -> MetricsSnapshot:
    return _each(snapshot, lambda family, labels: _model_of(labels) != name)


def _without_old(left: MetricsSnapshot, shown: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """Remove the series of old versions and old paths that `shown` does not have."""
    live_versions, live_paths = _named(shown)
    versions, paths = _named([left])
    by_model: dict[str, list[int]] = {}
    for model, version in versions - live_versions:
        by_model.setdefault(model, []).append(int(version or 0))
    old_versions = {
        (model, str(version))
        for model, found in by_model.items()
        for version in sorted(found)[:-KEPT_VERSIONS]
    }
    old_paths = frozenset(sorted(paths - live_paths)[: max(0, len(paths) - MAX_PATHS)])
    return _each(
        left,
        lambda family, labels: (
            _version_of(labels) not in old_versions
            and _label(labels, "model_path") not in old_paths
        ),
    )


def _named(
    snapshots: Iterable[MetricsSnapshot],
) -> tuple[set[tuple[str, str]], set[str]]:
    """Return the versions and the paths that series are about."""
    rows = [
        labels
        for snapshot in snapshots
        for family in (*snapshot.own, *snapshot.registered, *snapshot.serving)
        for labels, _ in family.rows
    ]
    versions = {version for labels in rows if (version := _version_of(labels)) is not None}
    paths = {path for labels in rows if (path := _label(labels, "model_path")) is not None}
    return versions, paths


def _each(
    snapshot: MetricsSnapshot, stays: Callable[[FamilySnapshot, Labels], bool]
) -> MetricsSnapshot:
    """Return a snapshot with the series that are to stay."""

    def kept(families: Families) -> Families:
        return tuple(
            msgspec.structs.replace(
                family, rows=tuple(row for row in family.rows if stays(family, row[0]))
            )
            for family in families
        )

    return MetricsSnapshot(kept(snapshot.own), kept(snapshot.registered), kept(snapshot.serving))


def _version_of(labels: Labels) -> tuple[str, str] | None:
    version = _label(labels, "version")
    return (_model_of(labels) or "", version) if version else None


def _model_of(labels: Labels) -> str | None:
    return next((text for name, text in labels if name in _MODEL), None)


def _label(labels: Labels, wanted: str) -> str | None:
    return next((text for name, text in labels if name == wanted), None)
