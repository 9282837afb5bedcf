"""The request log of a model: TensorFlow Serving's `LoggingConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from servingd.errors import InvalidConfig

TYPES = ("", "tfrecord")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerTaskSampling:
    """The rate of one task of a job: TensorFlow Serving's `PerTaskSamplingConfig`."""

    sampling_rate: float
    """The sampling rate, from 0 (no requests) to 1 (all)."""

    dc: str = ""
    """The data centre; empty: any."""

    task_index: int | None = None
    """The task's number; None: any."""

    def __post_init__(self) -> None:
        _check_rate("sampling_config.per_task_sampling_configs.sampling_rate", self.sampling_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """A sample of a model's requests, written to files."""

    type: str = ""
    """The kind of log: `tfrecord`; empty means the same."""

    filename_prefix: str = ""
    """The prefix of its files' names, folder included; absolute."""

    sampling_rate: float = 0.0
    """The sampling rate, from 0 (no requests) to 1 (all)."""

    attributes: int = 0
    """A bit mask of further sampling criteria: 1 the request's origin, 2 its criticality."""

    per_task: tuple[PerTaskSampling, ...] = ()
    """Rates by task; the first that matches this task replaces `sampling_rate`."""

    def __post_init__(self) -> None:
        _check_rate("sampling_config.sampling_rate", self.sampling_rate)
        if self.type not in TYPES:
            raise InvalidConfig(
                f"log_collector_config.type: expected tfrecord or nothing, got {self.type!r}"
            )
        prefix = self.filename_prefix
        if prefix and (not prefix.startswith("/") or "\0" in prefix):
            raise InvalidConfig(
                f"log_collector_config.filename_prefix: expected an absolute path, got {prefix!r}"
            )
        rates = [self.sampling_rate, *(task.sampling_rate for task in self.per_task)]
        if not prefix and max(rates) > 0:
            raise InvalidConfig(
                "log_collector_config.filename_prefix: expected an absolute path, since requests "
                "are sampled; got nothing"
            )

    def rate(self, dc: str = "", task_index: int | None = None) -> float:
        """Return the sampling rate of the task that runs here."""
        for task in self.per_task:
            if task.dc in ("", dc) and task.task_index in (None, task_index):
                return task.sampling_rate
        return self.sampling_rate


def _check_rate(name: str, rate: float) -> None:
    if not 0 <= rate <= 1:  # also true of NaN
        raise InvalidConfig(f"{name}: expected a number from 0 to 1, got {rate}")
