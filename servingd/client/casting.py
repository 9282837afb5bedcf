"""Cast inputs to the dtypes of a signature, where that changes no value."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def fitted(value: Any, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return `array`, made of `value`, as `dtype`; unchanged if a value would change.

    Numbers from lists have no dtype of their own: as in JSON, those with a fraction are rounded to
    the nearest number of a floating-point dtype. An empty list fits any dtype.
    """
    kind, wanted = _kind(array.dtype), _kind(dtype)
    written = not isinstance(value, np.ndarray | np.generic)
    if written and array.size == 0:
        return array.astype(dtype)
    if array.dtype == dtype or kind not in "iufc" or wanted not in "iufc":
        return array
    if kind == "c" and wanted != "c":
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        if written and wanted in "fc":
            same = np.isfinite(cast) == np.isfinite(array)
        else:
            same = (cast.astype(array.dtype) == array) | (np.isnan(array) & np.isnan(cast))
    return cast if bool(np.all(same)) else array


def _kind(dtype: np.dtype[Any]) -> str:
    """Return numpy's letter; for it, a bfloat16 is no number."""
    return "f" if dtype == _BFLOAT16 else dtype.kind
