"""What is said of where models are loaded, and how one version takes another's place."""

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
    """`auto`, a kind of device, or names of devices."""
    try:
        parse_devices(text)
    except InvalidArgument:
        return DEVICES_EXPECTED
    return None


def are_replicas(text: str) -> str | None:
    """A number of replicas, or `per_device`."""
    try:
        parse_replicas(text)
    except InvalidArgument:
        return REPLICAS_EXPECTED
    return None


def is_transition(text: str) -> str | None:
    """How one version takes another's place."""
    return None if text in TRANSITIONS else f"one of {', '.join(TRANSITIONS)}"


def load_rules(device: str, replicas: str, transition: str) -> LoadRules:
    """Three texts that have been checked, as the core wants them."""
    return LoadRules(parse_devices(device), parse_replicas(replicas), transition)
