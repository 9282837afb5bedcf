"""The map of ready versions and labels, and the handles on them.

Readers take one immutable map by reference and one counter; they never wait for a load. A version
that is withdrawn is first removed from the map, and then waits for its own handles only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from servingd.core.call_protocols import KnownStates, SignatureRunner
from servingd.core.lifecycle.labels import Labels, effective_labels
from servingd.core.lifecycle.lookup_errors import lookup_error
from servingd.core.ref_count import RefCount
from servingd.core.servable import Dispatcher, Servable
from servingd.core.types import ModelSpec, ServableId, Signature
from servingd.errors import InvalidArgument
from servingd.runtime.streaming.streams import OpenStreams, VersionStreams


class ServingVersion:
    """A ready version and the count of its handles; it serves as every call's handle itself."""

    __slots__ = ("_users", "enter", "id", "metadata", "release", "runners", "streams")

    def __init__(
        self,
        servable_id: ServableId,
        metadata: Mapping[str, Signature],
        runners: Mapping[str, SignatureRunner],
        streams: VersionStreams,
        on_drained: Callable[[ServableId], None],
    ) -> None:
        self.id = servable_id
        self.metadata = metadata
        self.runners = runners
        self.streams = streams
        self._users = RefCount(lambda: on_drained(servable_id))
        # Take a handle (False once closing has begun: then use the newer map), and give it back.
        # The last release only enqueues an event: nothing is freed on its thread.
        self.enter = self._users.enter
        self.release = self._users.leave

    def close(self) -> None:
        """Grant no more handles; `on_drained` is called once none is left."""
        self._users.close()


@dataclass(frozen=True, slots=True)
class _Model:
    """The ready versions of one model."""

    latest: ServingVersion
    versions: Mapping[int, ServingVersion]


class ServingMap:
    """The map of ready versions and of labels. Every request thread reads it without a lock.

    The commanding thread writes versions; whoever applies a configuration writes labels.
    """

    def __init__(
        self, states: KnownStates, dispatcher: Dispatcher, open_streams: OpenStreams | None = None
    ) -> None:
        self._states = states
        self._dispatcher = dispatcher
        self._open_streams = open_streams or OpenStreams()
        # Replaced whole, by writers that hold the lock; readers take the references.
        self._lock = threading.Lock()
        self._models: Mapping[str, _Model] = {}
        self._labels: Labels = {}
        self._wanted_labels: Labels = {}  # guarded by _lock

    def publish(
        self,
        servable_id: ServableId,
        servable: Servable,
        on_drained: Callable[[ServableId], None],
        runners: Mapping[str, SignatureRunner] | None = None,
    ) -> None:
        """Enter a version into the map, before returning. Opens runners if none are given."""
        if runners is None:
            runners = self._dispatcher.open(servable_id, servable)
        streams = VersionStreams(servable_id, servable, runners, self._open_streams)

        def drained(drained_id: ServableId) -> None:
            streams.close()
            on_drained(drained_id)

        ready = ServingVersion(servable_id, servable.metadata, runners, streams, drained)
        self._replace(
            servable_id.name, {**self._versions(servable_id.name), servable_id.version: ready}
        )

    def withdraw(self, servable_id: ServableId) -> None:
        """Remove a version from the map; `on_drained` follows once its last handle is released."""
        versions = dict(self._versions(servable_id.name))
        ready = versions.pop(servable_id.version)
        self._replace(servable_id.name, versions)
        ready.close()

    def label(self, wanted: Labels) -> None:
        """Replace all labels. One whose version is not ready keeps its old version until it is."""
        with self._lock:
            self._wanted_labels = wanted
            self._move_labels()

    def acquire(self, spec: ModelSpec) -> ServingVersion:
        """Return a handle on the version that `spec` means; see `core.call_protocols.Models`."""
        if spec.version is None and spec.label is None:  # the most frequent case by far
            model = self._models.get(spec.name)
            if model is not None and model.latest.enter():
                return model.latest
        while True:
            resolved = self._resolve(spec)
            ready = self._find(resolved)
            if ready is None:
                break
            if ready.enter():
                return ready
            # It was withdrawn between the look-up and the handle: the map has been replaced.
        raise lookup_error(
            resolved, spec.name in self._states.configured(), self._states.of_model(spec.name)
        )

    def _resolve(self, spec: ModelSpec) -> ModelSpec:
        """Return the spec with its label replaced by a version. Raises InvalidArgument."""
        if not spec.name:
            raise InvalidArgument("ModelSpec has no name specified.")
        if spec.label is None:
            return spec
        version = self._labels.get(spec.name, {}).get(spec.label)
        if version is None:
            raise InvalidArgument(f"Unrecognized servable version label: {spec.label}")
        return spec._replace(version=version, label=None)

    def _find(self, spec: ModelSpec) -> ServingVersion | None:
        model = self._models.get(spec.name)
        if model is None:
            return None
        return model.latest if spec.version is None else model.versions.get(spec.version)

    def _move_labels(self) -> None:
        self._labels = effective_labels(self._wanted_labels, self._labels, self._is_ready)

    def _is_ready(self, name: str, version: int) -> bool:
        return version in self._versions(name)

    def _versions(self, name: str) -> Mapping[int, ServingVersion]:
        model = self._models.get(name)
        return model.versions if model else {}

    def _replace(self, name: str, versions: Mapping[int, ServingVersion]) -> None:
        """Replace a model's ready versions, and move its labels."""
        models = dict(self._models)
        if versions:
            models[name] = _Model(versions[max(versions)], versions)
        else:
            models.pop(name, None)
        with self._lock:
            self._models = models
            if name in self._wanted_labels:
                self._move_labels()
