"""Tensors of several calls as one, and the answer taken apart again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from servingd.core.shapes import fits
from servingd.core.types import Signature, Tensors
from servingd.errors import FailedPrecondition, InvalidArgument

Array: TypeAlias = np.ndarray[Any, Any]

_MAX_RANK = 6


class Form(NamedTuple):
    """What is known of inputs but for their values."""

    size: int
    """Bytes of all arrays."""
    rows: int
    kind: Hashable
    """What calls must have in common to be merged; None: that is to be found out per call."""


class FormedInputs(dict[str, Array]):
    """Inputs that come with their form, worked out once for many calls."""

    __slots__ = ("form",)

    form: Form


def form_of(signature: Signature, inputs: Tensors) -> Form:
    """Return the form of a signature's inputs; whatever has their types and shapes has it too."""
    size = sum(array.nbytes for array in inputs.values())
    if fits(signature, inputs):
        try:
            return Form(size, rows_of(inputs), kind_of(inputs))
        except InvalidArgument:
            pass
    return Form(size, 0, None)


class Merged(NamedTuple):
    """Inputs to run, and what is needed to take the outputs apart."""

    inputs: dict[str, Array]
    rows: int
    """With those that only fill up."""


def rows_of(inputs: Tensors) -> int:
    """The rows of a call.

    Raises InvalidArgument with TensorFlow Serving's texts if it cannot be merged.
    """
    rows = -1
    for array in inputs.values():
        if array.ndim == 0:
            raise InvalidArgument("Batching Run() input tensors must have at least one dimension")
        if rows not in (-1, array.shape[0]):
            raise InvalidArgument("Batching Run() input tensors must have equal 0th-dimension size")
        rows = array.shape[0]
    if rows < 0:
        raise InvalidArgument("Batching Run() must have at least one input tensor")
    return rows


def kind_of(inputs: Tensors, pads_lengths: bool = False) -> Hashable:
    """What calls must have in common to be merged: types, and shapes beyond the first dimension.

    With `pads_lengths` the ranks are enough.
    """
    if pads_lengths:
        return tuple((array.dtype.char, array.ndim) for array in inputs.values())
    return tuple([(array.dtype.char, array.shape[1:]) for array in inputs.values()])


def merge(calls: Sequence[Tensors], target_rows: int = 0) -> Merged:
    """The calls' inputs, one below the other; they are of one kind.

    Tensors of different lengths are padded at the end of each dimension with their own first
    element, and rows are added up to `target_rows`: copies of the last call's first row (both are
    TensorFlow Serving's rules).

    Raises InvalidArgument for what cannot be padded.
    """
    rows = sum(rows_of(call) for call in calls)
    inputs: dict[str, Array] = {}
    for alias in calls[0]:
        parts = [call[alias] for call in calls]
        if target_rows > rows:
            parts.append(np.repeat(parts[-1][:1], target_rows - rows, axis=0))
        inputs[alias] = parts[0] if len(parts) == 1 else _one_below_the_other(parts)
    return Merged(inputs, max(rows, target_rows))


def _one_below_the_other(parts: list[Array]) -> Array:
    try:
        return np.concatenate(parts)
    except ValueError:  # their lengths differ
        return np.concatenate(same_lengths(parts))


def same_lengths(parts: list[Array]) -> list[Array]:
    """Tensors of one rank, padded to the same sizes beyond the first dimension.

    Raises InvalidArgument for what cannot be padded.
    """
    if not 1 <= parts[0].ndim <= _MAX_RANK:
        raise InvalidArgument(f"Only tensors with rank from 1 to {_MAX_RANK} can be padded.")
    most = tuple(max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True))
    return [_padded(part, most) for part in parts]


def _padded(part: Array, most: tuple[int, ...]) -> Array:
    if part.shape[1:] == most:
        return part
    if part.size == 0:
        raise InvalidArgument("Got empty tensor in batch of non-empty tensors.")
    whole = np.full((part.shape[0], *most), part.flat[0], part.dtype)
    whole[tuple(slice(size) for size in part.shape)] = part
    return whole


def split(outputs: Tensors, rows: Sequence[int], merged: Merged) -> list[dict[str, Any]]:
    """Each call's rows of the outputs, as views; rows that only filled up are left out.

    Lengths that were padded stay so: which of an output's come from the padding, nobody can tell.
    Raises FailedPrecondition if the outputs are not row by row.
    """
    arrays: dict[str, Array] = {}
    for alias, value in outputs.items():
        array = arrays[alias] = np.asarray(value)
        if array.ndim == 0:
            raise FailedPrecondition("Batched output tensor has 0 dimensions")
        if array.shape[0] != merged.rows:
            raise FailedPrecondition(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension "
                "sizes of the input tensors"
            )
    answers = []
    start = 0
    for count in rows:
        answers.append({alias: array[start : start + count] for alias, array in arrays.items()})
        start += count
    return answers


def next_allowed(rows: int, allowed: Sequence[int]) -> int:
    """The size that a batch is filled up to: the next of those allowed, or its own."""
    return next((size for size in allowed if size >= rows), rows)
