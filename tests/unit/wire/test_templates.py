"""A request that fits a template is the request that parsing would have found."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from servingd.core.types import DataType, ModelSpec
from servingd.wire.protos import InputsRequest, PredictRequest, TensorProto
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.encoding import encode_as_content
from servingd.wire.tensors.templates import MAX_TOTAL_BYTES, RequestTemplates

SPEC = ModelSpec("m")
CARRIED = [t for t in DataType if t in (1, 2, 3, 4, 5, 6, 8, 9, 14, 17, 18, 19, 22, 23)]


def request(array, data_type=DataType.FLOAT, *, name="m", alias="x", outputs=()):
    message = PredictRequest()
    message.model_spec.name = name
    message.inputs[alias].MergeFromString(encode_as_content(array, data_type))
    message.output_filter.extend(outputs)
    return message


def read(template, payload, alias="x"):
    """One tensor of a request that fits a template."""
    array, only = template.record(payload)[template.fields[alias]], template.only_array(payload)
    assert (only is None) is (len(template.fields) > 1)
    if only is not None:
        assert (only.dtype, only.shape) == (array.dtype, array.shape)
        assert only.tobytes() == array.tobytes()
    return array


def learn(templates, message):
    payload = message.SerializeToString()
    templates.learn(payload, InputsRequest.FromString(payload), SPEC)


def learnt(message: PredictRequest) -> tuple[RequestTemplates, bytes]:
    """Templates that have seen a request twice, and its bytes."""
    templates, payload = RequestTemplates(), message.SerializeToString()
    for _ in range(2):
        templates.learn(payload, InputsRequest.FromString(payload), SPEC)
    return templates, payload


@pytest.mark.parametrize("data_type", CARRIED, ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(3,), (), (2, 2)], ids=str)
def test_other_numbers_of_one_form_are_read_where_they_lie(data_type, shape):
    templates, _ = learnt(request(np.ones(shape), data_type, outputs=["y"]))
    message = request(np.full(shape, 7), data_type, outputs=["y"])
    template = templates.find(message.SerializeToString())
    assert template is not None
    array = read(template, message.SerializeToString())
    expected = decode(message.inputs["x"], "x")
    assert array.dtype == expected.dtype
    assert array.shape == shape
    assert np.array_equal(array, expected)
    assert list(template.aliases) == ["x"]
    assert template.output_filter == ("y",)
    assert template.data_types == {"x": data_type}


def test_a_form_is_learnt_when_it_comes_again():
    templates, message = RequestTemplates(), request(np.ones(3))
    payload = message.SerializeToString()
    templates.learn(payload, InputsRequest.FromString(payload), SPEC)
    assert templates.find(payload) is None
    templates.learn(payload, InputsRequest.FromString(payload), SPEC)
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
        request(np.ones(3), alias="x" * (33 << 10)),
        PredictRequest(inputs={"x": TensorProto(dtype=1, float_val=[1, 2])}),
        PredictRequest(inputs={"x": TensorProto(dtype=1, tensor_content=b"12345")}),
        PredictRequest(inputs={"x": TensorProto(dtype=3, int_val=[1])}),
        PredictRequest(
            inputs={
                "x": TensorProto(dtype=1, tensor_content=b"1234"),
                "y": TensorProto(dtype=7, string_val=[b"a"]),
            }
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
            assert np.array_equal(read(template, candidate), decode(parsed.inputs["x"], "x"))


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
        assert read(template, bytes(changed)).tobytes() == expected.tobytes()


def test_there_is_an_end_to_learning():
    templates = RequestTemplates()
    for size in range(1, 600):
        message = request(np.ones(size))
        for _ in range(2):
            learn(templates, message)
    assert len(templates._by_length) <= 258
    assert len(templates._seen) <= 1026


# Many tensors -----------------------------------------------------------------------------------

ALIASES = st.text(max_size=3)
FIXED = {1: ("float_val", "<f4"), 2: ("double_val", "<f8")}
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 9: "<i8", 23: "<u8"}


@st.composite
def tensors(draw):
    """A tensor whose numbers lie in one piece, as content or as a packed list."""
    data_type = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(st.lists(st.integers(1, 3), max_size=3))
    dtype = np.dtype(DTYPES[data_type])
    content = draw(st.binary(min_size=1, max_size=4)) * 400
    array = np.frombuffer(content, dtype, int(np.prod(shape)))
    tensor = TensorProto(dtype=data_type)
    for size in shape:
        tensor.tensor_shape.dim.add().size = size
    if data_type in FIXED and draw(st.booleans()):
        getattr(tensor, FIXED[data_type][0]).extend(array.tolist())
    else:
        tensor.tensor_content = array.tobytes()
    return tensor


many = st.dictionaries(ALIASES, tensors(), min_size=1, max_size=5)


def agrees(template, payload):
    parsed = PredictRequest.FromString(payload)
    assert parsed.inputs.keys() == set(template.aliases)
    for alias, tensor in parsed.inputs.items():
        array, expected = read(template, payload, alias), decode(tensor, alias)
        assert template.data_types[alias] == tensor.dtype
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert array.tobytes() == expected.tobytes()


@settings(max_examples=200)
@given(many)
def test_all_tensors_of_a_request_are_read_where_they_lie(inputs):
    templates, payload = learnt(PredictRequest(inputs=inputs))
    template = templates.find(payload)
    if any(float(x) != float(x) for t in inputs.values() for x in (*t.float_val, *t.double_val)):
        return  # what is no number may have other bits in a list of Python's
    assert template is not None
    agrees(template, payload)


@settings(max_examples=300)
@given(many, st.data())
def test_whatever_fits_means_what_it_says_in_all_its_tensors(inputs, data):
    templates, payload = learnt(PredictRequest(inputs=inputs))
    changed = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    template = templates.find(bytes(changed))
    if template is not None:
        agrees(template, bytes(changed))


def test_an_input_that_is_there_twice_is_parsed():
    """The last one counts."""
    twice = request(np.ones(3)).SerializeToString() + request(np.zeros(3)).SerializeToString()
    templates = RequestTemplates()
    for _ in range(2):
        templates.learn(twice, InputsRequest.FromString(twice), SPEC)
    assert templates.find(twice) is None


def test_a_tensor_in_two_parts_is_parsed():
    """Parsing merges them."""
    tensor = encode_as_content(np.ones(3), DataType.FLOAT)
    entry = b"\x0a\x01x" + 2 * (b"\x12" + bytes([len(tensor)]) + tensor)
    payload = b"\x12" + bytes([len(entry)]) + entry
    templates = RequestTemplates()
    for _ in range(2):
        templates.learn(payload, InputsRequest.FromString(payload), SPEC)
    assert templates.find(payload) is None


def test_frames_are_bounded_in_all():
    templates = RequestTemplates()
    for size in range(2000):
        message = request(np.ones(1), alias="x" * (size + 4000))
        for _ in range(2):
            learn(templates, message)
    held = sum(t.frame_bytes for found in templates._by_length.values() for t in found)
    assert held <= MAX_TOTAL_BYTES
