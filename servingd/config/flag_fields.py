"""Make a flag of a configuration field: its help, its check, and why it may have no effect.

The flags themselves are the fields of `server.py` (ours) and `tensorflow_serving_flags.py`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
from collections.abc import Callable
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], "str | None"]
"""Returns what was expected; None for a valid value."""

_ANY_INT32 = (-(2**31), 2**31 - 1)
_ANY_INT64 = (-(2**63), 2**63 - 1)


def flag(default: Any, text: str, check: Check | None = None, *, no_effect: str = "") -> Any:
    """Return a field for one of TensorFlow Serving's flags; `no_effect` says why it has none."""
    return _field(default, text, check, no_effect=no_effect, ours=False)


def own_flag(default: Any, text: str, check: Check | None = None) -> Any:
    """Return a field for one of servingd's own flags."""
    return _field(default, text, check, no_effect="", ours=True)


def _field(default: Any, text: str, check: Check | None, *, no_effect: str, ours: bool) -> Any:
    """Return a dataclass field with its metadata.

    A callable default is called for each configuration; help shows its docstring as the default.
    """
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
    """Return the default of a field."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def one_of(*choices: str) -> Check:
    """Return a check for one of these texts."""
    expected = f"one of {', '.join(choices)}"
    return lambda value: None if value in choices else expected


def at_least(least: float) -> Check:
    """Return a check for a finite number not below `least`; a whole number has at most 64 bits."""

    def check(value: float) -> str | None:
        fits = math.isfinite(value) if isinstance(value, float) else value <= _ANY_INT64[1]
        return None if fits and value >= least else f"a number of at least {least:g}"

    return check


def whole(least: int, most: int) -> Check:
    """Return a check for a whole number of a range, both ends included."""
    expected = f"a whole number from {least} to {most}"
    return lambda value: None if least <= value <= most else expected


int32: Check = whole(*_ANY_INT32)
int64: Check = whole(*_ANY_INT64)
count: Check = whole(1, _ANY_INT32[1])


def tcp_port(value: int) -> str | None:
    """Check for a TCP port, or 0 for none."""
    return None if 0 <= value < 65536 else "a port between 0 and 65535"


def ip_address(text: str) -> str | None:
    """Check for an IP address, or `localhost`, or nothing."""
    try:
        ipaddress.ip_address("127.0.0.1" if text in ("", "localhost") else text)
    except ValueError:
        return "an IP address of this machine, or localhost"
    return None


def channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """Return `key=value,key=value` as pairs; a value that is an int32 becomes one.

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
    """Check for a text that `channel_arguments` can read."""
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
