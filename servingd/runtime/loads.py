"""What a configuration says of loads, as the manager wants to hear it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from servingd.config.loads import load_rules
from servingd.config.models import ModelConfig
from servingd.config.server import ServerConfig
from servingd.core.placement import LoadRules
from servingd.core.policies import availability_preserving
from servingd.core.reconcile import ManagerState
from servingd.core.resources import Ledger
from servingd.core.types import Device
from servingd.runtime.manager import ManagerOptions, WarmUpCall
from servingd.runtime.memory import MemoryMeter, ram_budget

_MB = 1 << 20


def manager_state(config: ServerConfig) -> ManagerState:
    """An empty state, with the budget that was set or that the machine has."""
    ledger = Ledger(config.ram_budget_mb * _MB or ram_budget())
    return ManagerState(availability_preserving, config.max_num_load_retries, ledger)


def manager_options(config: ServerConfig, warm_up: WarmUpCall) -> ManagerOptions:
    """How loads are run."""
    return ManagerOptions(
        num_load_threads=config.num_load_threads or 2,
        num_unload_threads=config.num_unload_threads or 1,
        load_retry_interval_s=config.load_retry_interval_micros / 1e6,
        warm_up=warm_up,
        devices=lambda: cpu_devices(config),
        meter=MemoryMeter(),
    )


def rules_of(config: ServerConfig, models: Iterable[ModelConfig]) -> Mapping[str, LoadRules]:
    """Each model's rules: its own, or else those of all."""
    return {
        model.name: load_rules(
            model.device or config.device,
            model.replicas or config.replicas,
            model.transition or config.transition,
        )
        for model in models
    }


def cpu_devices(config: ServerConfig) -> Mapping[Device, int]:
    """The CPUs that there are to choose from, each with its limit; 0: the host's memory is it."""
    limit = config.device_memory_budget_mb * _MB
    return {Device("CPU", index): limit for index in range(max(1, config.virtual_cpu_devices))}
