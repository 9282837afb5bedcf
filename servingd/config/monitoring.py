"""Where metrics are served: TensorFlow Serving's `MonitoringConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from servingd.errors import InvalidConfig

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringConfig:
    """The Prometheus page on the HTTP port."""

    enabled: bool = False
    """Whether there is one at `path`."""

    path: str = DEFAULT_METRICS_PATH
    """Compared as it stands."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise InvalidConfig(
                f"prometheus_config.path: expected a path that begins with /, got {self.path!r}"
            )
