"""A request that fits a template is the request that parsing would have found."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from servingd.core.types import DataType, ModelSpec
from servingd.wire.protos import PredictRequest, TensorProto
from servingd.wire.tensors.proto import decode, encode_as_content
from servingd.wire.tensors.templates import RequestTemplates

SPEC = ModelSpec("m")
CARRIED = [t for t in DataType if t in (1, 2, 3, 4, 5, 6, 8, 9, 14, 17, 18, 19, 22, 23)]


def request(array, data_type=DataType.FLOAT, *, name="m", alias="x", outputs=()):
    message = PredictRequest()
    message.model_spec.name = name
    message.inputs[alias].MergeFromString(encode_as_content(array, data_type))
    message.output_filter.extend(outputs)
    return message


def learnt(message: PredictRequest) -> tuple[RequestTemplates, bytes]:
    """Templates that have seen a request twice, and its bytes."""
    templates, payload = RequestTemplates(), message.SerializeToString()
    for _ in range(2):
        templates.learn(payload, PredictRequest.FromString(payload), SPEC)
    return templates, payload


@pytest.mark.parametrize("data_type", CARRIED, ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(3,), (), (2, 2)], ids=str)
def test_other_numbers_of_one_form_are_read_where_they_lie(data_type, shape):
    templates, _ = learnt(request(np.ones(shape), data_type, outputs=["y"]))
    message = request(np.full(shape, 7), data_type, outputs=["y"])
    template = templates.find(message.SerializeToString())
    assert template is not None
    array = template.array(message.SerializeToString())
    expected = decode(message.inputs["x"], "x")
    assert array.dtype == expected.dtype
    assert array.shape == shape
    assert np.array_equal(array, expected)
    assert list(template.aliases) == ["x"]
    assert template.output_filter == ("y",)
    assert template.data_type == data_type


def test_a_form_is_learnt_when_it_comes_again():
    templates, message = RequestTemplates(), request(np.ones(3))
    payload = message.SerializeToString()
    templates.learn(payload, message, SPEC)
    assert templates.find(payload) is None
    templates.learn(payload, message, SPEC)
    assert templates.find(payload) is not None


@pytest.mark.parametrize(
    "other",
    [
        request(np.ones(3), name="n"),
        request(np.ones(3), alias="y"),
        request(np.ones(3), DataType.INT32),
        request(np.ones((3, 1))),
        request(np.ones(4)),
        request(np.ones(3), outputs=["y"]),
    ],
)
def test_another_form_is_another(other):
    templates, _ = learnt(request(np.ones(3)))
    assert templates.find(other.SerializeToString()) is None


@pytest.mark.parametrize(
    "message",
    [
        request([b"a", b"b"], DataType.STRING),
        request([True], DataType.BOOL),
        request(np.ones(0)),
        request(np.ones(3), alias="x" * 2000),
        PredictRequest(inputs={"x": TensorProto(dtype=1, float_val=[1, 2])}),
        PredictRequest(inputs={"x": TensorProto(dtype=1, tensor_content=b"12345")}),
        PredictRequest(
            inputs={k: TensorProto(dtype=1, tensor_content=b"1234") for k in ("x", "y")}
        ),
        PredictRequest(),
    ],
)
def test_what_must_be_looked_at_is_not_learnt(message):
    templates, payload = learnt(message)
    assert templates.find(payload) is None


def test_content_that_stands_elsewhere_too_is_not_mistaken():
    """The model is called as its numbers read."""
    array = np.frombuffer(b"abcd", np.float32)
    templates, payload = learnt(request(array, name="abcd"))
    other = request(np.float32([1]), name="abcd").SerializeToString()
    for candidate in (payload, other):
        template = templates.find(candidate)
        if template is not None:
            parsed = PredictRequest.FromString(candidate)
            assert np.array_equal(template.array(candidate), decode(parsed.inputs["x"], "x"))


@settings(max_examples=300)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=4),
    st.data(),
    st.sampled_from(["", "m", "model"]),
)
def test_whatever_fits_means_what_it_says(values, data, name):
    """Bytes changed anywhere: if they still fit, parsing agrees with the template in everything."""
    templates, payload = learnt(request(np.float32(values), name=name))
    changed = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    template = templates.find(bytes(changed))
    if template is not None:
        parsed = PredictRequest.FromString(bytes(changed))
        assert list(parsed.inputs) == list(template.aliases)
        assert parsed.model_spec.name == name
        expected = decode(parsed.inputs["x"], "x")
        assert template.array(bytes(changed)).tobytes() == expected.tobytes()


def test_there_is_an_end_to_learning():
    templates = RequestTemplates()
    for size in range(1, 600):
        message = request(np.ones(size))
        for _ in range(2):
            templates.learn(message.SerializeToString(), message, SPEC)
    assert len(templates._by_length) <= 258
    assert len(templates._seen) <= 1026
