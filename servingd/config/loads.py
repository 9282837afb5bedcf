"""Check and convert the settings for placing models and replacing versions."""

from __future__ import annotations

from servingd.core.resources.placement import (
    DEVICES_EXPECTED,
    REPLICAS_EXPECTED,
    TRANSITIONS,
    LoadRules,
    parse_devices,
    parse_replicas,
)
from servingd.errors import InvalidArgument


def are_devices(text: str) -> str | None:
    """Check for `auto`, a kind of device, or names of devices."""
    try:
        parse_devices(text)
    except InvalidArgument:
        return DEVICES_EXPECTED
    return None


def are_replicas(text: str) -> str | None:
    """Check for a number of replicas, or `per_device`."""
    try:
        parse_replicas(text)
    except InvalidArgument:
        return REPLICAS_EXPECTED
    return None


def is_transition(text: str) -> str | None:
    """Check for the name of a transition from one version to the next."""
    return None if text in TRANSITIONS else f"one of {', '.join(TRANSITIONS)}"


def load_rules(device: str, replicas: str, transition: str) -> LoadRules:
    """Return the load rules of three texts that have been checked."""
    return LoadRules(parse_devices(device), parse_replicas(replicas), transition)
