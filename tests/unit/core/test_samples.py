"""Which requests are kept for the next version, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.batching.samples import (
    SampleLimits,
    Samples,
    batches,
    fitting,
    resized,
    sample_of,
)
from servingd.core.types import DataType, Signature, TensorSpec

ANY = 1 << 20
FLOAT = TensorSpec(DataType.FLOAT, (None, None))
LIMITS = SampleLimits(per_signature=3, request_bytes=2000, model_bytes=5000, total_bytes=8000)


def signature(**inputs):
    return Signature("s", inputs, {}, defaults={})


X = signature(x=FLOAT)


def sample(rows=1, columns=1, value=1.0, most=ANY):
    made = sample_of({"x": np.full((rows, columns), value, np.float32)}, X, most)
    assert made is not None
    return made


def kept(samples, model="m", name="s"):
    """Shapes and values of what is kept, the newest first."""
    return [
        (s.inputs["x"].shape, float(s.inputs["x"].flat[0])) for s in samples.of(model).get(name, [])
    ]


@pytest.fixture
def samples():
    made = Samples(LIMITS)
    made.keep_only({"m", "n"})
    return made


def test_a_sample_is_a_copy(samples):
    shared = np.ones((2, 2), np.float32)
    made = sample_of({"x": shared.T}, X, ANY)
    shared[:] = 7
    assert made.inputs["x"].tolist() == [[1, 1], [1, 1]]
    assert made.inputs["x"].flags.c_contiguous


def test_texts_count_with_what_is_in_them():
    spec = signature(x=TensorSpec(DataType.STRING, (None,)))
    long = {"x": np.array([b"x" * 1000], object)}
    assert sample_of(long, spec, 1000) is None
    assert sample_of(long, spec, 2000).size > 1000
    assert sample_of({"x": np.zeros(1000, np.uint8)}, X, 999) is None


def test_the_same_request_is_kept_once_and_is_the_newest_then(samples):
    for value in (1.0, 2.0, 1.0):
        samples.add("m", "s", sample(value=value))
    assert kept(samples) == [((1, 1), 1.0), ((1, 1), 2.0)]


def test_another_form_is_worth_more_than_another_content(samples):
    for rows, value in ((1, 1.0), (2, 2.0), (2, 3.0), (3, 4.0)):
        samples.add("m", "s", sample(rows, value=value))
    assert kept(samples) == [((3, 1), 4.0), ((2, 1), 3.0), ((1, 1), 1.0)]
    samples.add("m", "s", sample(4))
    assert [shape for shape, _ in kept(samples)] == [(4, 1), (3, 1), (2, 1)]


def test_signatures_and_models_do_not_share_places(samples):
    for rows in range(1, 4):
        samples.add("m", "s", sample(rows))
        samples.add("m", "t", sample(rows))
        samples.add("n", "s", sample(rows))
    assert [len(kept(samples, *where)) for where in (("m", "s"), ("m", "t"), ("n", "s"))] == [3] * 3


def test_the_model_that_has_most_makes_room(samples):
    samples.add("n", "s", sample())
    for n in range(3):
        samples.add("m", "s", sample(columns=400, value=n))
    samples.add("n", "s", sample(columns=400))
    samples.add("n", "t", sample(columns=400))
    assert samples.total_bytes <= LIMITS.total_bytes
    assert len(kept(samples)) == 2
    assert len(kept(samples, "n")) == 2


def test_of_a_model_that_is_removed_nothing_is_kept(samples):
    samples.add("m", "s", sample())
    samples.keep_only({"n"})
    samples.add("m", "s", sample())  # a call that was still under way
    assert (samples.of("m"), samples.total_bytes) == ({}, 0)
    samples.keep_only({"m", "n"})
    assert samples.of("m") == {}


requests = st.tuples(
    st.sampled_from("mno"),
    st.sampled_from("st"),
    st.integers(1, 5),
    st.integers(0, 500),
    st.integers(0, 2),
)


@given(st.lists(requests, max_size=40))
def test_the_limits_always_hold_and_nothing_is_kept_twice(arrivals):
    samples = Samples(LIMITS)
    samples.keep_only("mn")
    for model, name, rows, columns, value in arrivals:
        new = sample(rows, columns, float(value))
        samples.add(model, name, new)
        sizes = {m: sum(s.size for of in samples.of(m).values() for s in of) for m in "mno"}
        assert samples.total_bytes == sum(sizes.values()) <= LIMITS.total_bytes
        assert max(sizes.values()) <= LIMITS.model_bytes
        assert sizes["o"] == 0
        for of in samples.of(model).values():
            contents = [(s.inputs["x"].shape, s.inputs["x"].tobytes()) for s in of]
            assert len(contents) == len(set(contents)) <= LIMITS.per_signature
            assert all(s.size <= LIMITS.request_bytes for s in of)
        fits = model != "o" and new.size <= LIMITS.request_bytes
        mine = samples.of(model).get(name, [])
        if fits and sizes[model] != max(sizes.values()):
            assert mine[0] is new


# What becomes of them on another version


@pytest.mark.parametrize(
    ("inputs", "fits"),
    [
        ({"x": FLOAT}, True),
        ({"x": TensorSpec(DataType.FLOAT, None)}, True),
        ({"x": TensorSpec(DataType.FLOAT, (None, 2))}, True),
        ({"x": TensorSpec(DataType.FLOAT, (None, 3))}, False),
        ({"x": TensorSpec(DataType.FLOAT, (None,))}, False),
        ({"x": TensorSpec(DataType.DOUBLE, (None, 2))}, False),
        ({"y": FLOAT}, False),
        ({"x": FLOAT, "y": FLOAT}, False),
        ({}, False),
    ],
)
def test_what_does_not_fit_another_version_is_told(inputs, fits):
    assert (fitting(sample(1, 2), signature(**inputs)) is not None) is fits


@pytest.mark.parametrize(
    ("shape", "fits"), [((None, None), True), ((None, 3), False), (None, True)]
)
def test_a_shape_that_no_signature_names_goes_on_where_the_same_is_named(shape, fits):
    made = sample_of({"x": np.ones(3, np.float32)}, X, ANY)
    assert (fitting(made, signature(x=TensorSpec(DataType.FLOAT, shape))) is not None) is fits


def test_inputs_come_in_the_signatures_order_and_new_ones_have_their_default():
    two = signature(a=FLOAT, b=FLOAT)
    made = sample_of({a: np.ones((1, 1), np.float32) for a in "ab"}, two, ANY)
    default = {"c": np.zeros((1, 1), np.float32)}
    other = Signature("s", {"c": FLOAT, "b": FLOAT, "a": FLOAT}, {}, defaults=default)
    assert list(fitting(made, other)) == ["c", "b", "a"]
    assert fitting(made, other)["c"] is default["c"]


def shapes(made):
    return [inputs["x"].shape for inputs in made]


def test_batches_are_of_the_sizes_in_use_that_no_request_has():
    two = [sample(2, 3).inputs, sample(1, 3).inputs]
    assert shapes(batches(two, [4, 1, 2, 8], ANY)) == [(4, 3), (8, 3)]
    assert batches(two, [], ANY) == []


def test_each_kind_of_request_has_batches_of_its_own():
    two = [sample(1, 2).inputs, sample(1, 3).inputs]
    assert shapes(batches(two, [4], ANY)) == [(4, 2), (4, 3)]


def test_a_batch_that_would_be_too_large_is_not_made():
    one = [sample(1, 100).inputs]
    assert shapes(batches(one, [2, 1000], 10_000)) == [(2, 100)]


@pytest.mark.parametrize("array", [np.float32(1), np.zeros((0, 3), np.float32)])
def test_what_has_no_rows_is_in_no_batch(array):
    assert batches([{"x": np.asarray(array)}], [4], ANY) == []


@given(st.integers(1, 9), st.integers(1, 40))
def test_a_batch_repeats_a_requests_rows(own, rows):
    array = np.arange(own * 2).reshape(own, 2)
    made = resized({"x": array}, rows)["x"]
    assert made.shape == (rows, 2)
    for row in range(rows):
        assert made[row].tolist() == array[row % own].tolist()
