"""Tensors of the Open Inference Protocol, as bytes and as lists."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servingd.core.types import DataType
from servingd.errors import InvalidArgument, Unimplemented
from servingd.wire.oip import (
    NAMES,
    ONLY_RAW,
    checked_shape,
    name_of,
    read_list,
    read_raw,
    type_of,
    write_list,
    write_raw,
)
from servingd.wire.tensors.types import numpy_dtype

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
TYPES = st.sampled_from(sorted(NAMES))


def arrays(data_type: DataType) -> st.SearchStrategy[np.ndarray]:
    if data_type is DataType.STRING:
        return hnp.arrays(object, SHAPES, elements=st.binary(max_size=9))
    dtype = numpy_dtype(data_type)
    if dtype == ml_dtypes.bfloat16:
        return hnp.arrays(np.uint16, SHAPES).map(lambda a: a.view(dtype))
    return hnp.arrays(dtype, SHAPES)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype == object:
        return one.shape == other.shape and one.tolist() == other.tolist()
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@given(st.data(), TYPES)
def test_bytes_come_back(data: st.DataObject, data_type: DataType) -> None:
    array = data.draw(arrays(data_type))
    assert same(read_raw(data_type, array.shape, write_raw(array, data_type), "x"), array)


@given(st.data(), TYPES.filter(lambda t: t not in ONLY_RAW))
def test_lists_come_back_flat_and_nested(data: st.DataObject, data_type: DataType) -> None:
    array = data.draw(arrays(data_type))
    wanted = np.float32(array.astype(np.float64)) if array.dtype == np.float32 else array
    for values in (write_list(array), array.tolist()):
        found = read_list(data_type, array.shape, values, "x")
        if array.dtype.kind == "f":
            np.testing.assert_array_equal(found, wanted)
        else:
            assert same(found, array)


@given(st.binary(max_size=40), st.integers(0, 4), TYPES)
def test_any_bytes_are_read_or_refused(content: bytes, rows: int, data_type: DataType) -> None:
    said = ""
    try:
        array = read_raw(data_type, (rows,), content, "input 'x'")
    except InvalidArgument as error:
        said = error.message
    assert said.startswith("input 'x': ") or array.shape == (rows,)


@pytest.mark.parametrize(
    ("data_type", "shape", "values", "says"),
    [
        (DataType.INT32, (1,), [1.5], "expected INT32: got float64"),
        (DataType.INT8, (1,), [300], "expected INT8: a number does not fit"),
        (DataType.UINT32, (1,), [-1], "expected UINT32: a number does not fit"),
        (DataType.FLOAT, (2,), [1], "expected 2 elements for shape [2], got 1"),
        (DataType.FLOAT, (1,), ["a"], "expected FP32: got <U1"),
        (DataType.FLOAT, (2,), [[1], [2, 3]], "expected FP32: "),
        (DataType.BOOL, (1,), [1], "expected BOOL: got int64"),
        (DataType.STRING, (1,), [1], "expected BYTES: got int"),
        (DataType.HALF, (1,), [1], "FP16 is sent as bytes only"),
        (DataType.INT64, (1,), [2**70], "expected INT64: "),
    ],
)
def test_what_does_not_fit_is_told(data_type, shape, values, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_list(data_type, shape, values, "input 'x'")
    assert f"input 'x': {says}" in caught.value.message


def test_names_and_shapes() -> None:
    assert all(type_of(name, "x") is data_type for data_type, name in NAMES.items())
    with pytest.raises(InvalidArgument, match=r"x: expected a datatype among BOOL, .* got 'FLOAT'"):
        type_of("FLOAT", "x")
    with pytest.raises(Unimplemented, match="output 'y' is of type COMPLEX64"):
        name_of(DataType.COMPLEX64, "output 'y'")
    with pytest.raises(InvalidArgument, match="without negative sizes"):
        checked_shape([-1, 2], "x")


@pytest.mark.parametrize("shape", [[0, 2**63], [1] * 100, [2**40, 2**40]])
def test_shapes_that_no_tensor_has_are_refused(shape: list[int]) -> None:
    with pytest.raises(InvalidArgument, match="input 'x': its shape is larger than any tensor"):
        checked_shape(shape, "input 'x'")


def test_lists_in_lists_without_end_are_refused() -> None:
    values: object = "a"
    for _ in range(5000):
        values = [values]
    with pytest.raises(InvalidArgument, match="input 'x': expected BYTES"):
        read_list(DataType.STRING, (1,), values, "input 'x'")
