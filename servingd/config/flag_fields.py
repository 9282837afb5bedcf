"""How a field of a configuration becomes a flag: its help, its check, and why it may do nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], "str | None"]
"""What was expected, or None for a value that is right."""

_ANY_INT32 = (-(2**31), 2**31 - 1)
_ANY_INT64 = (-(2**63), 2**63 - 1)


def flag(default: Any, text: str, check: Check | None = None, *, no_effect: str = "") -> Any:
    """A field that is one of TensorFlow Serving's flags; `no_effect` says why it does nothing."""
    return _field(default, text, check, no_effect=no_effect, ours=False)


def own_flag(default: Any, text: str, check: Check | None = None) -> Any:
    """A field that is a flag of servingd's own."""
    return _field(default, text, check, no_effect="", ours=True)


def _field(default: Any, text: str, check: Check | None, *, no_effect: str, ours: bool) -> Any:
    """A callable default is called for each configuration; its first line of docstring tells it."""
    metadata = {
        "help": text,
        "check": check,
        "no_effect": no_effect,
        "ours": ours,
        "default": default.__doc__ if callable(default) else None,
    }
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The value of a field that nobody sets."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def one_of(*choices: str) -> Check:
    """One of these texts."""
    expected = f"one of {', '.join(choices)}"
    return lambda value: None if value in choices else expected


def at_least(least: float) -> Check:
    """A finite number, not below `least`; 64 bits if it is a whole one."""

    def check(value: float) -> str | None:
        fits = math.isfinite(value) if isinstance(value, float) else value <= _ANY_INT64[1]
        return None if fits and value >= least else f"a number of at least {least:g}"

    return check


def whole(least: int, most: int) -> Check:
    """A whole number of a range."""
    expected = f"a whole number from {least} to {most}"
    return lambda value: None if least <= value <= most else expected


int32: Check = whole(*_ANY_INT32)
int64: Check = whole(*_ANY_INT64)
count: Check = whole(1, _ANY_INT32[1])


def tcp_port(value: int) -> str | None:
    """A TCP port, or 0 for none."""
    return None if 0 <= value < 65536 else "a port between 0 and 65535"


def channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """`key=value,key=value` as pairs; a value that is an int32 becomes one.

    Raises ValueError for a part that is not `key=value`; TensorFlow Serving reads past its end.
    """
    pairs: list[tuple[str, int | str]] = []
    for part in text.split(",") if text else ():
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise ValueError(part)
        pairs.append((key, _int32_or_text(value)))
    return tuple(pairs)


def are_channel_arguments(text: str) -> str | None:
    """A text that `channel_arguments` can read."""
    try:
        channel_arguments(text)
    except ValueError as error:
        return f"key=value,key=value (the part {str(error)!r} is none)"
    return None


def _int32_or_text(text: str) -> int | str:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 12):
        return text
    return text if int32(int(text)) else int(text)
