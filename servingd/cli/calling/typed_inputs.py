"""Read the inputs that a user types, as a mapping of names to JSON values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from servingd.errors import InvalidArgument


def inputs_of(model: str, text: str, kinds: Callable[[], Mapping[str, str]]) -> Mapping[str, Any]:
    """Return values by input name; `kinds` asks the server for the inputs, each with its type.

    The text is an object of inputs, REST's `instances` or `inputs`, or the value of the only input.
    The server is asked only if names are left out. Raises InvalidArgument, which says what to type.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(
            f"the inputs are not JSON: {error}; type them with double quotes inside single ones, "
            f"such as {example(model, {'x': 'FLOAT'})}"
        ) from None
    return by_name(model, value, kinds)


def by_name(model: str, value: Any, kinds: Callable[[], Mapping[str, str]]) -> Mapping[str, Any]:
    """Return values by input name, as `inputs_of` does, from what JSON or a file holds."""
    if _are_rows(value):
        return _columns(value)
    if not isinstance(value, dict):
        return {_only(model, kinds()): value}
    wrapped = value.keys() & {"instances", "inputs"}
    if len(wrapped) != 1 or value.keys() - wrapped - {"signature_name"}:
        return value
    (key,) = wrapped
    known = kinds()
    if key in known:
        return value
    inner = value[key]
    if key == "inputs":
        return inner if isinstance(inner, dict) else {_only(model, known): inner}
    if _are_rows(inner):
        return _columns(inner)
    return {_only(model, known): inner}


def example(model: str, kinds: Mapping[str, str]) -> str:
    """Return a command that calls the model."""
    shown = {name: ["text"] if kind == "STRING" else [1, 2] for name, kind in kinds.items()}
    return f"servingd predict {shlex.quote(model)} {shlex.quote(json.dumps(shown))}"


def _only(model: str, kinds: Mapping[str, str]) -> str:
    if len(kinds) != 1:
        raise InvalidArgument(
            f"model {model} has {len(kinds)} inputs, name each: {example(model, kinds)}"
        )
    return next(iter(kinds))


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _columns(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    names = rows[0].keys()
    if any(row.keys() != names for row in rows):
        raise InvalidArgument("instances: expected the same names in each")
    return {name: [row[name] for row in rows] for name in names}
