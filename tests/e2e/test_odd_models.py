"""Models of which a part cannot be served, or that lie there as text: the rest is answered."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest

from tests.e2e.process import request
from tests.exports import save_tf1, tensor_info
from tests.http_client import Answers, connect, post

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

X = np.array([1.0, 2.0, 5.0], np.float32)


@pytest.fixture
def server(start, tmp_path):
    handle = tensor_info("a:0", 20)
    save_tf1(
        tmp_path / "m" / "1",
        lambda x, y: {
            "serving_default": ({"x": x}, {"y": y, "key": x}),
            "odd": ({"x": x}, {"y": y, "handle": handle}),
            "nowhere": ({"x": x}, {"y": tensor_info("gone:0")}),
        },
        as_text=True,
    )
    return start("--model_name=m", f"--model_base_path={tmp_path / 'm'}").wait_until_ready()


def test_what_can_be_answered_is(server):
    found = server.predict("m", {"x": X})
    assert found["y"].tolist() == [2.5, 3.0, 4.5]
    assert found["key"].tolist() == [1.0, 2.0, 5.0]
    only = server.predict("m", {"x": X}, signature="odd", outputs=["y"])
    assert only["y"].tolist() == [2.5, 3.0, 4.5]
    with pytest.raises(grpc.RpcError) as refused:
        server.prediction.Predict(request("m", {"x": X}, signature="odd"))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "signature odd, tensor handle:" in refused.value.details()
    with pytest.raises(grpc.RpcError, match="gone:0"):
        server.prediction.Predict(request("m", {"x": X}, signature="nowhere"))
    with connect(server.http_port) as client:
        client.sendall(post("/v1/models/m:predict", b'{"inputs": [1.0]}'))
        status, body = Answers(client).next()
    assert (status, json.loads(body)) == (200, {"outputs": {"y": [2.5], "key": [1.0]}})
    assert "signature nowhere cannot be called" in server.log.read_text()
