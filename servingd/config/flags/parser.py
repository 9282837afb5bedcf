"""Parse the command line by the fields of ServerConfig."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_type_hints

from servingd.config.flag_fields import default_of
from servingd.config.flags.other_names import NOT_HERE, OTHER_NAMES
from servingd.config.flags.stale import STALE_FLAGS
from servingd.config.server import ServerConfig
from servingd.errors import InvalidConfig

FLAGS: Mapping[str, dataclasses.Field[Any]] = {
    field.name: field for field in dataclasses.fields(ServerConfig)
}
"""Every flag's field, by name, in the order of the table."""

TYPES: Mapping[str, type] = get_type_hints(ServerConfig)
"""The type of each flag's value: bool, int, float or str."""

EXPECTED: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}
"""The description of a type's values in errors."""

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def parse_flags(
    program: str, arguments: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> ServerConfig:
    """Return the configuration of a command line alone; see `given_flags` and `make_config`."""
    return make_config(given_flags(program, arguments, defaults), defaults)


def given_flags(
    program: str,
    arguments: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
    passed_over: list[str] | None = None,
) -> dict[str, Any]:
    """Return the flags that a command line sets: `--flag=value` or `--flag value`; the last counts.

    A boolean may stand alone. Raises InvalidConfig, for an unknown flag with the nearest known one.
    `--help` prints all flags and exits. Flags of older TensorFlow Serving releases are unknown too,
    unless `passed_over` is given: then each adds a line for the log to that list.
    """
    values: dict[str, Any] = {}
    remaining = list(reversed(arguments))
    while remaining:
        argument = remaining.pop()
        if argument in ("--help", "-h"):
            sys.stdout.write(usage(program, defaults))
            raise SystemExit(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        if passed_over is not None and argument.startswith("--") and name in STALE_FLAGS:
            passed_over.append(_pass_over(name, equals, remaining))
            continue
        if not argument.startswith("--") or name not in FLAGS:
            raise InvalidConfig(f"unknown argument: {argument}{_nearest(argument)}")
        if not equals:
            text = _next(name, remaining)
        values[name] = _parsed(name, text)
    return values


def _pass_over(name: str, equals: str, remaining: list[str]) -> str:
    """Return the log line for a stale flag, and skip its value."""
    reason, boolean = STALE_FLAGS[name]
    following = remaining[-1] if remaining else "--"
    value = following.lower() in _BOOLEANS if boolean else not following.startswith("--")
    if not equals and value:
        remaining.pop()
    return f"--{name} is not known any more and has no effect: {reason}"


def make_config(given: Mapping[str, Any], *less: Mapping[str, Any] | None) -> ServerConfig:
    """Return the configuration of `given` and, in this order, of lower-ranking flags.

    Raises InvalidConfig.
    """
    values: dict[str, Any] = {}
    for flags in reversed((given, *less)):
        values |= flags or {}
    return ServerConfig(**values)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean WORD?`, or an empty text if no known word is similar."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def usage(program: str, defaults: Mapping[str, Any] | None = None) -> str:
    """Return all flags with their defaults, TensorFlow Serving's and servingd's, for `--help`."""
    groups = {"TensorFlow Serving's flags": False, "servingd's own flags": True}
    parts = [
        f"usage: {program} [--flag=value | --flag value | --boolean_flag]...\n",
        *(
            f"\n{title}:\n"
            + "".join(
                _help(field, defaults or {})
                for field in FLAGS.values()
                if field.metadata["ours"] is ours
            )
            for title, ours in groups.items()
        ),
    ]
    return "".join(parts)


def default_text(field: dataclasses.Field[Any], defaults: Mapping[str, Any]) -> str:
    """Return a flag's default for readers: as it would be typed, or in words."""
    if field.name not in defaults and field.metadata["default"]:
        return str(field.metadata["default"])
    value = defaults.get(field.name, default_of(field))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _help(field: dataclasses.Field[Any], defaults: Mapping[str, Any]) -> str:
    default = default_text(field, defaults)
    text = field.metadata["help"] + (f" Default: {default}." if default else "")
    if field.metadata["no_effect"]:
        text += f" No effect: {field.metadata['no_effect']}."
    lines = textwrap.wrap(text, 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([f"  --{field.name}={TYPES[field.name].__name__.upper()}", *lines, ""])


def _next(name: str, remaining: list[str]) -> str:
    """Return the value of a flag without `=` from the next argument; a boolean needs none."""
    following = remaining[-1] if remaining else ""
    if TYPES[name] is bool:
        return remaining.pop() if following.lower() in _BOOLEANS else "true"
    if not remaining or following.startswith("--"):
        raise InvalidConfig(f"--{name}: expected {EXPECTED[TYPES[name]]}, got nothing")
    return remaining.pop()


def _parsed(name: str, text: str) -> Any:
    kind = TYPES[name]
    try:
        value = _PARSERS[kind](text)
    except (KeyError, ValueError):
        raise InvalidConfig(f"--{name}: expected {EXPECTED[kind]}, got {text!r}") from None
    check = FLAGS[name].metadata["check"]
    expected = check(value) if check else None
    if expected is not None:
        raise InvalidConfig(f"--{name}: expected {expected}, got {value!r}")
    return value


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,100}", text):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_PARSERS: Mapping[type, Callable[[str], Any]] = {
    bool: lambda text: _BOOLEANS[text.lower()],
    int: _integer,
    float: _number,
    str: str,
}


def _nearest(argument: str) -> str:
    """Return a hint for an unknown argument; one that is not a flag may be a folder."""
    if not argument.startswith("-") and ("/" in argument or argument.startswith(".")):
        return f"; did you mean --model_repository={argument}, or --model_base_path={argument}?"
    word = argument.partition("=")[0].lstrip("-").replace("-", "_").lower()
    if word in NOT_HERE:
        return f"; {NOT_HERE[word]}"
    if word in OTHER_NAMES:
        return f"; did you mean --{OTHER_NAMES[word]}?"
    near = difflib.get_close_matches(word, list(FLAGS), n=1)
    return f"; did you mean --{near[0]}?" if near else "; --help lists the flags"
