"""What callers and operators count on besides answers: ids, hints, types, lines in the log."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servingd.client import Client
from servingd.client.grpc.transport import translate
from servingd.errors import InvalidArgument, ResourceExhausted
from tests.e2e.process import KEYS, lookup_table, request
from tests.e2e.test_reload import reload_request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

X = {"x": np.float32([1, 2])}
ID = [("x-request-id", "call 17")]


def test_a_request_id_comes_back_by_grpc(server):
    answer, call = server.prediction.Predict.with_call(
        request("half_plus_two", X), metadata=ID, timeout=30
    )
    assert answer.outputs["y"].float_val or answer.outputs["y"].tensor_content
    assert ("x-request-id", "call 17") in call.initial_metadata()
    with pytest.raises(grpc.RpcError) as failure:
        server.prediction.Predict(request("nobody", X), metadata=ID, timeout=30)
    told = (*failure.value.initial_metadata(), *failure.value.trailing_metadata())
    assert ("x-request-id", "call 17") in told
    _, call = server.prediction.Predict.with_call(request("half_plus_two", X), timeout=30)
    assert "x-request-id" not in dict(call.initial_metadata())


def test_the_client_sends_the_type_that_the_signature_names(server):
    with Client(f"127.0.0.1:{server.port}") as client:
        assert client.predict("half_plus_two", {"x": [1.0, 0.5]})["y"].tolist() == [2.5, 2.25]
        assert client.predict("half_plus_two", {"x": [1, 2]})["y"].tolist() == [2.5, 3.0]
        with pytest.raises(InvalidArgument, match="to be float but double is provided"):
            client.predict("half_plus_two", {"x": np.float64([0.1])})


class Refused(grpc.RpcError):
    def __init__(self, *metadata):
        self._metadata = metadata

    def code(self):
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self):
        return "come again"

    def trailing_metadata(self):
        return self._metadata


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [((("retry-after-ms", "1500"),), 1.5), ((("retry-after-ms", "soon"),), None), ((), None)],
)
def test_the_client_keeps_the_hint_when_to_try_again(metadata, seconds):
    error = translate(Refused(*metadata))
    assert isinstance(error, ResourceExhausted)
    assert error.retry_after_s == seconds


def test_the_metrics_path_of_tensorflow_serving_answers_without_a_flag(server):
    status, page = server.get("/monitoring/prometheus/metrics")
    assert status == 200
    assert ":tensorflow:serving:request_count" in page
    assert server.get("/healthz")[0] == 200


def test_what_fails_leaves_a_line_and_no_contents(server):
    with pytest.raises(grpc.RpcError):
        server.predict("half_plus_two", {"wrong": np.array([b"secret"], object)})
    log = server.log.read_text()
    assert "Predict of half_plus_two failed: INVALID_ARGUMENT" in log
    assert "secret" not in log
    assert f"Exporting HTTP/REST API at:localhost:{server.http_port} ... (and at every" in log


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_health_is_not_serving_from_the_first_moment_on(start, tmp_path, transport):
    """Never an error, and never SERVING: there is no model yet."""
    (tmp_path / "m").mkdir()
    server = start(
        "--model_name=m", f"--model_base_path={tmp_path / 'm'}", f"--grpc_transport={transport}"
    )
    health = health_pb2_grpc.HealthStub(server.channel)
    ask = health_pb2.HealthCheckRequest
    first = health.Check(ask(service=""), wait_for_ready=True, timeout=30)
    assert first.status == health_pb2.HealthCheckResponse.NOT_SERVING
    of_model = health.Check(ask(service="m"), timeout=30)
    assert of_model.status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_after_an_empty_list_every_model_is_not_found(start, tmp_path):
    lookup_table(tmp_path / "m" / "1")
    file = tmp_path / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{tmp_path}/m" '
        'model_platform: "lookup_table" } }'
    )
    server = start(f"--model_config_file={file}").wait_until_ready()
    server.model.HandleReloadConfigRequest(reload_request(), timeout=30)
    seen = set()

    def ended():
        try:
            server.predict("m", KEYS)
        except grpc.RpcError as error:
            seen.add(error.code())
        return server.states("m") == {}

    server.wait_for("the end", ended)
    assert seen <= {grpc.StatusCode.NOT_FOUND}
    with pytest.raises(grpc.RpcError) as failure:
        server.metadata("m")
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
