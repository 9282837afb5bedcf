"""TensorFlow Serving's quick start as its documentation has it, on a model of the same form."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from servingd.servables.saved_model.files.completeness import table_entries
from tests import absent
from tests.e2e.process import free_port
from tests.http_client import Answers, connect, post
from tests.tables import SNAPPY, table

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

MODEL = "saved_model_half_plus_two_cpu"
BODY = b'{"instances": [1.0, 2.0, 5.0]}'
READY_S = 60


def half_plus_two(path: Path) -> None:
    """As the demo model is: of TensorFlow 1, rows of one number, four signatures, an asset that
    nothing reads, and an index whose blocks are compressed.
    """
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        a, b = tf1.Variable(0.5, name="a"), tf1.Variable(2.0, name="b")
        c = tf1.Variable(3.0, name="c")
        texts = tf1.placeholder(tf.string, name="tf_example")
        features = {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }
        parsed = tf.io.parse_example(texts, features)
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(tf.multiply(a, x), b, name="y")
        y2 = tf.add(tf.multiply(a, x), c, name="y2")
        y3 = tf.add(tf.multiply(a, parsed["x2"]), c, name="y3")
        asset = path.parent / "foo.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        asset.write_text("asset-file-contents")
        tf1.add_to_collection(tf1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(asset)))
        session.run(tf1.global_variables_initializer())
        info, define = tf1.saved_model.build_tensor_info, tf1.saved_model.build_signature_def
        prefix = "tensorflow/serving/"

        def by_examples(method: str, inputs: object, output: str, value: object):
            return define({"inputs": info(inputs)}, {output: info(value)}, f"{prefix}{method}")

        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": define({"x": info(x)}, {"y": info(y)}, f"{prefix}predict"),
                "regress_x_to_y": by_examples("regress", texts, "outputs", y),
                "regress_x_to_y2": by_examples("regress", texts, "outputs", y2),
                "regress_x2_to_y3": by_examples("regress", parsed["x2"], "outputs", y3),
                "classify_x_to_y": by_examples("classify", texts, "scores", y),
            },
            assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()
    asset.unlink()
    index = path / "variables" / "variables.index"
    index.write_bytes(table(list(table_entries(index.read_bytes())), kind=SNAPPY))


def as_text(path: Path) -> None:
    """As models made without `as_text=False` are."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    file.unlink()
    (path / "saved_model.pbtxt").write_text(text_format.MessageToString(message))


@pytest.fixture(params=["saved_model.pb", "saved_model.pbtxt"])
def port(request, tmp_path):
    """The documented command, with ports of the test's own."""
    version = tmp_path / MODEL / "00000123"
    half_plus_two(version)
    if request.param.endswith("txt"):
        as_text(version)
    rest = free_port()
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                Path(sys.executable).with_name("tensorflow_model_server"),
                f"--port={free_port()}",
                f"--rest_api_port={rest}",
                "--model_name=half_plus_two",
                f"--model_base_path={tmp_path / MODEL}",
            ],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            env={
                **os.environ,
                "SERVINGD_CACHE_DIR": str(tmp_path / "cache"),
                "PYTHONPATH": f"{Path(__file__).parents[2]}:{absent.HIDDEN}",
            },
        )
    try:
        yield rest, server
    finally:
        server.terminate()
        assert server.wait(60) == 0, (tmp_path / "log").read_text()


def listening(port: int, server: subprocess.Popen[bytes]) -> None:
    """As `nc -z` in a script: it waits for the port and for nothing more."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)  # the process under test tells nobody when it is there
    raise AssertionError("the port is not there")


def ask(port: int, verb: str, body: bytes) -> tuple[int, dict]:
    with connect(port, timeout=60) as client:
        data = post(
            f"/v1/models/half_plus_two:{verb}",
            body,
            "content-type: application/x-www-form-urlencoded",  # curl's, with -d
        )
        client.sendall(data)
        status, answer = Answers(client).next()
        return status, json.loads(answer)


def test_the_quick_start(port):
    rest, server = port
    listening(rest, server)
    assert ask(rest, "predict", BODY) == (200, {"predictions": [2.5, 3.0, 4.5]})
    examples = {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert ask(rest, "regress", json.dumps(examples).encode()) == (200, {"results": [2.5, 3.0]})
