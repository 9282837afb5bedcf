"""A request that fits a template means what it means when it is parsed."""

from __future__ import annotations

import math

import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.types import DataType, ModelSpec, Signature, TensorSpec
from servingd.frontends.oip.templates import Templates
from servingd.wire import protos

SIZES = {"FP32": 4, "INT64": 8, "UINT8": 1, "FP16": 2}
TENSORS = st.lists(
    st.tuples(
        st.sampled_from(["x", "a b", ":"]),
        st.sampled_from(sorted(SIZES)),
        st.lists(st.integers(0, 3), max_size=2),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tensor: tensor[0],
)


def request_of(tensors, fill: bytes, name: str = "m"):
    message = protos.ModelInferRequest(model_name=name)
    for alias, datatype, shape in tensors:
        message.inputs.add(name=alias, datatype=datatype, shape=shape)
        size = SIZES[datatype] * math.prod(shape)
        message.raw_input_contents.append((fill * size)[:size])
    return message


def inputs_of(message):
    return {
        tensor.name: (tensor.datatype, tuple(tensor.shape), raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }


@given(TENSORS, st.binary(min_size=1, max_size=3), st.binary(min_size=1, max_size=3))
def test_other_values_of_the_same_frame_fit(tensors, one: bytes, other: bytes) -> None:
    templates = Templates()
    first = request_of(tensors, one)
    assert templates.learn(first.SerializeToString(), first, ModelSpec("m")) is not None
    second = request_of(tensors, other)
    payload = second.SerializeToString()
    template = templates.find(payload)
    assert template is not None
    found = {alias: value.read() for alias, value in template.given(payload).items()}
    for alias, (_, shape, raw) in inputs_of(second).items():
        assert found[alias].shape == shape
        assert found[alias].tobytes() == raw


@given(TENSORS, st.binary(min_size=1, max_size=2), st.data())
def test_whatever_fits_is_what_parsing_gives(tensors, fill: bytes, data) -> None:
    templates = Templates()
    first = request_of(tensors, fill)
    payload = bytearray(first.SerializeToString())
    templates.learn(bytes(payload), first, ModelSpec("m"))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(payload)
    template = templates.find(changed)
    if template is None:
        return
    try:
        parsed = protos.ModelInferRequest.FromString(changed)
    except DecodeError as error:
        raise AssertionError("what does not parse must not fit") from error
    assert (parsed.model_name, parsed.id) == ("m", "")
    found = {alias: value.read().tobytes() for alias, value in template.given(changed).items()}
    assert found == {alias: raw for alias, (_, _, raw) in inputs_of(parsed).items()}


def test_a_bound_template_gives_the_arrays_in_the_signatures_order() -> None:
    templates = Templates()
    first = request_of([("b", "FP32", [2]), ("a", "INT64", [1])], b"\0")
    payload = first.SerializeToString()
    template = templates.learn(payload, first, ModelSpec("m"))
    assert template is not None
    signature = Signature(
        "s",
        {"a": TensorSpec(DataType.INT64, (None,)), "b": TensorSpec(DataType.FLOAT, (None,))},
        {},
    )
    assert template.bound(payload, signature) is None
    template.learn_signature(signature)
    bound = template.bound(payload, signature)
    assert bound is not None
    assert list(bound) == ["a", "b"]
    assert (bound["a"].dtype, bound["b"].shape) == (np.int64, (2,))


def test_what_has_no_fixed_size_or_has_a_name_is_not_learned() -> None:
    texts = protos.ModelInferRequest(model_name="m")
    texts.inputs.add(name="x", datatype="BYTES", shape=[0])
    texts.raw_input_contents.append(b"")
    named = request_of([("x", "FP32", [1])], b"\0")
    named.id = "7"
    listed = protos.ModelInferRequest(model_name="m")
    listed.inputs.add(name="x", datatype="FP32", shape=[0])
    for message in (texts, named, listed):
        assert Templates().learn(message.SerializeToString(), message, ModelSpec("m")) is None


def test_requests_of_one_length_do_not_evict_each_other() -> None:
    templates = Templates()
    payloads = []
    for name in ("a", "b", "c"):
        message = request_of([("x", "FP32", [2])], b"\0", name)
        payloads.append(message.SerializeToString())
        templates.learn(payloads[-1], message, ModelSpec(name))
    assert len(set(map(len, payloads))) == 1
    found = [templates.find(payload) for payload in payloads]
    assert [each and each.spec.name for each in found] == ["a", "b", "c"]
