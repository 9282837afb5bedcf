"""Examples for classify and regress: mappings of features to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from servingd.client.inputs import about
from servingd.errors import InvalidArgument


class Feature(NamedTuple):
    """The values of one feature; `kind` is `bytes`, `float` or `int64`."""

    kind: str
    values: list[Any]


def features_of(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Feature]]:
    """Return the features of each example, by name.

    A value is a number, text, `bytes`, a path (the bytes of its file), or a flat list or array of
    one kind of these. Whole numbers are int64, unless there is a fraction among them: a model that
    wants floats is given `2.0`.

    Raises:
        InvalidArgument: something is no example or no feature; `field` has the feature's name.
    """
    if isinstance(examples, Mapping) or not all(isinstance(one, Mapping) for one in examples):
        raise InvalidArgument(
            "examples: expected a list, with a mapping of features to values for each example"
        )
    return [{name: _feature(name, given) for name, given in one.items()} for one in examples]


def _feature(name: str, given: Any) -> Feature:
    if isinstance(given, np.ndarray | np.generic):
        given = given.tolist()
    listed = list(given) if isinstance(given, list | tuple) else [given]
    values: list[Any] = [_plain(name, value) for value in listed]
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        values, kinds = [float(value) for value in values], {float}
    if len(kinds) > 1:
        named = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise about(name, f"feature {name}: expected values of one kind, got {named}")
    kind = {bytes: "bytes", float: "float"}.get(next(iter(kinds), int), "int64")
    return Feature(kind, values)


def _plain(name: str, value: Any) -> int | float | bytes:
    """Return one value as what a feature holds."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PurePath):
        with open(value, "rb") as file:
            return file.read()
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | float):
        return value
    if isinstance(value, int):
        return int(value)  # a truth value, too
    raise about(
        name,
        f"feature {name}: expected numbers, texts or bytes in a flat list, got "
        f"{type(value).__name__}",
    )
