"""The weights of a SavedModel: how many bytes they have, and whether they are whole.

A version that starts on a cached graph does not read them. It answers all the same, but a later
start without that graph would fail. So they are checked afterwards, and damage is reported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from servingd.core.types import ServableId
from servingd.servables.saved_model.files.completeness import (
    INDEX,
    BadIndex,
    UnknownFormat,
    tensor_bytes,
)
from servingd.servables.tensorflow_runtime.runtime import tensorflow

_PREFIX = "variables/variables"

MAX_WEIGHT_BYTES = 256 << 20
"""Bytes of variables above which a graph is not frozen: constants take about 5.5 times that.

See `estimate.py`.
"""

KEPT_BYTES = 16 << 20
"""Bytes from which on a variable stays one, where all together are more than that."""


@dataclass(slots=True, eq=False)
class WeightsCheck:
    """A check of one version's weights; see `GraphOptimiser.check`. From any thread."""

    id: ServableId
    path: str
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

    Reads all of them, one after the other, until `cancelled` returns True.
    """
    if not Path(path, f"{_PREFIX}.index").exists():
        return ""
    tf = tensorflow()
    damaged = (tf.errors.DataLossError, tf.errors.OutOfRangeError, tf.errors.NotFoundError)
    try:
        reader = tf.train.load_checkpoint(str(Path(path, _PREFIX)))
        for name in sorted(reader.get_variable_to_shape_map()):
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
