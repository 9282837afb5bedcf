"""Which requests of a model are logged, and where to: TensorFlow Serving's `LoggingConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from servingd.errors import InvalidConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PerTaskSampling:
    """The rate of one task of a job: TensorFlow Serving's `PerTaskSamplingConfig`."""

    sampling_rate: float
    """From 0 (none) to 1 (all)."""

    dc: str = ""
    """The data centre; empty: any."""

    task_index: int | None = None
    """The task's number; None: any."""

    def __post_init__(self) -> None:
        _check_rate("per_task_sampling_configs.sampling_rate", self.sampling_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """A sample of a model's requests, written to files."""

    type: str = ""
    """Which kind of log."""

    filename_prefix: str = ""
    """What the names of its files begin with, folder included."""

    sampling_rate: float = 0.0
    """From 0 (none) to 1 (all)."""

    attributes: int = 0
    """Bit mask of what else decides: 1 the request's origin, 2 its criticality."""

    per_task: tuple[PerTaskSampling, ...] = ()
    """The first that fits the task that runs here replaces `sampling_rate`."""

    def __post_init__(self) -> None:
        _check_rate("sampling_rate", self.sampling_rate)


def _check_rate(name: str, rate: float) -> None:
    if not 0 <= rate <= 1:  # also for what is no number
        raise InvalidConfig(f"{name}: expected a number from 0 to 1, got {rate}")
