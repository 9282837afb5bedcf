"""The configuration that a command line of `serve` means, with files and environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from servingd.cli.serve_help import DEFAULTS
from servingd.cli.serve_path import NOTHING, look_at
from servingd.config.effective import configure
from servingd.config.flags.parser import given_flags
from servingd.config.server import ServerConfig


@contextmanager
def configuration_of(program: str, arguments: Sequence[str]) -> Iterator[ServerConfig]:
    """Yield the configuration of `servingd serve` with these arguments.

    A temporary folder that it may name is there until the end. Raises ServingError and OSError.
    """
    path, *rest = arguments if begins_with_path(arguments) else ("", *arguments)
    with closing(look_at(path) if path else NOTHING) as served:
        given = given_flags(program, rest, DEFAULTS)
        yield configure({**served.flags, **given}, DEFAULTS)


def begins_with_path(arguments: Sequence[str]) -> bool:
    """Return whether a command line of `serve` begins with a path, not with a flag."""
    return bool(arguments) and not arguments[0].startswith("-")
