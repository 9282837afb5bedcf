"""Merging, filling up and taking apart: for what works row by row nothing is lost or mixed."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servingd.core.batching.merge import kind_of, merge, next_allowed, rows_of, same_lengths, split
from servingd.errors import FailedPrecondition, InvalidArgument


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(0, 30),
    st.sampled_from([np.float32, np.int64, bool, object]),
    st.lists(st.integers(0, 3), max_size=3),
)
def test_calls_of_one_kind_get_their_own_rows_back(sizes, target, dtype, trailing):
    rng = np.random.default_rng(1)
    calls = []
    for size in sizes:
        numbers = rng.integers(0, 2, (size, *trailing))
        array = numbers.astype(str).astype(object) if dtype is object else numbers.astype(dtype)
        calls.append({"x": array, "z": rng.random((size,))})
    merged = merge(calls, target)
    assert merged.rows == max(sum(sizes), target)
    assert all(array.shape[0] == merged.rows for array in merged.inputs.values())
    outputs = {"x": merged.inputs["x"], "z": merged.inputs["z"] * 2}
    answers = split(outputs, sizes, merged)
    for call, answer in zip(calls, answers, strict=True):
        assert answer["x"].tolist() == call["x"].tolist()
        assert np.array_equal(answer["z"], call["z"] * 2)


def test_one_call_alone_is_not_copied():
    x = np.ones((2, 3), np.float32)
    assert merge([{"x": x}]).inputs["x"] is x


def test_rows_that_fill_up_are_copies_of_the_last_calls_first_row():
    merged = merge([{"x": np.array([1, 2])}, {"x": np.array([3, 4])}], 6)
    assert merged.inputs["x"].tolist() == [1, 2, 3, 4, 3, 3]


@given(
    st.lists(
        hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4)),
        min_size=2,
        max_size=4,
    )
)
def test_different_lengths_are_padded_and_stay_so(arrays):
    calls = [{"x": array} for array in arrays]
    merged = merge(calls)
    whole = merged.inputs["x"]
    start = 0
    for array in arrays:
        rows = whole[start : start + len(array)]
        start += len(array)
        inner = rows[:, : array.shape[1], : array.shape[2]]
        assert np.array_equal(inner, array, equal_nan=True)
        outer = np.ones(rows.shape, bool)
        outer[:, : array.shape[1], : array.shape[2]] = False
        assert np.array_equal(
            rows[outer], np.full(outer.sum(), array.flat[0], np.float32), equal_nan=True
        )
    answers = split({"y": whole}, [len(a) for a in arrays], merged)
    for array, answer in zip(arrays, answers, strict=True):
        assert answer["y"].shape == (len(array), *whole.shape[1:])  # as in TensorFlow Serving


def test_an_outputs_own_length_is_not_taken_for_padding():
    """Five classes are five, whatever the inputs were padded to."""
    calls = [{"ids": np.ones((1, 2))}, {"ids": np.ones((1, 5))}]
    first, second = split({"classes": np.ones((2, 5))}, [1, 1], merge(calls))
    assert first["classes"].shape == second["classes"].shape == (1, 5)


WRONG = {
    "no inputs": ({}, "Batching Run() must have at least one input tensor"),
    "a scalar": (
        {"x": np.float32(1)},
        "Batching Run() input tensors must have at least one dimension",
    ),
    "two sizes": (
        {"x": np.ones(2), "y": np.ones(3)},
        "Batching Run() input tensors must have equal 0th-dimension size",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_merged_is_told(case):
    inputs, text = WRONG[case]
    with pytest.raises(InvalidArgument) as error:
        rows_of({alias: np.asarray(array) for alias, array in inputs.items()})
    assert error.value.message == text


def test_what_cannot_be_padded_is_told():
    with pytest.raises(InvalidArgument, match="Got empty tensor in batch of non-empty tensors"):
        merge([{"x": np.ones((1, 0))}, {"x": np.ones((1, 2))}])
    wide = [{"x": np.ones((1,) * 6 + (n,))} for n in (1, 2)]
    with pytest.raises(InvalidArgument, match="Only tensors with rank from 1 to 6 can be padded"):
        merge(wide)


def test_outputs_that_are_not_row_by_row_are_told():
    merged = merge([{"x": np.ones(2)}, {"x": np.ones(1)}])
    with pytest.raises(FailedPrecondition, match="Batched output tensor has 0 dimensions"):
        split({"y": np.float32(1)}, [2, 1], merged)
    with pytest.raises(FailedPrecondition, match="0th dimension does not equal the sum"):
        split({"y": np.ones(2)}, [2, 1], merged)


def test_kinds():
    a, b = {"x": np.ones((1, 2), np.float32)}, {"x": np.ones((9, 2), np.float32)}
    assert kind_of(a) == kind_of(b)
    assert kind_of(a) != kind_of({"x": np.ones((1, 3), np.float32)})
    assert kind_of(a) != kind_of({"x": np.ones((1, 2), np.float64)})
    assert kind_of(a, True) == kind_of({"x": np.ones((1, 3), np.float32)}, True)
    assert kind_of(a, True) != kind_of({"x": np.ones((1,), np.float32)}, True)


def test_the_next_allowed_size():
    assert [next_allowed(n, (1, 4, 8)) for n in (1, 2, 4, 5, 9)] == [1, 4, 4, 8, 9]
    assert next_allowed(3, ()) == 3


@pytest.mark.parametrize(
    "dtype",
    ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", "c8", "c16", "O"],
)
def test_what_is_padded_keeps_its_type(dtype):
    short, long = (
        ([[b"a", b"b"]], [[b"c", b"d", b"e"]]) if dtype == "O" else ([[1, 0]], [[1, 0, 1]])
    )
    parts = [np.array(part, dtype) for part in (short, long)]
    whole = merge([{"x": part} for part in parts]).inputs["x"]
    assert whole.dtype == np.dtype(dtype)
    assert whole.tolist() == [[*parts[0][0].tolist(), parts[0][0, 0]], parts[1][0].tolist()]


def test_bfloat16_that_is_padded_keeps_its_type():
    parts = [np.ones((1, n), ml_dtypes.bfloat16) for n in (1, 3)]
    whole = merge([{"x": part} for part in parts]).inputs["x"]
    assert (whole.dtype, whole.shape) == (parts[0].dtype, (2, 3))


def test_parts_of_a_call_whose_batches_were_padded_unlike_are_joined():
    parts = [np.array([[1, 2]]), np.array([[3, 4, 5]])]
    assert [p.tolist() for p in same_lengths(parts)] == [[[1, 2, 1]], [[3, 4, 5]]]
