"""How calls of one model are merged: TensorFlow Serving's `BatchingParameters`."""

from __future__ import annotations

from dataclasses import dataclass, field

from servingd.errors import InvalidConfig
from servingd.machine.cpus import cpus

DEFAULT_POOL_WITHOUT_FILE = "model_server_batch_threads"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingParameters:
    """Limits of a batch and of its queue; errors have TensorFlow Serving's texts where it has one.

    Stricter than TensorFlow Serving: `allowed_batch_sizes` must ascend. `max_execution_batch_size`
    is `max_batch_size` where it is not set, even if that is not set either.
    """

    max_batch_size: int = 1000
    """Rows of the largest request, and of the largest batch if requests are not split."""

    batch_timeout_micros: int = 0
    """Microseconds that an unfilled batch waits for more calls; 0: until a thread is idle."""

    max_enqueued_batches: int = 10
    """The most batches that may wait; 0 becomes 1 unless requests are split."""

    num_batch_threads: int = field(default_factory=cpus)
    """The number of threads that run batches; by default one per CPU core."""

    thread_pool_name: str = "batch_threads"
    """The name of these threads."""

    enable_large_batch_splitting: bool = False
    """Whether a request may be split over several batches."""

    max_execution_batch_size: int = 0
    """Rows of the largest batch with splitting; 0: `max_batch_size`."""

    allowed_batch_sizes: tuple[int, ...] = ()
    """The rows that batches are padded to, ascending; the last one is the largest. Empty: any."""

    pad_variable_length_inputs: bool = False
    """Whether requests of different shapes may share a batch, padded."""

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
