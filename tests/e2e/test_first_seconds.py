"""The first seconds: who calls while the first models load waits for them."""

from __future__ import annotations

import json
import shutil
import threading

import grpc
import numpy as np
import pytest

from tests.e2e.process import request
from tests.http_client import Answers, connect, get, post

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

X = {"x": np.array([1.0, 2.0, 5.0], np.float32)}
BODY = b'{"instances": [1.0, 2.0, 5.0]}'


@pytest.fixture
def base(models, tmp_path):
    shutil.copytree(models / "half_plus_two", tmp_path / "m" / "1")
    return tmp_path / "m"


def rest(port: int, data: bytes) -> tuple[int, dict]:
    with connect(port, timeout=40) as client:
        client.sendall(data)
        status, body = Answers(client).next()
    return status, json.loads(body)


def listening(server):
    """Wait for the ports, as scripts do, and no longer."""
    server.wait_for("the ports", lambda: server.get("/livez")[0] == 200)
    return server


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_calls_wait_for_the_first_models(start, base, transport):
    server = listening(
        start("--model_name=m", f"--model_base_path={base}", f"--grpc_transport={transport}")
    )
    answers: dict[str, object] = {}

    def ask(name, call):
        def run():
            try:
                answers[name] = call()
            except grpc.RpcError as error:
                answers[name] = error.code().name

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def predict(model):
        return server.predict(model, X)["y"].tolist()

    body = post("/v1/models/m:predict", BODY)
    asked = [
        ask("grpc", lambda: predict("m")),
        ask("metadata", lambda: server.metadata("m").model_spec.version.value),
        ask("nobody", lambda: predict("nobody")),
        ask("rest", lambda: rest(server.http_port, body)),
        ask("rest metadata", lambda: rest(server.http_port, get("/v1/models/m/metadata"))[0]),
        ask("rest nobody", lambda: rest(server.http_port, post("/v1/models/n:predict", BODY))[0]),
    ]
    assert server.get("/readyz")[0] == 503  # probes are answered meanwhile
    for thread in asked:
        thread.join(60)
    assert answers == {
        "grpc": [2.5, 3.0, 4.5],
        "metadata": 1,
        "nobody": "NOT_FOUND",
        "rest": (200, {"predictions": [2.5, 3.0, 4.5]}),
        "rest metadata": 200,
        "rest nobody": 404,
    }


def test_a_call_waits_within_its_own_time(start, base):
    server = listening(
        start(
            "--model_name=m",
            f"--model_base_path={base}",
            "--rest_api_timeout_in_ms=300",
        )
    )
    with pytest.raises(grpc.RpcError) as late:
        server.predict("m", X, timeout=0.2)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert rest(server.http_port, post("/v1/models/m:predict", BODY))[0] == 504
    server.wait_until_ready()
    assert server.predict("m", X)["y"].tolist() == [2.5, 3.0, 4.5]


def test_a_first_load_that_fails_is_told_to_those_who_wait(start, base):
    shard = base / "1" / "variables" / "variables.data-00000-of-00001"
    shard.write_bytes(bytes(shard.stat().st_size))
    server = listening(start("--model_name=m", f"--model_base_path={base}"))
    with pytest.raises(grpc.RpcError) as failed:
        server.prediction.Predict(request("m", X), timeout=40)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_model_whose_folder_is_missing_holds_up_nobody(start, tmp_path):
    server = listening(start("--model_name=m", f"--model_base_path={tmp_path / 'none'}"))
    with pytest.raises(grpc.RpcError) as failed:
        server.prediction.Predict(request("m", X), timeout=20)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def test_calls_may_be_answered_at_once(start, base):
    server = listening(
        start("--model_name=m", f"--model_base_path={base}", "--hold_calls_during_start=false")
    )
    with pytest.raises(grpc.RpcError) as failed:
        server.prediction.Predict(request("m", X), timeout=20, wait_for_ready=True)
    assert failed.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
    assert rest(server.http_port, post("/v1/models/m:predict", BODY))[0] in (503, 404)


def test_sigterm_ends_those_who_wait(start, base):
    server = listening(start("--model_name=m", f"--model_base_path={base}"))
    call = server.prediction.Predict.future(request("m", X), timeout=40, wait_for_ready=True)
    threading.Event().wait(0.3)
    server.terminate()
    assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK)
