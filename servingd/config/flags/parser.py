"""The command line, made from the fields of ServerConfig."""

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
"""What a value of a type is, in errors."""

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def parse_flags(
    program: str, arguments: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> ServerConfig:
    """The configuration of a command line alone; see `given_flags` and `make_config`."""
    return make_config(given_flags(program, arguments, defaults), defaults)


def given_flags(
    program: str,
    arguments: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
    passed_over: list[str] | None = None,
) -> dict[str, Any]:
    """What a command line sets: `--flag=value` or `--flag value`; the last one counts.

    A boolean may stand alone. Raises InvalidConfig, for an unknown flag with the nearest known one.
    `--help` prints all flags and exits. Flags that TensorFlow Serving had once are unknown ones,
    unless there is a list to name them in, each with a line for the log.
    """
    values: dict[str, Any] = {}
    left = list(reversed(arguments))
    while left:
        argument = left.pop()
        if argument in ("--help", "-h"):
            sys.stdout.write(usage(program, defaults))
            raise SystemExit(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        if passed_over is not None and argument.startswith("--") and name in STALE_FLAGS:
            passed_over.append(_pass_over(name, equals, left))
            continue
        if not argument.startswith("--") or name not in FLAGS:
            raise InvalidConfig(f"unknown argument: {argument}{_nearest(argument)}")
        if not equals:
            text = _next(name, left)
        values[name] = _parsed(name, text)
    return values


def _pass_over(name: str, equals: str, left: list[str]) -> str:
    """What is to be said of a stale flag; its value is taken out of what follows."""
    reason, boolean = STALE_FLAGS[name]
    following = left[-1] if left else "--"
    value = following.lower() in _BOOLEANS if boolean else not following.startswith("--")
    if not equals and value:
        left.pop()
    return f"--{name} is not known any more and has no effect: {reason}"


def make_config(given: Mapping[str, Any], *less: Mapping[str, Any] | None) -> ServerConfig:
    """The configuration of what is given and, in this order, of what counts less.

    Raises InvalidConfig.
    """
    values: dict[str, Any] = {}
    for flags in reversed((given, *less)):
        values |= flags or {}
    return ServerConfig(**values)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean WORD?`, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def usage(program: str, defaults: Mapping[str, Any] | None = None) -> str:
    """All flags with their defaults, TensorFlow Serving's and ours."""
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
    """A flag's default as a reader wants it: as it would be typed, or in words."""
    if field.name not in defaults and field.metadata["default"]:
        return str(field.metadata["default"])
    value = defaults.get(field.name, default_of(field))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _help(field: dataclasses.Field[Any], defaults: Mapping[str, Any]) -> str:
    default = default_text(field, defaults)
    text = field.metadata["help"] + (f" (default: {default})" if default else "")
    if field.metadata["no_effect"]:
        text += f"; no effect: {field.metadata['no_effect']}"
    lines = textwrap.wrap(text, 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([f"  --{field.name}={TYPES[field.name].__name__.upper()}", *lines, ""])


def _next(name: str, left: list[str]) -> str:
    """The value of a flag without `=`, taken from what follows; a boolean needs none."""
    following = left[-1] if left else ""
    if TYPES[name] is bool:
        return left.pop() if following.lower() in _BOOLEANS else "true"
    if not left or following.startswith("--"):
        raise InvalidConfig(f"--{name}: expected {EXPECTED[TYPES[name]]}, got nothing")
    return left.pop()


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
    """What somebody may have meant; an argument that is no flag may be a folder."""
    if not argument.startswith("-") and ("/" in argument or argument.startswith(".")):
        return f"; did you mean --model_repository={argument}, or --model_base_path={argument}?"
    word = argument.partition("=")[0].lstrip("-").replace("-", "_").lower()
    if word in NOT_HERE:
        return f"; {NOT_HERE[word]}"
    if word in OTHER_NAMES:
        return f"; did you mean --{OTHER_NAMES[word]}?"
    near = difflib.get_close_matches(word, list(FLAGS), n=1)
    return f"; did you mean --{near[0]}?" if near else "; --help lists the flags"
