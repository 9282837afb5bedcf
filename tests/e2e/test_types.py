"""Servable types besides SavedModels, in a real process, by gRPC and REST."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest

from tests import absent
from tests.e2e.process import Process, request, to_array
from tests.side_by_side import made_once

onnx = pytest.importorskip("onnx")
skops_io = pytest.importorskip("skops.io")
from onnx import helper  # noqa: E402

COLUMNS = {"id": "int64", "name": "string", "v": "float32[2]"}
TABLE = "id,name,v\n7,seven,7 0.5\n8,eight,8 0.5\n"


def rest(server: Process, path: str, body: dict) -> tuple[int, dict]:
    url = f"http://127.0.0.1:{server.http_port}/v1/models/{path}"
    try:
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def make_models(root) -> None:
    by_schema, by_options = root / "by_schema" / "1", root / "by_options" / "1"
    for version in (by_schema, by_options):
        version.mkdir(parents=True)
        (version / "table.csv").write_text(TABLE)
    (by_schema / "schema.json").write_text(json.dumps({"key": "id", "columns": COLUMNS}))
    write_onnx(root / "onnx" / "1")
    write_keras(root / "keras" / "1")
    write_sklearn(root / "sklearn" / "1")


def write_sklearn(version) -> None:
    """Tells flowers by two of their measures; a forest."""
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    version.mkdir(parents=True)
    x, y = load_iris(return_X_y=True)
    kinds = np.array(["setosa", "versicolor", "virginica"])
    model = RandomForestClassifier(10, random_state=1).fit(x[:, 2:], kinds[y])
    skops_io.dump(model, version / "model.skops")


def write_keras(version) -> None:
    """A layer that adds one to twice its inputs."""
    import keras

    version.mkdir(parents=True)
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(2)])
    model.set_weights([2 * np.eye(2), np.ones(2)])
    model.save(version / "model.keras")


def write_onnx(version) -> None:
    """y = x * 2, and a text as it is."""
    version.mkdir(parents=True)
    kinds = {"x": onnx.TensorProto.FLOAT, "text": onnx.TensorProto.STRING}
    infos = [
        [
            helper.make_tensor_value_info(f"{name}{end}", kind, ["rows"])
            for name, kind in kinds.items()
        ]
        for end in ("", "_out")
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["x_out"]),
        helper.make_node("Identity", ["text"], ["text_out"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *infos),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save_model(model, version / "model.onnx")


@pytest.fixture(scope="session")
def typed_models(tmp_path_factory):
    return made_once(tmp_path_factory.getbasetemp(), "typed_models", make_models)


@pytest.fixture(scope="module")
def server(typed_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("types")
    flower = {"length": "float64", "width": "float32"}
    options = {
        "by_options": {"key": "id", "columns": COLUMNS, "missing": "error"},
        "sklearn": {"inputs": flower, "trusted_types": ["sklearn.tree._tree.Tree"]},
    }
    models = [
        {"name": path.name, "base_path": str(path), "platform_options": options.get(path.name, {})}
        for path in sorted(typed_models.iterdir())
    ]
    (folder / "servingd.yaml").write_text(json.dumps({"models": models}))
    flag = f"--servingd_config_file={folder / 'servingd.yaml'}"
    process = Process(folder / "server.log", flag, PYTHONPATH=absent.SEEN)
    try:
        process.wait_until_ready()
        yield process
        assert process.terminate() == 0, process.tail()
        assert "Traceback" not in process.log.read_text(), process.tail()
    finally:
        process.close()


def test_a_table_of_columns(server):
    found = server.predict("by_schema", {"id": np.array([[8], [1]], np.int64)})
    assert {n: v.tolist() for n, v in found.items()} == {
        "name": [[b"eight"], [b""]],
        "v": [[[8, 0.5]], [[0, 0]]],
    }
    answer = rest(server, "by_schema:predict", {"inputs": {"id": [7]}})
    assert answer == (200, {"outputs": {"name": ["seven"], "v": [[7, 0.5]]}})
    signature = server.metadata("by_schema").metadata["signature_def"].value
    assert b"serving_default" in signature


def test_a_table_that_refuses_keys_which_it_lacks(server):
    assert rest(server, "by_options:predict", {"instances": [{"id": 8}]})[1] == {
        "predictions": [{"name": "eight", "v": [8, 0.5]}]
    }
    status, error = rest(server, "by_options:predict", {"inputs": {"id": [8, 9]}})
    assert (status, error["error"]) == (404, "key 9 of input id at [1] is not in the table")
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("by_options", {"id": np.array([9], np.int64)})
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_onnx_model(server):
    x, texts = np.array([1, 2], np.float32), np.array(["é".encode(), b""], object)
    found = server.predict("onnx", {"x": x, "text": texts})
    assert found["x_out"].tolist() == [2, 4]
    assert found["text_out"].tolist() == ["é".encode(), b""]
    body = {"inputs": {"x": [3.5], "text": ["a"]}}
    assert rest(server, "onnx:predict", body) == (
        200,
        {"outputs": {"x_out": [7.0], "text_out": ["a"]}},
    )
    page = json.loads(server.get("/servingd/v1/models/onnx")[1])
    assert "not_merged" in json.dumps(page)
    wrong = {"x": np.array([1], np.int64), "text": texts[:1]}
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("onnx", wrong)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_calls_of_an_onnx_model_that_wait_together_get_their_own_answers(server):
    calls = []
    for n in range(200):
        rows = np.full(1 + n % 3, n, np.float32)
        texts = np.array([str(n).encode()] * len(rows), object)
        message = request("onnx", {"x": rows, "text": texts})
        calls.append((n, server.prediction.Predict.future(message, timeout=30)))
    for n, call in calls:
        outputs = call.result().outputs
        assert to_array(outputs["x_out"]).tolist() == [2 * n] * (1 + n % 3)
        assert set(to_array(outputs["text_out"]).tolist()) == {str(n).encode()}


def test_a_keras_file(server):
    for signature in ("serving_default", "serve"):
        found = server.predict("keras", {"x": np.ones((3, 2), np.float32)}, signature=signature)
        assert found["output_0"].tolist() == [[3, 3]] * 3
    assert rest(server, "keras:predict", {"instances": [[1, 2]]}) == (
        200,
        {"predictions": [[3.0, 5.0]]},
    )


def test_an_estimator(server):
    flowers = {"length": np.array([1.4, 6.0]), "width": np.array([0.2, 2.5], np.float32)}
    found = server.predict("sklearn", flowers)
    assert found["predictions"].tolist() == [b"setosa", b"virginica"]
    found = server.predict("sklearn", flowers, signature="predict_proba")
    assert found["probabilities"].argmax(axis=1).tolist() == [0, 2]
    assert found["classes"].tolist() == [[b"setosa", b"versicolor", b"virginica"]] * 2
    body = {"signature_name": "predict_proba", "instances": [{"length": 1.4, "width": 0.2}]}
    status, answer = rest(server, "sklearn:predict", body)
    (row,) = answer["predictions"]
    assert (status, row["classes"][0], row["probabilities"][0] > 0.9) == (200, "setosa", True)
