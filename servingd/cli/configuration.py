"""The configuration that a command line of `serve` means, with files and environment."""

from __future__ import annotations

from collections.abc import Sequence

from servingd.cli.serve_help import DEFAULTS
from servingd.cli.serve_path import look_at
from servingd.config.effective import configure
from servingd.config.flags.parser import given_flags
from servingd.config.server import ServerConfig


def configuration_of(program: str, arguments: Sequence[str]) -> ServerConfig:
    """Return the configuration of `servingd serve` with these arguments. Raises ServingError."""
    path, *rest = arguments if begins_with_path(arguments) else ("", *arguments)
    flags = look_at(path).flags if path else {}
    return configure({**flags, **given_flags(program, rest, DEFAULTS)}, DEFAULTS)


def begins_with_path(arguments: Sequence[str]) -> bool:
    """Return whether a command line of `serve` begins with a path, not with a flag."""
    return bool(arguments) and not arguments[0].startswith("-")
