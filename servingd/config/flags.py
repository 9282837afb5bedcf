"""The command line, made from the fields of ServerConfig."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, get_type_hints

from servingd.config.server import ServerConfig
from servingd.errors import InvalidConfig


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise InvalidConfig(message)


def parse_flags(
    program: str, arguments: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> ServerConfig:
    """The configuration of a command line: `--flag=value` or `--flag value`; the last one counts.

    `defaults` replace those of ServerConfig. Raises InvalidConfig, for an unknown flag with the
    nearest known one. `--help` prints and exits.
    """
    parser = _Parser(prog=program, allow_abbrev=False, formatter_class=argparse.HelpFormatter)
    types = get_type_hints(ServerConfig)
    for field in dataclasses.fields(ServerConfig):
        default = (defaults or {}).get(field.name, field.default)
        parser.add_argument(
            f"--{field.name}",
            type=types[field.name],
            default=default,
            metavar=types[field.name].__name__.upper(),
            help=f"{field.metadata['help']} (default: {default!r})".replace("%", "%%"),
        )
    values, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise InvalidConfig(f"unknown argument: {unknown[0]}{_nearest(unknown[0])}")
    return ServerConfig(**vars(values))


def _nearest(argument: str) -> str:
    names = [f"--{field.name}" for field in dataclasses.fields(ServerConfig)]
    near = difflib.get_close_matches(argument.split("=", 1)[0], names, n=1)
    return f"; did you mean {near[0]}?" if near else "; --help lists the flags"
