"""The weights of a SavedModel: how many bytes they have, and whether they are whole.

A version that starts on a cached graph does not read them. It answers all the same, but a later
start without that graph would fail. So they are checked afterwards, and damage is reported.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c

from servingd.core.types import DataType, ServableId
from servingd.servables.saved_model.files.completeness import (
    INDEX,
    BadIndex,
    UnknownFormat,
    tensor_bytes,
    tensors_of_shards,
)
from servingd.servables.tensorflow_runtime.runtime import tensorflow
from servingd.wire.records.tf_records import masked

if TYPE_CHECKING:
    from servingd.wire.protos import BundleEntry

_PREFIX = "variables/variables"
_NOT_AS_IN_MEMORY = (DataType.STRING, DataType.RESOURCE, DataType.VARIANT)
"""Types whose checksums in the index are not those of the bytes in the shard alone."""

MAX_WEIGHT_BYTES = 256 << 20
"""Bytes of variables above which a graph is not frozen: constants take about 5.5 times that.

See `estimate.py`.
"""

_LARGE_BYTES = 1 << 20
"""Bytes from which on a variable is checked in pieces."""
_PIECE = 256 << 10
"""Bytes that are read at a time: the interpreter is held while they are looked at."""

KEPT_BYTES = 16 << 20
"""Bytes from which on a variable stays one, where all together are more than that."""


@dataclass(slots=True, eq=False)
class WeightsCheck:
    """A check of one version's weights; see `GraphOptimiser.check`. From any thread."""

    id: ServableId
    path: str
    kept: Path | None = None
    """The folder of the cached graph that it serves."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cancelled: bool = False  # guarded by _lock

    def cancel(self) -> None:
        """Drop the check: nothing is reported afterwards. Waits for a report that has begun."""
        with self._lock:
            self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether the check was dropped."""
        return self._cancelled

    def report(self, call: Callable[[], None]) -> None:
        """Call `call`, which must be short, unless the check was dropped."""
        with self._lock:
            if not self._cancelled:
                call()


def find_damage(path: str, cancelled: Callable[[], bool]) -> str:
    """Return what is wrong with the variables under `path` by their checksums; empty: nothing.

    Reads all of them, one after the other, until `cancelled` returns True. Large ones are never in
    memory as a whole: TensorFlow would keep as much for good.
    """
    if not Path(path, f"{_PREFIX}.index").exists():
        return ""
    shards, large = _large_tensors(path)
    for name, entry in large.items():
        if cancelled():
            return ""
        if damage := _damage_of(path, name, entry, shards):
            return damage
    tf = tensorflow()
    damaged = (tf.errors.DataLossError, tf.errors.OutOfRangeError, tf.errors.NotFoundError)
    try:
        reader = tf.train.load_checkpoint(str(Path(path, _PREFIX)))
        for name in sorted(reader.get_variable_to_shape_map().keys() - large.keys()):
            if cancelled():
                return ""
            reader.get_tensor(name)
    except damaged as error:
        return str(error.message).splitlines()[0]
    except (RuntimeError, IndexError) as error:  # the reader's own, without TensorFlow's type
        return str(error).splitlines()[0]
    except tf.errors.OpError as error:  # a type that is not read in this way says nothing
        return str(error.message).splitlines()[0] if "hecksum" in str(error.message) else ""
    return ""


def _large_tensors(path: str) -> tuple[int, dict[str, BundleEntry]]:
    """Return the number of shards, and the large tensors whose checksum is that of their bytes."""
    try:
        shards, found = tensors_of_shards(Path(path, INDEX).read_bytes())
    except (OSError, BadIndex, UnknownFormat):
        return 0, {}
    large = {
        name: entry
        for name, entry in found.items()
        if entry.size >= _LARGE_BYTES and entry.dtype not in _NOT_AS_IN_MEMORY and not entry.slices
    }
    return shards, large


def _damage_of(path: str, name: str, entry: BundleEntry, shards: int) -> str:
    """Return what is wrong with a tensor, read in pieces; empty: nothing."""
    shard, crc, offset = Path(path, f"{_PREFIX}.data-{entry.shard_id:05d}-of-{shards:05d}"), 0, 0
    try:
        file = os.open(shard, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while offset < entry.size:
                size = min(_PIECE, entry.size - offset)
                piece = os.pread(file, size, entry.offset + offset)
                if not piece:
                    return f"{name}: {shard.name} ends too early"
                crc, offset = google_crc32c.extend(crc, piece), offset + len(piece)
        finally:
            os.close(file)
    except OSError as error:
        return f"{name}: {error}"
    return "" if masked(crc) == entry.crc32c else f"{name}: the checksum does not match"


def weight_bytes(path: str) -> int:
    """Return the bytes of the variables of the SavedModel under `path`, as they lie on disk."""
    return sum(f.stat().st_size for f in Path(path, "variables").glob("variables.data-*"))


def kept_bytes(path: str) -> int:
    """Return the bytes of variables that stay variables when the version is optimised.

    There are none where all can be frozen, or where the index is not understood.
    """
    if weight_bytes(path) <= MAX_WEIGHT_BYTES:
        return 0
    try:
        sizes = tensor_bytes(Path(path, INDEX).read_bytes())
    except (OSError, BadIndex, UnknownFormat):
        return 0
    return sum(size for size in sizes if size >= KEPT_BYTES)
