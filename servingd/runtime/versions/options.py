"""The options of loads, from a server's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from servingd.config.server import ServerConfig
from servingd.core.callbacks import nothing
from servingd.core.servable import Servable
from servingd.core.types import CPU_0, Device, ServableId, VersionData
from servingd.runtime.versions.memory_meter import MemoryMeter

_MB = 1 << 20


class WarmUpVersion(Protocol):
    """Who warms a version up before it is published."""

    def __call__(self, servable_id: ServableId, data: VersionData, servable: Servable, /) -> None:
        """Run requests on the servable, on the load's thread; an exception fails the load."""
        ...


def _host_alone() -> Mapping[Device, int]:
    return {CPU_0: 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The threads, limits and callbacks of loads."""

    num_load_threads: int = 2
    """The most loads at a time."""

    num_unload_threads: int = 1
    """The most unloads at a time."""

    warm_up: WarmUpVersion = nothing

    devices: Callable[[], Mapping[Device, int]] = _host_alone
    """Returns the devices that exist, each with the bytes of its own memory that may be used (0: no
    limit). Called on the load pool, before each load that is placed on devices.
    """

    load_timeout_s: float = 0.0
    """Seconds after which an estimate or a load is given up with its thread; 0: never."""

    may_hang: Callable[[str], bool] = lambda platform: False
    """Says of a servable type whether its loads may hang: other versions wait for such a load no
    longer than `PATIENCE_S`.
    """

    meter: MemoryMeter | None = None
    """Measures what loads take; None: only estimates are used."""


class Devices(Protocol):
    """The devices that models can be placed on."""

    def usable(self) -> Mapping[Device, int]:
        """Return the usable bytes of each device's own memory; 0: it has none. May block."""
        ...

    def in_use(self) -> Mapping[Device, int]:
        """Return the bytes in use on each device with its own memory, where they are known."""
        ...


def load_options(
    config: ServerConfig,
    warm_up: WarmUpVersion,
    devices: Devices,
    may_hang: Callable[[str], bool],
) -> LoadOptions:
    """Return the options for loads."""
    return LoadOptions(
        num_load_threads=config.num_load_threads or 2,
        num_unload_threads=config.num_unload_threads or 1,
        warm_up=warm_up,
        load_timeout_s=config.load_timeout_s,
        devices=lambda: within_budget(config, devices.usable()),
        may_hang=may_hang,
        meter=MemoryMeter(devices.in_use),
    )


def within_budget(config: ServerConfig, devices: Mapping[Device, int]) -> Mapping[Device, int]:
    """Return the bytes that models may take on each device; 0: no limit."""
    budget = config.device_memory_budget_mb * _MB
    return {
        device: min(usable, budget) if usable and budget else usable or budget
        for device, usable in devices.items()
    }
