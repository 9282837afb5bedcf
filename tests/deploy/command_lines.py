"""What a command line of servingd means."""

from __future__ import annotations

from collections.abc import Sequence

from servingd.config.flags.parser import parse_flags
from servingd.config.server import ServerConfig


def configuration(arguments: Sequence[str]) -> ServerConfig:
    """The configuration that `servingd serve` makes of flags; InvalidConfig if one is wrong."""
    return parse_flags("servingd serve", arguments)


def stop_takes(config: ServerConfig) -> float:
    """Seconds from SIGTERM until the last call has been answered or refused, at most."""
    return config.drain_delay_s + config.drain_timeout_s


FOR_THE_REST = 10
"""Seconds in which models are unloaded and workers end, with room to spare."""
