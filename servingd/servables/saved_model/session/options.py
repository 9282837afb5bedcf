"""How a session is opened, and the limits of its runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from servingd.core.types import CPU_0, Device
from servingd.machine.cpus import cpus
from servingd.machine.memory import ram_budget
from servingd.servables.saved_model.session.run_watch import RunWatch, SyntheticRun

_MIN_GROWTH_BYTES = 1 << 30
"""Bytes that a run on synthetic inputs may always take, however little memory models have."""


class RunLimits(NamedTuple):
    """When to end runs that nobody waits for, and runs that no client asked for."""

    watch: RunWatch | None = None
    """Ends the runs; None: nobody does."""
    cancelled: threading.Event = threading.Event()
    """Set when the version is unloaded, or its load is cancelled: every run is then ended."""
    max_synthetic_s: float = 10.0
    """Seconds that a run on synthetic inputs may take; one that takes longer may never end."""
    max_synthetic_growth_bytes: int = 0
    """Bytes that the process may grow by meanwhile; 0: an eighth of the memory for models."""

    new_runs: Callable[[], dict[int, Any]] = dict
    """Makes the record of the runs under way in one session, by thread."""

    def synthetic_run(self) -> SyntheticRun:
        """Return the owner of a run on synthetic inputs that begins now."""
        growth = self.max_synthetic_growth_bytes or max(_MIN_GROWTH_BYTES, ram_budget() // 8)
        return SyntheticRun(self.max_synthetic_s, growth, self.cancelled)


class SessionOptions(NamedTuple):
    """How a session is opened."""

    threads: int
    """Intra-op threads of the session's own."""
    configured: bytes = b""
    """A serialised `tensorflow.ConfigProto` from the operator: what is not set here is taken."""
    device: Device | None = None
    """Where every operation with a kernel for it runs; None: wherever TensorFlow likes."""
    cpus: int = 0
    """Virtual CPU devices that TensorFlow makes; 0: one."""
    limits: RunLimits = RunLimits()
    """When its runs are ended."""
    timed: bool = False
    """Whether TensorFlow itself ends a run at its deadline: on threads of the session's own."""

    @property
    def has_choice(self) -> bool:
        """Whether an operation could run anywhere but on `device`."""
        return self.cpus > 1 or (self.device is not None and not self.device.is_host)

    def config(self) -> Any:
        """Return the `tensorflow.ConfigProto`."""
        from tensorflow.core.protobuf import config_pb2

        config = config_pb2.ConfigProto.FromString(self.configured)
        config.intra_op_parallelism_threads = self.threads
        between = config.inter_op_parallelism_threads or (TIMED_THREADS if self.timed else 1)
        config.inter_op_parallelism_threads = between
        config.use_per_session_threads = True
        config.allow_soft_placement = True  # strings and tables have no kernels on accelerators
        if self.cpus > 1:
            config.device_count["CPU"] = self.cpus
        if self.device is not None and self.device.is_host:
            config.device_count["GPU"] = 0  # else a session takes memory on each of them
        return config


TIMED_THREADS = max(2, cpus())
"""Inter-op threads of a session whose runs are timed: each run occupies one."""

ONE_THREAD = SessionOptions(1, device=CPU_0)
"""On the host: the process's first session on a GPU fixes for all how its memory is used."""
