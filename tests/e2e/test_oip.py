"""The Open Inference Protocol: any tensor, any way, and every mistake."""

from __future__ import annotations

import http.client
import json
import subprocess

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor as descriptors
from hypothesis import given, settings

from servingd.core.types import DataType
from servingd.wire import protos
from servingd.wire.oip import NAMES, ONLY_RAW, read_list, read_raw, write_list, write_raw
from servingd.wire.tensors.types import numpy_dtype
from tests.e2e.process import request, to_array
from tests.e2e.test_oip_clients import CLIENTS, environment
from tests.e2e.test_round_trip import numbers, quiet

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

SERVICE = "/inference.GRPCInferenceService/"
NUMBERS = [each for each in NAMES if each is not DataType.STRING]
IN_V1 = {"float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "uint64", "bool"}


def dtype_name(data_type: DataType) -> str:
    return numpy_dtype(data_type).name


def ask(server, method: str, message, answer):
    payload = server.channel.unary_unary(SERVICE + method)(message.SerializeToString(), timeout=30)
    return answer.FromString(payload)


def infer_request(array, data_type: DataType, signature: str, *, raw: bool):
    message = protos.ModelInferRequest(model_name="echo")
    message.parameters["signature_name"].string_param = signature
    tensor = message.inputs.add(name="x", datatype=NAMES[data_type], shape=array.shape)
    if raw:
        message.raw_input_contents.append(write_raw(array, data_type))
    else:
        fields = {"b": "bool", "i": "int", "u": "uint", "O": "bytes"}
        name = fields.get(array.dtype.kind, "fp32" if array.itemsize == 4 else "fp64")
        name += "64" if array.dtype.kind in "iu" and array.itemsize == 8 else ""
        getattr(tensor.contents, f"{name}_contents").extend(write_list(array))
    return message


def over_grpc(server, array, data_type: DataType, signature: str, *, raw: bool):
    message = infer_request(array, data_type, signature, raw=raw)
    answer = ask(server, "ModelInfer", message, protos.ModelInferResponse)
    at = next(i for i, tensor in enumerate(answer.outputs) if tensor.name == "y")
    tensor = answer.outputs[at]
    assert tensor.datatype == NAMES[data_type]
    shape = tuple(tensor.shape)
    if answer.raw_output_contents:
        return read_raw(data_type, shape, answer.raw_output_contents[at], "y")
    contents = next(iter(tensor.contents.ListFields()), (None, []))[1]
    return read_list(data_type, shape, list(contents), "y")


def post(server, path: str, body: bytes, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    try:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def over_http(server, array, data_type: DataType, signature: str, *, raw: bool):
    tensor = {"name": "x", "datatype": NAMES[data_type], "shape": list(array.shape)}
    content = b""
    if raw:
        content = write_raw(array, data_type)
        tensor["parameters"] = {"binary_data_size": len(content)}
    else:
        tensor["data"] = array.tolist()
    document = {
        "inputs": [tensor],
        "parameters": {"signature_name": signature, "binary_data_output": raw},
    }
    head = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))} if raw else {}
    status, shown, body = post(server, "/v2/models/echo/infer", head + content, headers)
    assert status == 200, body
    length = int(shown.get("inference-header-content-length", len(body)))
    answer, rest = json.loads(body[:length]), body[length:]
    for output in answer["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        mine, rest = (rest[:size], rest[size:]) if size is not None else (b"", rest)
        if output["name"] == "y":
            shape = tuple(output["shape"])
            if size is None:
                return read_list(data_type, shape, output["data"], "y")
            return read_raw(data_type, shape, mine, "y")
    raise AssertionError(answer)


@pytest.mark.parametrize("data_type", NUMBERS, ids=lambda t: NAMES[t])
def test_each_protocol_gives_the_same_tensor(server, data_type):
    import tensorflow as tf

    name = dtype_name(data_type)

    @settings(max_examples=20, deadline=None)
    @given(numbers(name))
    def check(array):
        array = quiet(array)
        ask_v1 = request("echo", {"x": tf.make_tensor_proto(array)}, signature=name)
        wanted = to_array(server.prediction.Predict(ask_v1, timeout=30).outputs["y"])
        found = [
            over_grpc(server, array, data_type, name, raw=True),
            over_http(server, array, data_type, name, raw=True),
        ]
        if data_type not in ONLY_RAW:
            found.append(over_grpc(server, array, data_type, name, raw=False))
            if array.dtype.kind != "f" or np.isfinite(array).all():
                found.append(over_http(server, array, data_type, name, raw=False))
                if name in IN_V1 and array.ndim and array.size:
                    found.append(over_v1(server, array, name))
        for each in found:
            assert each.shape == wanted.shape
            assert each.tobytes() == wanted.tobytes()

    check()


def over_v1(server, array, name: str):
    body = json.dumps({"signature_name": name, "inputs": array.tolist()}).encode()
    status, _, answer = post(server, "/v1/models/echo:predict", body)
    assert status == 200, answer
    outputs = json.loads(answer)["outputs"]
    return np.array(outputs["y"] if isinstance(outputs, dict) else outputs, name)


def test_texts_of_any_bytes(server):
    array = np.array([[b"", b"\x00\xff"], [b"a", "é".encode()]], object)
    for raw in (True, False):
        found = over_grpc(server, array, DataType.STRING, "string", raw=raw)
        assert found.tolist() == array.tolist()
    assert over_http(server, array, DataType.STRING, "string", raw=True).tolist() == array.tolist()
    texts = np.array([b"a", "é".encode()], object)
    document = {
        "inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["a", "é"]}],
        "parameters": {"signature_name": "string"},
    }
    status, _, body = post(server, "/v2/models/echo/infer", json.dumps(document).encode())
    (y,) = (o for o in json.loads(body)["outputs"] if o["name"] == "y")
    assert (status, y["data"]) == (200, [text.decode() for text in texts])


X = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "expected a JSON object"),
        ({}, "inputs: expected a list of objects"),
        ({"inputs": [{"datatype": "FP32"}]}, "expected each to have a name"),
        ({"inputs": [X, X]}, "input 'x' is there twice"),
        ({"inputs": [{**X, "name": "z"}]}, "input 'x' is missing"),
        ({"inputs": [X, {**X, "name": "z"}]}, "unexpected input 'z'"),
        ({"inputs": [{**X, "datatype": "FLOAT"}]}, "input 'x': expected a datatype among"),
        ({"inputs": [{**X, "datatype": "FP64"}]}, "datatype FP64, and the model expects FP32"),
        ({"inputs": [{**X, "shape": [2]}]}, "expected 2 elements for shape [2], got 1"),
        ({"inputs": [{**X, "shape": "no"}]}, "expected a shape of whole numbers"),
        ({"inputs": [{**X, "shape": [-1]}]}, "without negative sizes"),
        ({"inputs": [{**X, "data": ["a"]}]}, "input 'x': expected FP32"),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]},
            "expected data, or binary_data_size",
        ),
        (
            {"inputs": [{**X, "parameters": {"binary_data_size": 9}}]},
            "binary_data_size: expected up to 0",
        ),
        (
            {"inputs": [{**X, "parameters": {"shared_memory_region": "r"}}]},
            "'shared_memory_region' is not supported",
        ),
        ({"inputs": [X], "outputs": [{"name": "z"}]}, "output tensor alias not found"),
        ({"inputs": [X], "parameters": {"sequence_id": 1}}, "'sequence_id' is not supported"),
        ({"inputs": [X], "parameters": {"timeout": "x"}}, "'timeout': expected a number"),
        ({"inputs": [X], "id": 7}, "id: expected a text"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(server, document, says):
    status, _, body = post(server, "/v2/models/half_plus_two/infer", json.dumps(document).encode())
    assert status == 400
    assert says in json.loads(body)["error"]


def test_paths_that_are_none(server):
    for path in ("/v2/nothing", "/v2/models", "/v2/models/m/stats"):
        assert server.get(path)[0] == 404
    assert server.get("/v2/models/nobody")[0] == 404
    assert server.get("/v2/models/nobody/ready")[0] == 404
    assert server.get("/v2/models/half_plus_two/versions/9/ready")[0] == 503
    assert server.get("/v2/models/half_plus_two/infer")[0] == 404
    status, _, body = post(server, "/v2/models/half_plus_two/infer", b"{")
    assert (status, b"no JSON" in body) == (400, True)
    for length in ("x", "99", "0", "-1"):
        headers = {"inference-header-content-length": length}
        assert post(server, "/v2/models/half_plus_two/infer", b"{}", headers)[0] == 400


def test_wrong_messages_have_their_codes(server):
    call = server.channel.unary_unary(f"{SERVICE}ModelInfer")
    message = infer_request(np.float32([1]), DataType.FLOAT, "float32", raw=True)
    message.raw_input_contents.append(b"")
    nobody = protos.ModelInferRequest(model_name="nobody")
    label = protos.ModelInferRequest(model_name="half_plus_two", model_version="canary")
    short = infer_request(np.float32([1]), DataType.FLOAT, "float32", raw=True)
    short.raw_input_contents[0] = b"abc"
    for payload, code, says in (
        (b"\xff", "INVALID_ARGUMENT", "does not parse as inference.ModelInferRequest"),
        (message.SerializeToString(), "INVALID_ARGUMENT", "one for each of 1 inputs, got 2"),
        (short.SerializeToString(), "INVALID_ARGUMENT", "expected 4 bytes for FP32 [1], got 3"),
        (nobody.SerializeToString(), "NOT_FOUND", "nobody"),
        (label.SerializeToString(), "INVALID_ARGUMENT", "label: canary"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(payload, timeout=10)
        assert caught.value.code().name == code
        assert says in caught.value.details()


def test_fields_have_the_numbers_that_clients_know(tmp_path_factory):
    programs = environment(tmp_path_factory, "tritonclient[grpc,http]", "aiohttp")
    done = subprocess.run(
        [programs / "python", CLIENTS / "triton_fields.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    known = json.loads(done.stdout)
    file = protos.POOL.FindFileByName("inference/grpc_service.proto")
    compared = 0

    def compare(message: descriptors.Descriptor) -> None:
        nonlocal compared
        for field in message.fields:
            kind = field.message_type and field.message_type.full_name
            assert known[message.full_name][field.name] == [field.number, field.type, kind]
            compared += 1
        for nested in message.nested_types:
            compare(nested)

    for message in file.message_types_by_name.values():
        compare(message)
    assert compared > 50
    for method in file.services_by_name["GRPCInferenceService"].methods:
        types = [method.input_type.full_name, method.output_type.full_name]
        assert known["methods"][method.name] == types
