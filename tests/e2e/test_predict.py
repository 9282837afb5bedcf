"""Predict with the official stubs, on both transports: what goes in, and what must come out."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

TYPES = (
    *("float16", "float32", "float64", "bfloat16", "bool", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


def test_half_plus_two(server):
    outputs = server.predict("half_plus_two", {"x": np.float32([1, 2, 5])})
    assert outputs["y"].tolist() == [2.5, 3.0, 4.5]
    assert outputs["y"].dtype == np.float32


def test_the_answer_says_who_answered(server):
    from tests.e2e.process import request

    answer = server.prediction.Predict(request("half_plus_two", {"x": np.float32([1])}), timeout=10)
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (
        "half_plus_two",
        1,
        "serving_default",
    )
    # typed values, as TensorFlow Serving answers: clients read them without TensorFlow
    assert list(answer.outputs["y"].float_val) == [2.5]
    assert answer.outputs["y"].tensor_content == b""


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (2, 3, 4)], ids=str)
def test_every_type_and_rank_comes_back_as_it_went(server, name, shape):
    rng = np.random.default_rng(3)
    dtype = ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)
    values = rng.integers(0, 100, shape)
    array = (values % 2 == 0) if name == "bool" else values.astype(dtype)
    (y,) = server.predict("echo", {"x": array}, signature=name).values()
    assert y.dtype == array.dtype
    assert y.shape == shape
    assert np.array_equal(y, array)


@pytest.mark.parametrize("shape", [(), (2,), (2, 2)], ids=str)
def test_strings_come_back_as_they_went(server, shape):
    array = np.full(shape, b"a\0\xff", object)
    (y,) = server.predict("echo", {"x": array.tolist()}, signature="string").values()
    assert y.shape == shape
    assert y.tolist() == array.tolist()


def test_an_output_filter_selects(server):
    inputs = {"x": np.ones((2, 3), np.float32), "z": np.int32([4])}
    assert server.predict("echo", inputs)["sum"] == 10.0
    assert list(server.predict("echo", inputs, outputs=["sum"])) == ["sum"]


def test_a_tensorflow_1_export_with_a_table(server):
    outputs = server.predict("tf1_with_table", {"words": [b"dog", b"cat", b"cow"]})
    assert outputs["ids"].tolist() == [1, 0, -1]
    assert outputs["score"].tolist() == [10.0, 1.0, 1.0]


@pytest.mark.parametrize("model", ["keras_saved_plainly", "keras_exported"])
def test_keras_models(server, model):
    signature = server.metadata(model).metadata["signature_def"]
    from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

    signatures = SignatureDefMap()
    assert signature.Unpack(signatures)
    ((alias, info),) = signatures.signature_def["serving_default"].inputs.items()
    shape = [2, *[d.size for d in info.tensor_shape.dim[1:]]]
    (y,) = server.predict(model, {alias: np.ones(shape, np.float32)}).values()
    assert y.shape == (2, 3)
    assert np.allclose(y.sum(axis=1), 1.0)


def test_a_signature_that_keeps_state_keeps_it(server):
    first = float(server.predict("counter", {"x": np.float32(1)})["total"])
    second = float(server.predict("counter", {"x": np.float32(1)})["total"])
    assert second == first + 1


def test_a_lookup_table(server):
    outputs = server.predict("digit_names", {"keys": [[b"1"], [b"7"]]})
    assert outputs["values"].tolist() == [[b"one"], [b""]]


def test_a_tensor_of_64_mb(server):
    array = np.random.default_rng(0).random((4, 4_000_000), np.float32)
    (y,) = server.predict("echo", {"x": array}, signature="float32", timeout=60).values()
    assert np.array_equal(y, array)


def test_metadata_shows_tensorflows_own_signature_too(server):
    from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

    answer = server.metadata("half_plus_two")
    assert answer.model_spec.name == "half_plus_two"
    assert answer.model_spec.version.value == 1
    assert answer.model_spec.signature_name == ""
    signatures = SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == {"serving_default", "__saved_model_init_op"}
    signature = signatures.signature_def["serving_default"]
    assert signature.inputs["x"].name == "serving_default_x:0"
    assert signature.method_name == "tensorflow/serving/predict"


def test_many_calls_at_once_all_get_their_own_answer(server):
    from tests.e2e.process import request

    def ask(i):
        return server.prediction.Predict.future(
            request("half_plus_two", {"x": np.float32([i])}), timeout=30
        )

    futures = [ask(i) for i in range(300)]
    answers = [f.result().outputs["y"].float_val[0] for f in futures]
    assert answers == [0.5 * i + 2 for i in range(300)]
