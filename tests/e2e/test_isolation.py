"""Probes, metrics, health and status while every model is stuck in a run of many seconds."""

from __future__ import annotations

import http.client
import json
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.process import Process, request

pytestmark = pytest.mark.tf

PATHS = ("/livez", "/readyz", "/startupz", "/metrics", "/v1/models/a")
MODELS = ("a", "b")
STUCK_S = 6
LONG = np.int32(2_000_000_000)
"""So many turns of a loop that the call's deadline ends it."""


def one(model: str, count: int) -> dict:
    return {"model": model, "inputs": {"n": np.int32(count)}}


@pytest.fixture(params=["native", "grpcio"])
def server(request, start, models, tmp_path) -> Process:
    for name in MODELS:
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "1").symlink_to(models / "slow")
    return start(
        f"--model_repository={tmp_path / 'models'}",
        f"--grpc_transport={request.param}",
        f"--rest_api_timeout_in_ms={STUCK_S * 1000}",
    ).wait_until_ready()


def rest(server: Process, model: str, count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    body = json.dumps({"inputs": {"n": count}})
    try:
        connection.request("POST", f"/v1/models/{model}:predict", body)
        connection.getresponse().read()
    finally:
        connection.close()


def become_cheap(server: Process) -> None:
    """Calls of few turns run in the transports' own threads soon."""
    for model in MODELS:
        for _ in range(200):
            server.predict(**one(model, 1))
        for _ in range(50):
            rest(server, model, 1)


def seconds(ask) -> float:
    """The time of the quickest of a few tries: a busy machine delays some."""
    taken = []
    for _ in range(5):
        started = time.monotonic()
        ask()
        taken.append(time.monotonic() - started)
    assert max(taken) < STUCK_S / 3
    return min(taken)


def test_whoever_asks_is_answered_while_every_model_is_stuck(server):
    become_cheap(server)
    calls = [
        server.prediction.Predict.future(request(m, {"n": LONG}), timeout=STUCK_S)
        for m in MODELS * 4
    ]
    callers = [threading.Thread(target=rest, args=(server, m, int(LONG))) for m in MODELS * 4]
    for caller in callers:
        caller.start()
    stuck_until = time.monotonic() + STUCK_S
    time.sleep(0.5)  # until the last of them has arrived
    stub = health_pb2_grpc.HealthStub(server.channel)

    def healthy() -> None:
        for service in ("", "a"):
            ask = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(ask, timeout=STUCK_S).status == health_pb2.HealthCheckResponse.SERVING

    def available() -> None:
        assert server.states("a") == {1: "AVAILABLE"}

    def answered(path: str) -> None:
        assert server.get(path)[0] == 200

    taken = {path: seconds(lambda path=path: answered(path)) for path in PATHS}
    taken |= {"health": seconds(healthy), "status": seconds(available)}
    assert time.monotonic() < stuck_until, "nothing was stuck any more"
    assert not any(call.done() for call in calls)
    assert max(taken.values()) < 0.1, taken
    for call in calls:
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    for caller in callers:
        caller.join(60)
    assert server.predict(**one("a", 3), timeout=60)["n"] == 3
