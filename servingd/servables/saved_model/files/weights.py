"""The weights of a SavedModel: how many bytes they have, and whether they are whole.

A version that starts on a cached graph does not read them. It answers all the same, but its next
start without that graph would fail, and nobody knew: so they are checked afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from servingd.core.types import ServableId
from servingd.servables.tensorflow.runtime import tensorflow

_PREFIX = "variables/variables"

MAX_WEIGHTS = 256 << 20
"""Larger models keep their variables: constants take about seven times their size."""


@dataclass(slots=True, eq=False)
class WeightsCheck:
    """That a version's weights are to be looked at, once."""

    id: ServableId
    path: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False  # guarded by _lock

    def cancel(self) -> None:
        """Nothing is told of it any more."""
        with self._lock:
            self._over = True

    @property
    def over(self) -> bool:
        """Whether nobody wants to know."""
        return self._over

    def tell(self, told: Callable[[], None]) -> None:
        """Call something short, unless it was cancelled; `cancel` waits meanwhile."""
        with self._lock:
            if not self._over:
                told()


def damage(path: str, over: Callable[[], bool] = lambda: False) -> str:
    """What is wrong with the variables under `path`, by TensorFlow's checksums; empty: nothing.

    Reads all of them, one after the other, until `over` says that nobody wants to know.
    """
    if not Path(path, f"{_PREFIX}.index").exists():
        return ""
    tf = tensorflow()
    damaged = (tf.errors.DataLossError, tf.errors.OutOfRangeError, tf.errors.NotFoundError)
    try:
        reader = tf.train.load_checkpoint(str(Path(path, _PREFIX)))
        for name in sorted(reader.get_variable_to_shape_map()):
            if over():
                return ""
            reader.get_tensor(name)
    except damaged as error:
        return str(error.message).splitlines()[0]
    except (RuntimeError, IndexError) as error:  # the reader's own, without TensorFlow's type
        return str(error).splitlines()[0]
    except tf.errors.OpError as error:  # a type that is not read in this way says nothing
        return str(error.message).splitlines()[0] if "hecksum" in str(error.message) else ""
    return ""


def weights_of(path: str) -> int:
    """The bytes of the variables of the SavedModel under `path`."""
    return sum(f.stat().st_size for f in Path(path, "variables").glob("variables.data-*"))
