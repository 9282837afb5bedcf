"""Merge the tensors of several calls into one batch, and split its outputs per call."""

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
    """What a call's inputs have besides their values: bytes, rows, and what they may merge with."""

    size: int
    """Bytes of all arrays."""
    rows: int
    kind: Hashable
    """What calls must have in common to be merged; None: it must be worked out for each call."""


class FormedInputs(dict[str, Array]):
    """Inputs with their form, which is worked out once for many calls."""

    __slots__ = ("form",)

    form: Form


def form_of(signature: Signature, inputs: Tensors) -> Form:
    """Return the form of a signature's inputs.

    Inputs with the same dtypes and shapes have the same form.
    """
    size = sum(array.nbytes for array in inputs.values())
    first_sizes = {array.shape[:1] for array in inputs.values()}
    if not fits(signature, inputs) or len(first_sizes) != 1 or () in first_sizes:
        return Form(size, 0, None)
    return Form(size, rows_of(inputs), kind_of(inputs))


class Merged(NamedTuple):
    """A batch's inputs, `[rows, ...]` each, and what is needed to split its outputs."""

    inputs: dict[str, Array]
    rows: int
    """The rows of each input, padding rows included."""


def rows_of(inputs: Tensors) -> int:
    """Return the rows of a call: the first dimension, which all inputs must share.

    Raises InvalidArgument with TensorFlow Serving's texts if the call cannot be merged.
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
    """Return what calls must have in common to be merged: dtypes, and shapes after the rows.

    With `pads_lengths` the ranks must be the same, instead of the shapes.
    """
    if pads_lengths:
        return tuple((array.dtype.char, array.ndim) for array in inputs.values())
    return tuple([(array.dtype.char, array.shape[1:]) for array in inputs.values()])


def merge(calls: Sequence[Tensors], target_rows: int = 0) -> Merged:
    """Concatenate the calls' inputs along the rows; the calls are of one kind.

    Tensors of different lengths are padded at the end of each dimension with their own first
    element. Rows are padded up to `target_rows` with copies of the last call's first row. Both are
    TensorFlow Serving's rules.
    Raises InvalidArgument for what cannot be padded.
    """
    rows = sum(rows_of(call) for call in calls)
    inputs: dict[str, Array] = {}
    for alias in calls[0]:
        parts = [call[alias] for call in calls]
        if target_rows > rows:
            parts.append(np.repeat(parts[-1][:1], target_rows - rows, axis=0))
        inputs[alias] = parts[0] if len(parts) == 1 else _concatenate(parts)
    return Merged(inputs, max(rows, target_rows))


def _concatenate(parts: list[Array]) -> Array:
    try:
        return np.concatenate(parts)
    except ValueError:  # their lengths differ
        return np.concatenate(same_lengths(parts))


def same_lengths(parts: list[Array]) -> list[Array]:
    """Return tensors of one rank, padded to the same sizes after the first dimension.

    Raises InvalidArgument for what cannot be padded.
    """
    if not 1 <= parts[0].ndim <= _MAX_RANK:
        raise InvalidArgument(f"Only tensors with rank from 1 to {_MAX_RANK} can be padded.")
    most = tuple(max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True))
    return [_padded(part, most) for part in parts]


def _padded(part: Array, most: tuple[int, ...]) -> Array:
    """Pad a tensor to `most` sizes after the rows, with its own first element."""
    if part.shape[1:] == most:
        return part
    if part.size == 0:
        raise InvalidArgument("Got empty tensor in batch of non-empty tensors.")
    whole = np.full((part.shape[0], *most), part.flat[0], part.dtype)
    whole[tuple(slice(size) for size in part.shape)] = part
    return whole


def split(outputs: Tensors, rows: Sequence[int], merged: Merged) -> list[dict[str, Any]]:
    """Return each call's rows of the outputs, as views; padding rows are dropped.

    `rows` are the calls' numbers of rows, in the order of the batch. Padded lengths stay padded, as
    in TensorFlow Serving: which part of an output comes from padding cannot be known.
    Raises FailedPrecondition if an output's first dimension is not the batch's rows.
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
    """Return the size to pad a batch of so many rows to: the next one allowed, else `rows`."""
    return next((size for size in allowed if size >= rows), rows)
