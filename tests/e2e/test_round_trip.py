"""Whatever tensor a client sends, the model gets, and the client gets back: every type, every
rank, over gRPC in both forms and over REST where JSON has such values."""

from __future__ import annotations

import base64
import http.client
import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow_serving.apis import predict_pb2

from tests.e2e.process import request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

NUMBERS = (
    "float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8",
    "uint16", "uint32", "uint64", "bool", "complex64", "complex128",
)  # fmt: skip
IN_JSON = (
    "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool",
)  # fmt: skip
EXAMPLES = settings(max_examples=60)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)


def numbers(name: str) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any bits: payloads of NaNs and negative zeros among them."""
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    bits = np.dtype(f"u{min(dtype.itemsize, 8)}")
    if name == "bool":
        return hnp.arrays(np.bool_, SHAPES)
    per_value = dtype.itemsize // bits.itemsize

    def of_bits(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
        raw = hnp.arrays(bits, (math.prod(shape) * per_value,))
        return raw.map(lambda array: array.view(dtype).reshape(shape))

    return SHAPES.flatmap(of_bits)


def in_typed_lists(array: np.ndarray):
    """A TensorProto that carries its values one by one, as TensorFlow's own writer does not."""
    import tensorflow as tf

    proto = tf.make_tensor_proto(array)
    kind = array.dtype.name
    proto.tensor_content = b""
    flat = array.reshape(-1)
    if kind in ("float16", "bfloat16"):
        proto.half_val[:] = flat.view(np.uint16).tolist()
    elif kind in ("complex64", "complex128"):
        part = "scomplex" if kind == "complex64" else "dcomplex"
        getattr(proto, f"{part}_val")[:] = flat.view(f"f{array.itemsize // 2}").tolist()
    else:
        name = {"float32": "float", "float64": "double", "uint32": "uint32", "uint64": "uint64"}
        name |= {"int64": "int64", "bool": "bool"}
        getattr(proto, f"{name.get(kind, 'int')}_val")[:] = flat.tolist()
    return proto


def echoed(server, tensor, signature: str):
    ask = request("echo", {"x": tensor}, signature=signature)
    return server.prediction.Predict(ask, timeout=30).outputs["y"]


def same_bits(proto, array: np.ndarray) -> bool:
    import tensorflow as tf

    found = tf.make_ndarray(proto)
    assert found.dtype == array.dtype
    return found.shape == array.shape and found.tobytes() == array.tobytes()


def quiet(array: np.ndarray) -> np.ndarray:
    """Signalling NaNs made quiet: typed lists are Python floats, which make them so on the way."""
    if array.dtype == np.float32:
        return np.float32(array.astype(np.float64))
    if array.dtype == np.complex64:
        return quiet(array.reshape(-1).view(np.float32)).view(np.complex64).reshape(array.shape)
    return array


@pytest.mark.parametrize("name", NUMBERS)
def test_every_bit_of_a_tensor_comes_back(server, name):
    import tensorflow as tf

    @EXAMPLES
    @given(array=numbers(name))
    def check(array):
        array = quiet(array)
        proto = tf.make_tensor_proto(array)
        proto.tensor_content = array.tobytes()
        for field, _ in proto.ListFields():
            if field.name.endswith("_val"):
                proto.ClearField(field.name)
        assert same_bits(echoed(server, proto, name), array)
        assert same_bits(echoed(server, in_typed_lists(array), name), array)

    check()


def test_strings_of_any_bytes_come_back(server):
    import tensorflow as tf

    @EXAMPLES
    @given(array=hnp.arrays(object, SHAPES, elements=st.binary(max_size=9), fill=st.nothing()))
    def check(array):
        proto = echoed(server, tf.make_tensor_proto(array, tf.string, array.shape), "string")
        found = tf.make_ndarray(proto)
        assert found.shape == array.shape
        assert found.reshape(-1).tolist() == array.reshape(-1).tolist()

    check()


@pytest.fixture
def connection(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    yield connection
    connection.close()


def posted(connection, signature: str, inputs: str):
    body = f'{{"signature_name": "{signature}", "inputs": {inputs}}}'
    connection.request("POST", "/v1/models/echo:predict", body.encode())
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, (body, text)
    return json.loads(text)["outputs"]


@pytest.mark.parametrize("name", IN_JSON)
def test_every_value_that_json_has_comes_back(connection, name):
    @EXAMPLES
    @given(array=numbers(name))
    def check(array):
        found = posted(connection, name, json.dumps(array.tolist()))
        back = np.array(found, dtype=array.dtype).reshape(array.shape)
        assert np.shape(found) == array.shape or array.size == 0
        plain = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
        assert np.array_equal(plain, np.isnan(back) if array.dtype.kind == "f" else plain)
        assert back[~plain].tobytes() == array[~plain].tobytes()

    check()


def test_every_text_comes_back_through_json(connection):
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)

    @EXAMPLES
    @given(
        array=hnp.arrays(object, SHAPES, elements=texts, fill=st.nothing()), as_bytes=st.booleans()
    )
    def check(array, as_bytes):
        def sent(value):
            if isinstance(value, list):
                return [sent(v) for v in value]
            return {"b64": base64.b64encode(value.encode()).decode()} if as_bytes else value

        assert posted(connection, "string", json.dumps(sent(array.tolist()))) == array.tolist()

    check()


def test_bodies_of_messages_come_back_too(connection):
    x = np.float32([[np.nan, -0.0, 1e-45]])
    ask = request("echo", {"x": x}, signature="float32").SerializeToString()
    headers = {"content-type": "application/x-protobuf"}
    connection.request("POST", "/v1/models/echo:predict", ask, headers)
    answer = predict_pb2.PredictResponse.FromString(connection.getresponse().read())
    assert same_bits(answer.outputs["y"], x)
