"""What is known of a tensor before anything runs: the domain of the row-wise analysis.

Fix a signature and every size of its inputs but the first. Then each tensor of the graph is one of:

- *rows* along an axis: it is made of one part per row, one after the other along that axis, all of
  one shape, and each part depends on nothing but its own row (`axis` is set);
- *the same*: neither the rows' contents nor their number change it (`axis` is None); integers may
  have a known `content`, as shapes do;
- *counted*: integers that the number of rows decides and nothing else, such as a tensor's shape
  (`axis` is None and `content` names the number of rows);
- *unknown*: anything may be in it. Nothing that is unknown is ever merged.

A signature works row by row if each output is rows along axis 0, one entry per row.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from servingd.servables.saved_model.merging.row_wise.sizes import Size, size

Shape: TypeAlias = tuple[Size, ...]


class Reason(enum.Enum):
    """Why a tensor is unknown, as operators read it."""

    REDUCED = "it reduces over the rows"
    NORMALISED = "it normalises over the rows"
    ORDERED = "it orders or accumulates the rows"
    JOINED = "it joins, cuts or counts along the rows"
    MOVED = "it puts parts of several rows into one"
    MISALIGNED = "it sets rows against something by their places"
    CONTRACTED = "it multiplies rows with each other"
    PICKED = "it picks rows by their places"
    BATCH_STATISTICS = "it normalises with the statistics of the batch"
    WINDOWED = "its windows span several rows"
    DECIDED = "data decides which branch runs"
    LOOPED = "data decides how often a loop runs"
    CYCLE = "it is part of a loop of TensorFlow 1"
    COUNTED = "it computes with the number of rows"
    DATA_SIZED = "the data of all rows decide its size"
    NOT_CONSTANT = "a parameter of it is not constant"
    NO_SHAPE = "a shape is not known"
    NO_RULE = "no rule says what it does to rows"
    TOO_LARGE = "the graph is too large to be looked through"
    ASSERTED = "it asserts something of all rows together"
    FIXED = "its first dimension is not the rows'"


class Mixing(Exception):
    """An operation may mix rows."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def require(holds: bool, reason: Reason) -> None:
    """Raise Mixing unless a condition of a rule holds."""
    if not holds:
        raise Mixing(reason)


@dataclass(frozen=True, slots=True)
class Content:
    """Known integers: their shape, and their values in row-major order. Booleans are 0 and 1."""

    shape: tuple[int, ...]
    values: tuple[Size, ...]

    @property
    def array(self) -> np.ndarray:
        """The values as an array of `Size`."""
        array = np.empty(len(self.values), object)
        array[:] = self.values
        return array.reshape(self.shape)

    @property
    def counts_rows(self) -> bool:
        """Whether the number of rows decides any of them."""
        return any(value.counts_rows for value in self.values)

    @property
    def known(self) -> np.ndarray | None:
        """The values as an int64 array, if all are numbers."""
        numbers = [value.known for value in self.values]
        if any(number is None for number in numbers):
            return None
        return np.array(numbers, np.int64).reshape(self.shape)


def content_of(array: np.ndarray | Sequence[Size] | Size | int) -> Content:
    """Return the content of an array of `Size` or of numbers."""
    array = np.asarray(array, object)
    flat = tuple(v if isinstance(v, Size) else size(v) for v in array.reshape(-1))
    return Content(array.shape, flat)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Rows, the same, or counted; see above."""

    shape: Shape | None
    """None if not even the rank is known; never for rows."""
    axis: int | None = None
    content: Content | None = None

    @property
    def is_rows(self) -> bool:
        """Whether it is made of one part per row."""
        return self.axis is not None

    @property
    def is_counted(self) -> bool:
        """Whether the number of rows decides its integers."""
        return self.content is not None and self.content.counts_rows

    @property
    def is_same(self) -> bool:
        """Whether neither the rows' contents nor their number change it."""
        return self.axis is None and not self.is_counted

    @property
    def rank(self) -> int:
        """The number of dimensions. Raises Mixing if it is not known."""
        return len(self.dims)

    @property
    def dims(self) -> Shape:
        """The shape. Raises Mixing if it is not known."""
        if self.shape is None:
            raise Mixing(Reason.NO_SHAPE)
        return self.shape


@dataclass(frozen=True, slots=True)
class Handle:
    """A variable, or a table that never changes while signatures run."""

    kind: str
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class TensorList:
    """A list whose length and order are the same for all rows; `element` stands for each of it.

    A size named `ANY_SIZE` may differ from element to element.
    """

    element: Tensor | None
    """None: no element was set yet."""
    length: Size | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A tensor that may hold anything; which operation made it so, and why."""

    reason: Reason
    operation: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.reason.value}"


Value: TypeAlias = Tensor | Handle | TensorList | Unknown

ANY_SIZE = "any"
_MADE = "~"


def made(name: str) -> Size:
    """Return a size that is not worked out, named by the operation that makes it."""
    return Size({(f"{_MADE}{name}",): 1})


def tensors(values: Iterable[Value]) -> list[Tensor]:
    """Return the arguments of an operation on tensors. Raises Mixing for anything else."""
    found = []
    for value in values:
        if not isinstance(value, Tensor):
            raise Mixing(Reason.NO_RULE)
        found.append(value)
    return found


def join(one: Value, other: Value, name: str) -> Value:
    """Return what holds of both values, where all rows have either the one or the other.

    Sizes that differ become one that is named by `name`.
    """
    if one == other:
        return one
    if isinstance(one, Unknown):
        return one
    if isinstance(other, Unknown):
        return other
    if isinstance(one, TensorList) and isinstance(other, TensorList):
        length = one.length if one.length == other.length else None
        return _list_of(one.element, other.element, length, name)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return _join_tensors(one, other, name)
    return Unknown(Reason.NO_RULE, name)


def _list_of(one: Tensor | None, other: Tensor | None, length: Size | None, name: str) -> Value:
    if one is None or other is None:
        return TensorList(one or other, length)
    both = _join_tensors(one, other, name, lambda axis: Size({(ANY_SIZE,): 1}))
    return both if isinstance(both, Unknown) else TensorList(both, length)


def _join_tensors(
    one: Tensor, other: Tensor, name: str, differing: Callable[[int], Size] | None = None
) -> Tensor | Unknown:
    differing = differing or (lambda axis: made(f"{name}.{axis}"))
    if one.is_counted or other.is_counted:
        return Unknown(Reason.COUNTED, name)
    content = one.content if one.content == other.content else None
    if (
        one.is_same
        and other.is_same
        and (one.shape is None or other.shape is None or len(one.shape) != len(other.shape))
    ):
        return Tensor(None)
    if one.axis != other.axis or len(one.dims) != len(other.dims):
        return Unknown(Reason.DECIDED, name)
    if one.axis is not None and one.dims[one.axis] != other.dims[one.axis]:
        return Unknown(Reason.DECIDED, name)
    shape = tuple(
        a if a == b else differing(i)
        for i, (a, b) in enumerate(zip(one.dims, other.dims, strict=True))
    )
    return Tensor(shape, one.axis, content)


def listed(element: Tensor) -> Tensor | None:
    """Return a tensor as an element of a list: sizes that the setting operation made may differ.

    None if its number of entries per row may differ.
    """
    differs = [any(name.startswith(_MADE) for name in each.names) for each in element.dims]
    if element.axis is not None and differs[element.axis]:
        return None
    sizes = zip(element.dims, differs, strict=True)
    shape = tuple(Size({(ANY_SIZE,): 1}) if varies else each for each, varies in sizes)
    return replace(element, shape=shape, content=None)


def taken(element: Tensor, name: str) -> Tensor:
    """Return an element of a list as a tensor: sizes that may differ are named by the operation."""
    shape = tuple(
        made(f"{name}.{i}") if ANY_SIZE in each.names else each
        for i, each in enumerate(element.dims)
    )
    return replace(element, shape=shape)
