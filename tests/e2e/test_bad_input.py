"""Wrong requests, on both transports: the documented code and text, and the server goes on."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from tests.e2e.process import request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

PREDICT = "/tensorflow.serving.PredictionService/Predict"
X = np.float32([1, 2])


def tensor(**fields):
    """A TensorProto, field by field."""
    from tensorflow.core.framework import tensor_pb2

    dims = fields.pop("dims", None)
    proto = tensor_pb2.TensorProto(**fields)
    for size in dims or ():
        proto.tensor_shape.dim.add(size=size)
    return proto


def without_spec():
    message = request("m", {"x": X})
    message.ClearField("model_spec")
    return message


def labelled(label):
    message = request("half_plus_two", {"x": X})
    message.model_spec.version_label = label
    return message


TABLE = {
    "no model_spec": (without_spec, "INVALID_ARGUMENT", "Missing ModelSpec"),
    "no name": (
        lambda: request("", {"x": X}),
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    "unknown model": (
        lambda: request("nobody", {"x": X}),
        "NOT_FOUND",
        "Servable not found for request: Latest(nobody)",
    ),
    "unknown version": (
        lambda: request("half_plus_two", {"x": X}, version=7),
        "NOT_FOUND",
        "Servable not found for request: Specific(half_plus_two, 7)",
    ),
    "unknown label": (
        lambda: labelled("stable"),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: stable",
    ),
    "unknown signature": (
        lambda: request("half_plus_two", {"x": X}, signature="nothing"),
        "FAILED_PRECONDITION",
        'Serving signature key "nothing" not found.',
    ),
    "missing input": (
        lambda: request("half_plus_two", {}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
        "Missing but required: {x}.",
    ),
    "extra input": (
        lambda: request("half_plus_two", {"x": X, "b": X, "a": X}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). Sent extra: {a,b}. "
        "Missing but required: {}.",
    ),
    "unknown input": (
        lambda: request("half_plus_two", {"y": X}),
        "INVALID_ARGUMENT",
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no "
        "default value provided. Inputs expected to be in the request {y}, or default input alias "
        "set: {}",
    ),
    "wrong dtype": (
        lambda: request("half_plus_two", {"x": np.int32([1])}),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but int32 is provided",
    ),
    "strings for floats": (
        lambda: request("half_plus_two", {"x": [b"a"]}),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but string is provided",
    ),
    "no dtype": (
        lambda: request("half_plus_two", {"x": tensor()}),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "content against shape": (
        lambda: request("half_plus_two", {"x": tensor(dtype=1, dims=[3], tensor_content=b"1234")}),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "a negative dimension": (
        lambda: request("half_plus_two", {"x": tensor(dtype=1, dims=[-3], float_val=[1])}),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "twenty bytes that announce 2^40 elements": (
        lambda: request("half_plus_two", {"x": tensor(dtype=1, dims=[1 << 40], float_val=[1])}),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    "unknown output": (
        lambda: request("half_plus_two", {"x": X}, outputs=["z"]),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
    ),
    "an output twice": (
        lambda: request("half_plus_two", {"x": X}, outputs=["y", "y"]),
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: y",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_wrong_request_is_told_what_is_wrong(server, case):
    make, code, text = TABLE[case]
    with pytest.raises(grpc.RpcError) as failure:
        server.prediction.Predict(make(), timeout=10)
    assert failure.value.code().name == code
    assert failure.value.details() == text
    assert server.predict("half_plus_two", {"x": X})["y"].tolist() == [2.5, 3.0]


def raw(server, method, payload):
    return server.channel.unary_unary(method)(payload, timeout=30)


@pytest.mark.parametrize("cut", [1, 5, 20, 40])
def test_a_truncated_message_is_invalid(server, cut):
    payload = request("half_plus_two", {"x": X}).SerializeToString()
    with pytest.raises(grpc.RpcError) as failure:
        raw(server, PREDICT, payload[:-cut])
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "does not parse as tensorflow.serving.PredictRequest" in failure.value.details()


def test_an_empty_body_has_no_model_spec(server):
    for method in ("PredictionService/Predict", "PredictionService/GetModelMetadata"):
        with pytest.raises(grpc.RpcError, match="Missing ModelSpec"):
            raw(server, f"/tensorflow.serving.{method}", b"")


def test_a_body_over_the_limit_is_refused(server):
    with pytest.raises(grpc.RpcError) as failure:
        raw(server, PREDICT, bytes(100_000_001))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Received message larger than max (100000001 vs. 100000000)" in failure.value.details()


def test_an_unknown_method_is_unimplemented(server):
    with pytest.raises(grpc.RpcError) as failure:
        raw(server, "/tensorflow.serving.SessionService/SessionRun", b"")
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_status_and_metadata_of_what_is_not_there(server):
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

    status = get_model_status_pb2.GetModelStatusRequest()
    for name, version, text in (
        ("nobody", None, "Could not find any versions of model nobody"),
        ("half_plus_two", 9, "Could not find version 9 of model half_plus_two"),
    ):
        status.model_spec.name = name
        if version:
            status.model_spec.version.value = version
        with pytest.raises(grpc.RpcError) as failure:
            server.model.GetModelStatus(status, timeout=10)
        assert failure.value.code() is grpc.StatusCode.NOT_FOUND
        assert failure.value.details() == text
    metadata = get_model_metadata_pb2.GetModelMetadataRequest()
    metadata.model_spec.name = "half_plus_two"
    for fields, text in (
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["weights"], "Metadata field weights is not supported"),
    ):
        metadata.metadata_field[:] = fields
        with pytest.raises(grpc.RpcError) as failure:
            server.prediction.GetModelMetadata(metadata, timeout=10)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert failure.value.details() == text


def test_an_error_of_the_model_keeps_its_code(server):
    with pytest.raises(grpc.RpcError) as failure:
        server.predict("echo", {"x": [b"1"], "z": np.int32([1])})
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_call_whose_time_is_up_is_told_so_and_harms_nobody(server):
    with pytest.raises(grpc.RpcError) as failure:
        server.predict("slow", {"n": np.int32(300_000)}, timeout=0.1)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.predict("half_plus_two", {"x": X})["y"].tolist() == [2.5, 3.0]
