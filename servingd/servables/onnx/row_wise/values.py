"""What is known of a tensor of an ONNX graph before anything runs.

Calls are merged only if their shapes agree after the first dimension, so every other size is the
same for all of them. Each tensor is one of:

- *rows*: one part per row, one after the other along axis 0, all of one shape, and each part
  depends on nothing but its own row;
- *same*: neither the rows' contents nor their number change it; its integers may be known;
- *counted*: a list of integers of which some are the number of rows, such as a shape.

What is none of these is not followed: `Mixing` says why, and the graph is not merged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from servingd.wire.protos import OnnxAttribute

ROWS = "rows"
"""In `Counted`: the number of rows."""

Dim: TypeAlias = int | None
"""A size after the first dimension; None: not known, but the same for all calls."""


class Mixing(Exception):
    """An operator may mix rows; the text says why."""


def require(holds: bool, reason: str) -> None:
    """Raise Mixing unless a condition of a rule holds."""
    if not holds:
        raise Mixing(reason)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows along axis 0; `inner` are the other dimensions."""

    inner: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return 1 + len(self.inner)


@dataclass(frozen=True, slots=True)
class Same:
    """The same for all rows: `dims` is None if the rank is not known."""

    dims: tuple[Dim, ...] | None = None
    content: tuple[Any, ...] | None = None
    """Its numbers in order, if they are few and known."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A vector of integers, or one of them (`is_scalar`): numbers, ROWS, or None for unknown ones.

    An unknown one is the same for all calls.
    """

    items: tuple[int | str | None, ...]
    is_scalar: bool = False


Value: TypeAlias = Rows | Same | Counted


@dataclass(frozen=True, slots=True)
class Node:
    """One operator, with what is known of its inputs; an input that is left out is None."""

    op: str
    version: int
    """The operator set."""
    inputs: Sequence[Value | None]
    outputs: Sequence[str]
    attributes: Mapping[str, OnnxAttribute] = field(default_factory=dict)

    def input(self, place: int) -> Value | None:
        """Return an input; None if it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def rows(self, place: int = 0) -> Rows:
        """Return an input that must be rows."""
        value = self.input(place)
        if not isinstance(value, Rows):
            raise Mixing("rows come in where it takes something else")
        return value

    def require_same(self, *places: int) -> None:
        """Require that these inputs are left out, or the same for all rows."""
        for place in places:
            require(isinstance(self.input(place), Same | None), "rows decide a parameter of it")

    def integer(self, name: str, default: int) -> int:
        """Return an attribute."""
        found = self.attributes.get(name)
        return default if found is None else int(found.i)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return an attribute's list; None if it is left out."""
        found = self.attributes.get(name)
        return None if found is None else tuple(found.ints)

    def constant(self, place: int, attribute: str = "") -> tuple[Any, ...] | None:
        """Return the numbers of an input, or of an attribute in older operator sets.

        None if both are left out. Raises Mixing if they are not known.
        """
        value = self.input(place)
        if value is None:
            return self.integers(attribute) if attribute else None
        if not isinstance(value, Same) or value.content is None:
            raise Mixing("a parameter of it is not constant")
        return value.content


Rule: TypeAlias = Callable[[Node], Sequence[Value]]
"""Returns what is known of a node's outputs. Raises Mixing."""


def axis_of(axis: int, rank: int) -> int:
    """Return an axis from the front; it must not be that of the rows."""
    from_front = axis + rank if axis < 0 else axis
    require(0 < from_front < rank, "it works along the rows")
    return from_front


def items_of(value: Value | None) -> tuple[Any, ...]:
    """Return the numbers of a shape. Raises Mixing if they are not known."""
    if isinstance(value, Counted):
        return value.items
    if isinstance(value, Same) and value.content is not None:
        return value.content
    raise Mixing("a parameter of it is not constant")
