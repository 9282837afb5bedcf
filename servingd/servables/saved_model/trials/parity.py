"""When two answers count as the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def agree(one: Sequence[Any] | str, other: Sequence[Any] | str) -> bool:
    """Return whether two answers are the same: a list of tensors each, or the name of an error.

    Integers, booleans and strings must be equal; floats may differ by what a changed order of
    operations explains (rtol 1e-3, atol 1e-5 of the largest value).
    """
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return len(one) == len(other) and all(map(_same, map(np.asarray, one), map(np.asarray, other)))


def _same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype == object or a.dtype.kind in "iubS":
        return bool(np.array_equal(a, b))
    x, y = (v.astype(np.complex128 if v.dtype.kind == "c" else np.float64) for v in (a, b))
    finite = np.abs(x[np.isfinite(x)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(x, y, rtol=1e-3, atol=1e-5 * scale, equal_nan=True))
