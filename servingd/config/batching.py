"""How calls of one model are merged: TensorFlow Serving's `BatchingParameters`."""

from __future__ import annotations

from dataclasses import dataclass, field

from servingd.errors import InvalidConfig
from servingd.machine.cpus import cpus

DEFAULT_POOL_WITHOUT_FILE = "model_server_batch_threads"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingParameters:
    """Limits of a batch and of its queue; errors have TensorFlow Serving's texts where it has one.

    Sharper than there: `allowed_batch_sizes` must ascend, and `max_execution_batch_size` is
    `max_batch_size` where it is not given, whether or not that is given.
    """

    max_batch_size: int = 1000
    """Rows of the largest request, and without splitting of the largest batch."""

    batch_timeout_micros: int = 0
    """How long a batch that is not full waits for more; 0: it runs as soon as a thread is free."""

    max_enqueued_batches: int = 10
    """How many batches may wait; 0 becomes 1 unless requests are split."""

    num_batch_threads: int = field(default_factory=cpus)
    """Threads that run batches, shared by all models; one per CPU core."""

    thread_pool_name: str = "batch_threads"
    """The name of these threads."""

    enable_large_batch_splitting: bool = False
    """A request may be split over several batches."""

    max_execution_batch_size: int = 0
    """Rows of the largest batch with splitting; 0: `max_batch_size`."""

    allowed_batch_sizes: tuple[int, ...] = ()
    """Sizes that batches are padded to, ascending, the last the largest; empty: any."""

    pad_variable_length_inputs: bool = False
    """Requests of different shapes may share a batch, padded."""

    def __post_init__(self) -> None:
        split = self.enable_large_batch_splitting
        if self.max_enqueued_batches == 0 and not split:
            object.__setattr__(self, "max_enqueued_batches", 1)
        if self.max_execution_batch_size == 0 or not split:
            object.__setattr__(self, "max_execution_batch_size", self.max_batch_size)
        for name, value in (
            ("num_batch_threads", self.num_batch_threads),
            ("input_batch_size_limit", self.max_batch_size),
            ("max_execution_batch_size", self.max_execution_batch_size),
            ("max_enqueued_batches", self.max_enqueued_batches),
        ):
            if value <= 0:
                raise InvalidConfig(f"{name} must be positive; was {value}")
        if self.batch_timeout_micros < 0:
            raise InvalidConfig(
                f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}"
            )
        if self.max_execution_batch_size > self.max_batch_size:
            raise InvalidConfig(
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater "
                "than or equal to max_execution_batch_size."
                f" input_batch_size_limit: {self.max_batch_size},"
                f" max_execution_batch_size: {self.max_execution_batch_size}"
            )
        self._check_allowed()

    def _check_allowed(self) -> None:
        sizes = self.allowed_batch_sizes
        if not sizes:
            return
        if sizes[-1] != self.max_batch_size:
            raise InvalidConfig(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{sizes[-1]}; expected {self.max_batch_size}"
            )
        if sizes[0] <= 0 or list(sizes) != sorted(set(sizes)):
            raise InvalidConfig(
                f"allowed_batch_sizes: expected positive numbers, ascending, got {list(sizes)}"
            )
