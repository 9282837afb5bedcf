"""What the client may send in another type, and what it may not."""

from __future__ import annotations

import numpy as np
import pytest

from servingd.client.casting import fitted


@pytest.mark.parametrize(
    ("value", "dtype", "becomes"),
    [
        ([1.0, 0.1], "f4", np.float32([1.0, 0.1])),
        ([1, 2], "f4", np.float32([1, 2])),
        ([1.0, 2.0], "i4", np.int32([1, 2])),
        ([1, 2], "i8", np.int64([1, 2])),
        (3, "u1", np.uint8(3)),
        ([float("nan"), float("inf")], "f4", np.float32([np.nan, np.inf])),
        (np.float64([0.5, 2.0]), "f4", np.float32([0.5, 2.0])),
        (np.float64([np.nan]), "f4", np.float32([np.nan])),
        # Values would change.
        (np.float64([0.1]), "f4", np.float64([0.1])),
        ([1.5], "i4", np.float64([1.5])),
        ([1e300], "f4", np.float64([1e300])),
        ([300], "u1", np.int64([300])),
        ([-1], "u4", np.int64([-1])),
        ([True], "f4", np.array([True])),
        (["a"], "f4", np.array(["a"])),
    ],
)
def test_inputs_are_cast_where_no_value_changes(value, dtype, becomes):
    found = fitted(value, np.asarray(value), np.dtype(dtype))
    assert found.dtype == becomes.dtype
    np.testing.assert_array_equal(found, becomes)
