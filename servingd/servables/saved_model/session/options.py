"""How a session is opened, and when its runs are over."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from servingd.core.types import CPU_0, Device
from servingd.machine.cpus import cpus
from servingd.machine.memory import ram_budget
from servingd.servables.saved_model.session.run_watch import MadeUpRun, RunWatch

_LEAST_GROWTH = 1 << 30


class RunLimits(NamedTuple):
    """When runs are over for which nobody waits, or that nobody has asked for."""

    watch: RunWatch | None = None
    """Who ends them; None: nobody."""
    cancelled: threading.Event = threading.Event()
    """Set when the version is not wanted any more."""
    made_up_s: float = 10.0
    """A run on made-up inputs may take so long."""
    made_up_bytes: int = 0
    """The process may grow by so much meanwhile; 0: by an eighth of the memory for models."""

    def made_up(self) -> MadeUpRun:
        """Who waits for a run on made-up inputs that begins now."""
        growth = self.made_up_bytes or max(_LEAST_GROWTH, ram_budget() // 8)
        return MadeUpRun(self.made_up_s, growth, self.cancelled)


class SessionOptions(NamedTuple):
    """How a session is opened."""

    threads: int
    """Threads of its own that an operation uses."""
    said: bytes = b""
    """A serialised `tensorflow.ConfigProto` with what an operator says besides."""
    device: Device | None = None
    """Where everything runs that can; None: wherever TensorFlow likes."""
    cpus: int = 0
    """How many CPUs TensorFlow is to see, if that is said."""
    limits: RunLimits = RunLimits()
    """When its runs are over."""
    timed: bool = False
    """Whether TensorFlow itself ends a run when its time is up: on threads of its own."""

    @property
    def has_choice(self) -> bool:
        """Whether an operation could run anywhere but on the device."""
        return self.cpus > 1 or (self.device is not None and not self.device.is_host)

    def config(self) -> Any:
        """The ConfigProto."""
        from tensorflow.core.protobuf import config_pb2

        config = config_pb2.ConfigProto.FromString(self.said)
        config.intra_op_parallelism_threads = self.threads
        between = config.inter_op_parallelism_threads or (RUNS_AT_ONCE if self.timed else 1)
        config.inter_op_parallelism_threads = between
        config.use_per_session_threads = True
        config.allow_soft_placement = True  # strings and tables have no kernels on accelerators
        if self.cpus > 1:
            config.device_count["CPU"] = self.cpus
        if self.device is not None and self.device.is_host:
            config.device_count["GPU"] = 0  # else a session takes memory on each of them
        return config


RUNS_AT_ONCE = max(2, cpus())
"""Threads for the runs of a session whose runs are timed."""

ONE_THREAD = SessionOptions(1, device=CPU_0)
"""On the host: the process's first session on a GPU fixes for all how its memory is used."""
