"""How SavedModels are loaded and run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

from servingd.config.batching import BatchingParameters
from servingd.errors import InvalidConfig

OPTIMIZE_MODELS = ("off", "background", "wait")
MAP_LARGE_WEIGHTS = ("off", "auto")

MAP_FROM_BYTES = 16 << 20
"""A variable of this size takes 90 MB as a constant, and a call that gathers from it 1 us less."""

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Extensions(NamedTuple):
    """Libraries and modules that register operations. Set by flags only, since they run code."""

    op_libraries: tuple[str, ...] = ()
    """Files with operations, for `tf.load_op_library`."""
    python_imports: tuple[str, ...] = ()
    """Modules that register operations when they are imported."""


NO_EXTENSIONS = Extensions()


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModelOptions:
    """Options of the platform `tensorflow`."""

    tags: tuple[str, ...] = ("serve",)
    """The tags of the meta graph to serve; it must have exactly these."""

    optimize_models: str = "background"
    """`off`, `background` (serve plain, swap when proven) or `wait` (AVAILABLE only after that)."""

    cache_dir: str = ""
    """The folder of optimised graphs; empty: they are not cached."""

    map_from_bytes: int = MAP_FROM_BYTES
    """Bytes from which on a variable that is gathered from is mapped from a file; 0: none is."""

    intra_op_threads: int = 0
    """Threads within an operation; 0: one, or one per core where that is faster."""

    inter_op_threads: int = 0
    """Threads between operations; 0: chosen by the loader."""

    gpu_memory_fraction: float = 0.0
    """Share of a GPU's memory to take; 0: TensorFlow's choice."""

    session_config: bytes = b""
    """A serialised `tensorflow.ConfigProto` with these three and all other session settings."""

    virtual_cpu_devices: int = 0
    """The number of CPUs that sessions see; 0: one."""

    enable_model_warmup: bool = True
    """Whether a version's recorded requests are replayed before it serves."""

    warmup_iterations: int = 1
    """How often each recorded request is replayed."""

    warmup_threads: int = 1
    """The number of threads that replay them."""

    prefer_tflite_model: bool = False
    """Whether a version's `model.tflite` is served if it has one."""

    num_tflite_pools: int = 0
    """Pools of TF Lite interpreters; 0: one per core."""

    num_tflite_interpreters_per_pool: int = 1
    """Interpreters in each pool."""

    merge_waiting_calls: bool = True
    """Whether waiting calls are merged where that is known to be correct."""

    batching: BatchingParameters | None = None
    """The batching parameters of all models; None: there are none."""

    enable_per_model_batching: bool = False
    """Whether a version's `batching_params.pbtxt` replaces `batching`; without one: no batching."""

    extensions: Extensions = NO_EXTENSIONS
    """Operations that are not part of TensorFlow."""

    def __post_init__(self) -> None:
        if self.optimize_models not in OPTIMIZE_MODELS:
            raise InvalidConfig(
                f"optimize_models: expected one of {', '.join(OPTIMIZE_MODELS)}, "
                f"got {self.optimize_models!r}"
            )
        for name, least in (
            ("gpu_memory_fraction", 0),
            ("map_from_bytes", 0),
            ("warmup_iterations", 1),
            ("warmup_threads", 1),
            ("num_tflite_pools", 0),
            ("num_tflite_interpreters_per_pool", 1),
        ):
            if getattr(self, name) < least:
                raise InvalidConfig(f"{name}: expected {least} or more, got {getattr(self, name)}")


def extensions(op_libraries: str, python_imports: str) -> Extensions:
    """Return the extensions in two comma-separated texts."""
    return Extensions(_parts(op_libraries), _parts(python_imports))


def are_libraries(text: str) -> str | None:
    """Check for paths of existing files, with commas."""
    for path in _parts(text):
        if not os.path.isfile(path):
            return f"files, with commas ({path} is none)"
    return None


def are_modules(text: str) -> str | None:
    """Check for names of modules, with commas."""
    for name in _parts(text):
        if not _MODULE.fullmatch(name):
            return f"names of modules, with commas ({name!r} is none)"
    return None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in (each.strip() for each in text.split(",")) if part)
