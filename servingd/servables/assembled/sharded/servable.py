"""The platform `sharded`, its loader and its servable; see `layout.py` for the file."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from servingd.core.batching.queue import Priority
from servingd.core.call_protocols import Completion, ServableHandle
from servingd.core.types import (
    ANYWHERE,
    DataType,
    ModelSpec,
    Placement,
    ServableId,
    Signature,
    Tensors,
    TensorSpec,
    VersionData,
)
from servingd.core.version_files import Listing
from servingd.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidConfig,
    NotFound,
    ServingError,
    Unavailable,
)
from servingd.servables.assembled.parts import Parts, bound, release
from servingd.servables.assembled.sharded.call import ANSWERED, ShardedCall
from servingd.servables.assembled.sharded.layout import FILE, Layout, Replica, parse
from servingd.servables.files.file_errors import error_of_file
from servingd.servables.plugin import Loader, Platform, Servable

_LOOK_S = 0.5
_METADATA_S = 5.0
_AVOIDED_S = 1.0
"""Seconds for which a replica that has failed is asked last."""


class ShardedPlatform(Platform):
    """Makes loaders for sharded servables."""

    name = "sharded"
    files = (FILE,)
    trusted = True

    def __init__(self, parts: Parts | None = None) -> None:
        self._parts = parts or Parts()

    def missing(self, listing: Listing) -> str | None:
        """Return what is wrong with the file: a layout that is whole has nothing."""
        absent = super().missing(listing)
        if absent:
            return absent
        try:
            parse(listing.read(FILE))
        except InvalidConfig as error:
            return error.message
        return None

    def loader(self, servable_id: ServableId, data: VersionData) -> ShardedLoader:
        """Return a loader for one version. Raises InvalidArgument for options."""
        self.read_options(data.options)
        return ShardedLoader(servable_id, data.path, self._parts)


class ShardedLoader(Loader):
    """Loads one: it waits for the shards of this server, and asks one replica what it answers."""

    def __init__(self, servable_id: ServableId, path: str, parts: Parts) -> None:
        self._id = servable_id
        self._file = Path(path, FILE)
        self._parts = parts
        self._cancelled = threading.Event()

    def load(self, placement: Placement = ANYWHERE) -> Any:
        """Return the servable. Raises NotFound, InvalidConfig, FailedPrecondition or Cancelled."""
        try:
            layout = parse(self._file.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"there is no {self._file}") from None
        except OSError as error:
            raise error_of_file(error) from error
        here = local_specs(layout)
        if any(spec.name == self._id.name for spec in here):
            raise FailedPrecondition(f"{self._id.name} has itself as a shard")
        handles = self._parts.wait(self._id.name, here, self._cancelled)
        try:
            signature = self._signature(layout, handles)
        finally:
            release(handles.values())
        self._parts.needs[self._id] = needed(layout)
        return Sharded(self._id, layout, signature, self._parts)

    def cancel(self) -> None:
        """End the wait for the shards."""
        self._cancelled.set()

    def _signature(self, layout: Layout, handles: Mapping[ModelSpec, ServableHandle]) -> Signature:
        """Return the shards' signature; that of the first replica that says one."""
        replicas = list(itertools.chain.from_iterable(layout.shards))
        while True:
            for replica in replicas:
                try:
                    return _checked(layout, replica, self._signature_of(replica, handles))
                except (Unavailable, NotFound, DeadlineExceeded):  # the last: nobody is there
                    continue
            if self._cancelled.wait(_LOOK_S):
                raise Cancelled("Loading of servable cancelled")

    def _signature_of(
        self, replica: Replica, handles: Mapping[ModelSpec, ServableHandle]
    ) -> Signature:
        name = replica.spec.signature_name
        if replica.server:
            if self._parts.remote is None:
                raise FailedPrecondition("other servers cannot be called from here")
            return self._parts.remote.signature(replica.server, replica.spec, _METADATA_S)
        runner = handles[replica.spec._replace(signature_name="")].runners.get(name)
        if runner is None:
            raise FailedPrecondition(f"{replica} has no signature {name}")
        return runner.signature


def needed(layout: Layout) -> frozenset[str]:
    """Return the models of this server without which a call fails: those nobody stands in for."""
    alone = (shard[0] for shard in layout.shards if len(shard) == 1)
    return frozenset(replica.spec.name for replica in alone if layout.fails and not replica.server)


def local_specs(layout: Layout) -> tuple[ModelSpec, ...]:
    """Return the models of this server that have shards, each once."""
    found = (r.spec for r in itertools.chain.from_iterable(layout.shards) if not r.server)
    return tuple(dict.fromkeys(spec._replace(signature_name="") for spec in found))


def _checked(layout: Layout, replica: Replica, found: Signature) -> Signature:
    """Return the servable's signature, from a shard's. Raises FailedPrecondition."""
    key = found.inputs.get(layout.key)
    if key is None:
        raise FailedPrecondition(
            f"{replica} has the inputs {', '.join(sorted(found.inputs))}, not {layout.key}"
        )
    texts = (
        layout.bounds is not None and bool(layout.bounds) and isinstance(layout.bounds[0], bytes)
    )
    numbers = layout.bounds is not None and bool(layout.bounds) and not texts
    is_text = key.data_type is DataType.STRING
    if (texts and not is_text) or (numbers and is_text):
        raise FailedPrecondition(
            f"key {layout.key} of {replica} is {key.data_type.name}: the bounds of the ranges are "
            f"{'texts' if texts else 'numbers'}"
        )
    outputs = dict(found.outputs)
    if not layout.fails:
        outputs[ANSWERED] = TensorSpec(DataType.BOOL, key.shape, f"{ANSWERED}:0")
    return dataclasses.replace(
        found, name="serving_default", outputs=outputs, definition=b"", defaults={}
    )


class Sharded(Servable):
    """A servable whose rows are answered by others. A call has one version of each local shard."""

    def __init__(
        self, servable_id: ServableId, layout: Layout, signature: Signature, parts: Parts
    ) -> None:
        self._id = servable_id
        self.signatures: Mapping[str, Signature] = {signature.name: signature}
        self._layout = layout
        self._parts = parts
        self._specs = local_specs(layout)
        self._turn = itertools.count()
        self._failed_at: dict[Replica, float] = {}  # one entry is replaced at a time

    def close(self) -> None:
        """Need no models any more."""
        self._parts.needs.pop(self._id, None)

    def why_not_merged(self, signature: str) -> str:
        """Return why: shards merge the calls that they get."""
        return "its shards merge the calls that they get"

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Begin a call; it is completed by the last shard. Raises InvalidArgument."""
        held = self._acquire()
        try:
            call = ShardedCall(
                self._layout, signature, inputs, done, lambda: release(held.values())
            )
        except BaseException:
            release(held.values())
            raise
        call.start(
            lambda replica, rows, taker: self._ask(held, replica, rows, taker),
            self._order,
        )

    def _acquire(self) -> dict[ModelSpec, ServableHandle]:
        """Return handles on the local shards that are available."""
        held: dict[ModelSpec, ServableHandle] = {}
        for spec in self._specs:
            try:
                held |= self._parts.acquire((spec,))
            except ServingError:  # whoever asks that replica is told
                continue
        return held

    def _ask(
        self,
        held: Mapping[ModelSpec, ServableHandle],
        replica: Replica,
        inputs: Tensors,
        taker: Completion,
    ) -> None:
        """Begin a call of a replica."""
        watched = _Watched(taker, lambda: self._failed_at.update({replica: time.monotonic()}))
        if replica.server:
            assert self._parts.remote is not None  # checked by the load
            self._parts.remote.run(replica.server, replica.spec, inputs, watched)
            return
        handle = held.get(replica.spec._replace(signature_name=""))
        runner = handle.runners.get(replica.spec.signature_name) if handle else None
        if runner is None:
            raise Unavailable(f"{replica} is not available")
        runner.run(bound(runner.signature, inputs), watched)

    def _order(self, shard: int) -> Sequence[Replica]:
        """Return a shard's replicas: by turns, and those that have just failed last."""
        replicas = self._layout.shards[shard]
        if len(replicas) == 1:
            return replicas
        first = next(self._turn) % len(replicas)
        turned = (*replicas[first:], *replicas[:first])
        since = time.monotonic() - _AVOIDED_S
        return sorted(turned, key=lambda replica: self._failed_at.get(replica, 0.0) > since)


class _Watched(Completion):
    """A completion that notes failures which are the replica's."""

    def __init__(self, taker: Completion, note: Callable[[], None]) -> None:
        self.deadline = taker.deadline
        self._taker = taker
        self._note = note

    def alive(self) -> bool:
        return self._taker.alive()

    def priority(self) -> Priority:
        return self._taker.priority()

    def succeed(self, outputs: Tensors) -> None:
        self._taker.succeed(outputs)

    def fail(self, error: ServingError) -> None:
        if isinstance(error, Unavailable):
            self._note()
        self._taker.fail(error)
