"""Combine the answers of several models into one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from servingd.errors import InvalidArgument

Array = np.ndarray[Any, Any]


def combined(how: str, arrays: Sequence[Array], weights: Sequence[float]) -> Array:
    """Return the `mean`, the `vote` or the `weighted` mean of arrays of one shape.

    Raises InvalidArgument for arrays of different shapes.
    """
    first = arrays[0]
    for array in arrays:
        if array.shape != first.shape:
            raise InvalidArgument(
                f"{how}: expected arrays of one shape, got {list(first.shape)} and "
                f"{list(array.shape)}"
            )
    if how == "vote":
        return _vote(arrays)
    total = np.average(np.stack(arrays), axis=0, weights=list(weights) or None)
    return total.astype(first.dtype)


def _vote(arrays: Sequence[Array]) -> Array:
    """Return the most frequent value of each place; of equally frequent ones, the first."""
    first = arrays[0]
    votes = np.empty(first.shape, first.dtype)
    flat = [array.ravel() for array in arrays]
    votes.ravel()[:] = [Counter(values).most_common(1)[0][0] for values in zip(*flat, strict=True)]
    return votes


def confident_rows(scores: Array, at_least: float) -> Array:
    """Return for each row whether the largest of its scores is large enough.

    Raises InvalidArgument for scores without rows.
    """
    if not scores.ndim:
        raise InvalidArgument("cascade: expected a confidence with rows, got a scalar")
    largest = scores.reshape(len(scores), -1).max(axis=1, initial=-np.inf)
    return np.asarray(largest >= at_least)


def chosen_rows(settled: Array, before: Array, after: Array) -> Array:
    """Return the rows of `before` that are settled, and those of `after` else."""
    if before.shape != after.shape or len(settled) != len(before):
        raise InvalidArgument(
            f"cascade: expected answers of one shape, got {list(before.shape)} and "
            f"{list(after.shape)}"
        )
    return np.where(settled.reshape(-1, *[1] * (before.ndim - 1)), before, after)
