"""Metrics of the process itself, by the names that dashboards know, and of what is running."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from servingd import __version__


def show_process(registry: CollectorRegistry) -> None:
    """Add `process_*` (CPU, memory, open files, start time) and `servingd_build_info`."""
    ProcessCollector(registry=registry)
    info = Gauge(
        "servingd_build_info",
        "Always 1; its labels say what is running.",
        ("version", "python"),
        registry=registry,
    )
    info.labels(__version__, platform.python_version()).set(1)
