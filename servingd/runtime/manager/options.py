"""Turn a server's configuration into the manager's state and rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from servingd.config.loads import load_rules
from servingd.config.models import ModelConfig
from servingd.config.server import ServerConfig
from servingd.core.lifecycle.policies import availability_preserving
from servingd.core.lifecycle.reconcile import ManagerState
from servingd.core.resources.placement import LoadRules
from servingd.core.resources.tracker import ResourceTracker
from servingd.machine.memory import ram_budget

_MB = 1 << 20


def manager_state(config: ServerConfig) -> ManagerState:
    """Return an empty state, with the configured memory budget, else the machine's."""
    return ManagerState(
        availability_preserving,
        config.max_num_load_retries,
        ResourceTracker(config.ram_budget_mb * _MB or ram_budget()),
        config.load_retry_interval_micros / 1e6,
    )


def rules_of(config: ServerConfig, models: Iterable[ModelConfig]) -> Mapping[str, LoadRules]:
    """Return each model's load rules: its own settings, else the server's."""
    return {
        model.name: load_rules(
            model.device or config.device,
            model.replicas or config.replicas,
            model.transition or config.transition,
        )
        for model in models
    }
