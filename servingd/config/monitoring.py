"""Where metrics are served: TensorFlow Serving's `MonitoringConfig`."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringConfig:
    """The Prometheus page on the HTTP port."""

    enabled: bool = False
    """Whether there is one at `path`."""

    path: str = DEFAULT_METRICS_PATH
    """Compared as it stands; one without a slash in front gets one."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            object.__setattr__(self, "path", f"/{self.path}")
