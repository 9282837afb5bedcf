"""Cast inputs to the dtypes of a signature, where that changes no value."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def fitted(value: Any, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return `array`, made of `value`, as `dtype`; unchanged if a value would change.

    Numbers from lists have no dtype of their own: as in JSON, those with a fraction are rounded to
    the nearest number of a floating-point dtype.
    """
    if array.dtype == dtype or array.dtype.kind not in "iuf" or dtype.kind not in "iuf":
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        written = not isinstance(value, np.ndarray | np.generic)
        if written and dtype.kind == "f":
            same = np.isfinite(cast) == np.isfinite(array)
        else:
            same = (cast.astype(array.dtype) == array) | (np.isnan(array) & np.isnan(cast))
    return cast if bool(np.all(same)) else array
