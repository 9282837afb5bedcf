"""Doors of administrators: ports of their own, and a token that is never logged."""

from __future__ import annotations

import http.client
import json
import socket

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from servingd.wire import protos
from tests.e2e.process import free_port, lookup_table
from tests.e2e.test_reload import entry, reload_request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

SECRET, NEXT = "hunter2-hunter2-hunter2", "hunter3-hunter3-hunter3"
ACTION = "/servingd/v1/nothing:here"
NEEDS = "administrators' calls need a token: Authorization: Bearer TOKEN"


def bearer(token=SECRET):
    return (("authorization", f"Bearer {token}"),)


def write(path, token):
    path.touch(0o600)
    path.write_text(f"{token}\n")
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "token", SECRET)


@pytest.fixture
def serve(start, tmp_path):
    """Start a server of a lookup table `a`; there is another, `b`."""
    for name in ("a", "b"):
        lookup_table(tmp_path / name / "1")
    models = model_server_config_pb2.ModelServerConfig()
    models.model_config_list.config.append(entry("a", tmp_path / "a"))
    config = tmp_path / "models.config"
    config.write_text(text_format.MessageToString(models))
    return lambda *flags: start(f"--model_config_file={config}", "--log_level=debug", *flags)


def ask(port, method, path, *headers):
    """Status, the challenge if there is one, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.getheader("www-authenticate"), answer.read().decode()
    finally:
        connection.close()


def error(port, path, *headers):
    status, challenge, body = ask(port, "POST", path, *headers)
    return status, challenge, json.loads(body)["error"]


def reload(server, tmp_path, *metadata):
    """The status of a reload to both models."""
    both = reload_request(entry("a", tmp_path / "a"), entry("b", tmp_path / "b"))
    try:
        server.model.HandleReloadConfigRequest(both, timeout=30, metadata=metadata)
    except grpc.RpcError as failure:
        return failure.code().name, failure.details()
    return "OK", ""


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_administrators_calls_need_the_token(serve, file, tmp_path, transport):
    server = serve(f"--admin_token_file={file}", f"--grpc_transport={transport}")
    server.wait_until_ready()
    for wrong in ((), bearer("guess"), (("authorization", SECRET),), (("x", SECRET),)):
        assert reload(server, tmp_path, *wrong) == ("UNAUTHENTICATED", NEEDS)
        assert error(server.http_port, ACTION, *wrong) == (401, "Bearer", NEEDS)
    assert server.states("b") == {}
    for method in ("Profile", "Terminate"):
        call = server.channel.unary_unary(f"/tensorflow.ProfilerService/{method}")
        with pytest.raises(grpc.RpcError) as failure:
            call(b"", timeout=10)
        assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert server.get("/servingd/v1/models")[0] == server.get("/readyz")[0] == 200
    assert server.states("a") == {1: "AVAILABLE"}

    assert reload(server, tmp_path, *bearer()) == ("OK", "")
    assert server.states("b") == {1: "AVAILABLE"}
    assert error(server.http_port, ACTION, *bearer())[0] == 404
    labels = 'code="UNAUTHENTICATED",method="%s",model="",protocol="%s",signature="",version=""'
    refused = "servingd_requests_total{" + labels + "}"
    assert server.metric(refused % ("HandleReloadConfigRequest", "grpc")) == 4
    assert server.metric(refused % ("AdminAction", "rest")) == 4

    write(file, NEXT)
    assert reload(server, tmp_path, *bearer())[0] == "UNAUTHENTICATED"
    assert reload(server, tmp_path, *bearer(NEXT))[0] == "OK"
    file.unlink()
    assert reload(server, tmp_path, *bearer(NEXT))[0] == "OK"
    assert server.terminate() == 0
    log = server.log.read_text()
    assert "the administrators' token was read again" in log
    assert "the administrators' token stays as it was" in log
    assert "hunter" not in log
    assert "guess" not in log
    assert "Traceback" not in log


def test_an_http_port_of_their_own(serve, file, tmp_path):
    admin = free_port()
    monitoring = tmp_path / "monitoring"
    monitoring.write_text('prometheus_config { enable: true path: "/monitoring/metrics" }')
    server = serve(
        f"--admin_rest_port={admin}",
        f"--admin_token_file={file}",
        f"--monitoring_config_file={monitoring}",
    ).wait_until_ready()
    elsewhere = "administrators' calls are served on another port"
    for headers in ((), bearer()):
        assert error(server.http_port, ACTION, *headers) == (403, None, elsewhere)
    assert error(admin, ACTION) == (401, "Bearer", NEEDS)
    assert error(admin, ACTION, *bearer("guess")) == (401, "Bearer", NEEDS)
    assert error(admin, ACTION, *bearer()) == (404, None, f"there is nothing at {ACTION}")
    shared = ("/livez", "/readyz", "/startupz", "/metrics", "/monitoring/metrics")
    pages = ("/servingd/v1/models", "/servingd/v1/models/a", "/servingd/v1/devices")
    for path in (*shared, *pages):
        assert ask(server.http_port, "GET", path)[0] == ask(admin, "GET", path)[0] == 200, path
    assert ask(admin, "GET", "/v1/models/a")[0] == 404, "the API is not there"
    assert ask(server.http_port, "GET", "/v1/models/a")[0] == 200
    assert reload(server, tmp_path)[0] == "UNAUTHENTICATED", "its own port is another flag"
    assert server.terminate() == 0
    assert "hunter" not in server.log.read_text()


def test_both_doors_without_a_token_and_without_public_http(serve, tmp_path):
    admin, grpc_admin = free_port(), free_port()
    server = serve("--rest_api_port=0", f"--admin_rest_port={admin}", f"--admin_port={grpc_admin}")
    server.wait_for("readiness", lambda: ask(admin, "GET", "/readyz")[0] == 200)
    assert error(admin, ACTION)[0] == 404
    assert reload(server, tmp_path)[0] == "PERMISSION_DENIED"
    with grpc.insecure_channel(f"127.0.0.1:{grpc_admin}") as channel:
        terminate = channel.unary_unary(
            "/tensorflow.ProfilerService/Terminate", protos.TerminateRequest.SerializeToString
        )
        assert terminate(protos.TerminateRequest(), timeout=10) == b""
    assert server.terminate() == 0


@pytest.mark.parametrize(
    ("content", "text"), [(None, "token; No such file or directory"), ("", "token is empty")]
)
def test_without_a_token_in_its_file_there_is_no_start(serve, tmp_path, content, text):
    if content is not None:
        (tmp_path / "token").write_text(content)
    server = serve(f"--admin_token_file={tmp_path / 'token'}")
    assert server.process.wait(30) == 255
    assert text in server.tail()


def test_a_busy_port_ends_the_start(serve):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = serve(f"--admin_rest_port={port}")
        assert server.process.wait(30) == 255
        assert f"the HTTP port {port} cannot be used" in server.tail()
