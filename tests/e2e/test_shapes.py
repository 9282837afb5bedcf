"""Inputs of other shapes than a signature names are run, as TensorFlow Serving runs them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from tests import exports
from tests.e2e.process import Process, request
from tests.http_client import Answers, connect, post

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

NUMBERS = np.array([1.0, 2.0, 5.0], np.float32)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    for name, shape in exports.SHAPES.items():
        exports.half_of_shape(root / name / "1", shape)
        exports.half_of_shape_as_tflite(root / f"{name}_lite" / "1", shape)
    exports.weighted(root / "weighted" / "1")
    for left in root.glob("*/1-saved-model"):
        left.rename(root.parent / f"{left.parent.name}-saved")
    return root


@pytest.fixture(scope="module", params=["plain", "batching", "merging"])
def server(request, repository, tmp_path_factory):
    flags = {
        "plain": (),
        "batching": ("--enable_batching",),
        "merging": ("--latency_goal_ms=50", "--optimize_models=wait"),
    }
    process = Process(
        tmp_path_factory.mktemp("server") / "log",
        f"--model_repository={repository}",
        "--prefer_tflite_model",
        *flags[request.param],
    )
    try:
        yield process.wait_until_ready()
    finally:
        process.close()


def rest(server, model, body) -> tuple[int, dict]:
    with connect(server.http_port) as client:
        client.sendall(post(f"/v1/models/{model}:predict", json.dumps(body).encode()))
        status, answer = Answers(client).next()
    return status, json.loads(answer)


@pytest.mark.parametrize("kind", ["", "_lite"])
@pytest.mark.parametrize("name", exports.SHAPES)
def test_the_documented_call_is_answered(server, name, kind):
    model = name + kind
    assert rest(server, model, {"instances": [1.0, 2.0, 5.0]}) == (
        200,
        {"predictions": [2.5, 3.0, 4.5]},
    )
    assert rest(server, model, {"inputs": [[1.0, 2.0, 5.0]]})[0] == 200
    (answer,) = server.predict(model, {"x": NUMBERS}).values()
    assert answer.tolist() == [2.5, 3.0, 4.5]


def test_what_tensorflow_refuses_is_told_with_both_shapes(server):
    with pytest.raises(grpc.RpcError) as refused:
        server.predict("weighted", {"x": np.ones((2, 5), np.float32)})
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    text = refused.value.details()
    assert "Matrix size-incompatible" in text
    assert "(input x: expected a tensor of shape [-1,3], got [2,5])" in text
    status, answer = rest(server, "weighted", {"instances": [[1.0, 2.0]]})
    assert status == 400
    assert "Matrix size-incompatible" in answer["error"]
    assert "expected a tensor of shape [-1,3], got [1,2]" in answer["error"]


def test_a_call_that_does_not_fit_harms_none_that_does(server):
    """Side by side, from many threads: each answer is what the call gets by itself."""

    def one(number: int) -> bool:
        x = np.full((1, 3), number, np.float32)
        if number % 4 == 0:
            try:
                server.predict("weighted", {"x": x[:, :2]})
            except grpc.RpcError as error:
                return "got [1,2]" in error.details()
            return False
        if number % 4 == 1:
            (y,) = server.predict("column", {"x": x[0]}).values()
            return y.tolist() == [0.5 * number + 2.0] * 3
        if number % 4 == 2:
            (y,) = server.predict("column", {"x": x[:, :1]}).values()
            return y.tolist() == [[0.5 * number + 2.0]]
        (y,) = server.predict("weighted", {"x": x}).values()
        return y.tolist() == [[9.0 * number, 12.0 * number]]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(400)))


def test_a_strict_server_refuses_what_the_signature_does_not_name(start, repository):
    server = start(
        f"--model_repository={repository}", "--prefer_tflite_model", "--check_input_shapes"
    ).wait_until_ready()
    for model in ("column", "column_lite"):
        with pytest.raises(grpc.RpcError) as refused:
            server.prediction.Predict(request(model, {"x": NUMBERS}))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details().endswith("expected a tensor of shape [-1,1], got [3]")
        assert rest(server, model, {"instances": [1.0, 2.0]})[0] == 400
        assert rest(server, model, {"instances": [[1.0], [2.0]]})[0] == 200
