"""Merging, filling up and taking apart: for what works row by row nothing is lost or mixed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servingd.core.merging import kind_of, merge, next_allowed, rows_of, split
from servingd.core.types import DataType, TensorSpec
from servingd.errors import FailedPrecondition, InvalidArgument

VARIES = {"y": TensorSpec(DataType.FLOAT, (None, None)), "x": TensorSpec(DataType.FLOAT, None)}


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
    answers = split(outputs, VARIES, sizes, merged)
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
def test_different_lengths_are_padded_and_cut_again(arrays):
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
    spec = {"y": TensorSpec(DataType.FLOAT, (None, None, None))}
    answers = split({"y": whole}, spec, [len(a) for a in arrays], merged)
    for array, answer in zip(arrays, answers, strict=True):
        sides = dict(zip(whole.shape[1:], array.shape[1:], strict=True))
        if whole.shape[1] != whole.shape[2] or array.shape[1] == array.shape[2]:
            assert np.array_equal(answer["y"], array, equal_nan=True)
        else:  # which of two dimensions it came from cannot be told
            assert len(sides) == 1


def test_a_length_that_stands_for_two_things_is_left_alone():
    calls = [
        {"a": np.ones((1, 2)), "b": np.ones((1, 5))},
        {"a": np.ones((1, 5)), "b": np.ones((1, 5))},
    ]
    merged = merge(calls)
    spec = {"y": TensorSpec(DataType.DOUBLE, (None, None))}
    first, second = split({"y": np.ones((2, 5))}, spec, [1, 1], merged)
    assert first["y"].shape == (1, 5)
    fixed = {"y": TensorSpec(DataType.DOUBLE, (None, 5))}
    calls = [{"a": np.ones((1, 2))}, {"a": np.ones((1, 5))}]
    first, second = split({"y": np.ones((2, 5))}, fixed, [1, 1], merge(calls))
    assert first["y"].shape == second["y"].shape == (1, 5)


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
        split({"y": np.float32(1)}, VARIES, [2, 1], merged)
    with pytest.raises(FailedPrecondition, match="0th dimension does not equal the sum"):
        split({"y": np.ones(2)}, VARIES, [2, 1], merged)


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
