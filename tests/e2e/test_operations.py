"""Probes, metrics, health, reflection, flags: what an operator meets first."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from servingd.servables.registry import TYPES
from tests import http2
from tests.e2e.process import request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

SERVING = health_pb2.HealthCheckResponse.SERVING


def run(*arguments: str):
    """Run a command line that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "servingd", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_probes(server):
    for path in ("/livez", "/readyz", "/startupz"):
        assert server.get(path) == (200, "ok\n")
    assert server.get("/nothing")[0] == 404


def test_ports_answer_before_models_are_there(start, tmp_path):
    """Nothing to serve yet: alive, but neither started nor ready, and calls are told so."""
    server = start("--model_name=m", f"--model_base_path={tmp_path}/absent")
    server.wait_for("the port", lambda: server.get("/livez")[0] == 200)
    server.wait_for("the first look", lambda: "Could not find" in server.get("/readyz")[1])
    status, text = server.get("/readyz")
    assert status == 503
    assert text.startswith("not ready by rule all; not available: m\n")
    assert f"Could not find base path {tmp_path}/absent for servable m" in text
    assert f"{tmp_path}/absent" in server.get("/v1/models/m")[1]
    assert f"{tmp_path}/absent" in server.get("/servingd/v1/models")[1]
    assert server.get("/startupz")[0] == 503
    with pytest.raises(grpc.RpcError) as failure:
        server.predict("m", {"x": np.float32([1])})
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "service",
    ["", "tensorflow.serving.PredictionService", "PredictionService", "half_plus_two"],
)
def test_health(server, service):
    stub = health_pb2_grpc.HealthStub(server.channel)
    ask = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(ask, timeout=10).status == SERVING
    watch = stub.Watch(ask, timeout=10)
    assert next(watch).status == SERVING
    watch.cancel()


def test_health_of_nobody(server):
    stub = health_pb2_grpc.HealthStub(server.channel)
    with pytest.raises(grpc.RpcError) as failure:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection(server):
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    asks = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="tensorflow.serving.PredictionService"
        ),
    ]
    services, files = stub.ServerReflectionInfo(iter(asks), timeout=10)
    names = {s.name for s in services.list_services_response.service}
    assert {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    } <= names
    assert b"PredictRequest" in b"".join(files.file_descriptor_response.file_descriptor_proto)


def test_metrics_count_by_outcome(server):
    series = (
        'servingd_requests_total{code="OK",method="Predict",model="half_plus_two",protocol="grpc",'
        'signature="serving_default",version="1"}'
    )
    serving = ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}'
    nobody = 'model="",protocol="grpc",signature="",version=""'
    failed = f'servingd_requests_total{{code="NOT_FOUND",method="Predict",{nobody}}}'
    before = [server.metric(s) or 0.0 for s in (series, serving, failed)]
    server.predict("half_plus_two", {"x": np.float32([1])})
    with pytest.raises(grpc.RpcError):
        server.predict("a name that a client made up", {"x": np.float32([1])})

    def counted():
        now = [server.metric(s) or 0.0 for s in (series, serving, failed)]
        return now == [n + 1 for n in before]

    server.wait_for("the count", counted, 5)
    page = server.get("/metrics")[1]
    assert "made up" not in page  # clients make no series
    assert 'servingd_model_state{model="half_plus_two",version="1"} 30.0' in page
    loads = 'servingd_load_seconds_count{model="half_plus_two",outcome="succeeded"}'
    assert f"{loads} {server.workers}\n" in page  # each worker has loaded it
    assert (
        ':tensorflow:serving:request_latency_bucket{model_name="half_plus_two",API="Predict",'
        'entrypoint="GRPC",le="1.27482e+06"}'
    ) in page


def test_status_over_http(server):
    status, body = server.get("/servingd/v1/models/half_plus_two")
    assert status == 200
    answer = json.loads(body)
    (version,) = answer["versions"]
    queue, *others = version.pop("queues")
    assert len(others) == server.workers - 1
    placement = version.pop("placement")
    assert placement["planned"] == ["CPU:0"]
    assert [r["state"] for r in placement["replicas"]] == ["serving"] * server.workers
    assert version == {"version": 1, "state": "AVAILABLE", "incomplete": None, "error": None}
    assert queue["signature"] == "serving_default"
    assert queue["waiting_rows"] == 0
    assert answer["process"] == server.process.pid
    names = [m["name"] for m in json.loads(server.get("/servingd/v1/models")[1])["models"]]
    assert {"half_plus_two", "digit_names"} <= set(names)
    assert server.get("/servingd/v1/models/nobody")[0] == 404


def test_an_unknown_flag_is_told_the_nearest():
    result = run("serve", "--model_repositry=/x")
    assert result.returncode == 255
    assert "unknown argument: --model_repositry=/x; did you mean --model_repository?" in (
        result.stderr
    )


def test_a_flag_with_a_wrong_value_names_what_is_expected():
    result = run("serve", "--model_base_path=/x", "--grpc_transport=carrier_pigeon")
    assert result.returncode == 255
    assert (
        "--grpc_transport: expected one of auto, native, grpcio, got 'carrier_pigeon'"
        in result.stderr
    )


def test_nothing_to_serve_is_a_configuration_error():
    result = run("serve")
    assert result.returncode == 255
    assert "Both server_options.model_base_path and server_options.model_config_file" in (
        result.stderr
    )


def test_a_bad_configuration_file_is_named(tmp_path):
    file = tmp_path / "models.config"
    file.write_text("model_config_list { config { nam: 'm' } }")
    result = run("serve", f"--model_config_file={file}")
    assert result.returncode == 255
    assert f"Invalid protobuf file: '{file}'" in result.stderr


def test_an_unknown_platform_is_a_configuration_error(tmp_path):
    file = tmp_path / "models.config"
    file.write_text(
        "model_config_list { config { name: 'm' base_path: '/m' model_platform: 'torch' } }"
    )
    result = run("serve", f"--model_config_file={file}")
    assert result.returncode == 255
    known = ", ".join(sorted(TYPES))
    assert f"Model m requests unsupported platform torch; known: {known}" in result.stderr


def test_stale_flags_are_passed_over_by_the_program_with_tensorflow_servings_name():
    program = (
        "import sys; from servingd.cli.main import tensorflow_model_server as t; sys.exit(t())"
    )
    flags = ("--use_saved_model", "--v=1", "--model_base_path=gs://bucket/m", "--port=0")
    result = subprocess.run(
        [sys.executable, "-c", program, *flags, "--grpc_socket_path=/nowhere/s"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 255
    assert "--use_saved_model is not known any more" in result.stderr
    assert "gs:// is not read here" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_a_busy_port_is_named(tmp_path, flag):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = "rest_api_port" if flag == "port" else "port"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            free_port = free.getsockname()[1]
        result = run(
            "serve", f"--model_base_path={tmp_path}", f"--{flag}={port}", f"--{other}={free_port}"
        )
    assert result.returncode == 255
    assert str(port) in result.stderr


LIMITED = ("/bin/sh", "-c", 'ulimit -v 40000000 && exec "$@"', "sh")


def test_where_the_native_carrier_is_unsafe_grpcio_takes_the_port(start, repository):
    server = start(
        "--model_name=digit_names",
        f"--model_repository={repository}",
        "--ready_when=digit_names",
        prefix=LIMITED,
    ).wait_until_ready()
    assert "gRPC is carried by grpcio: the address space is limited" in server.log.read_text()
    assert server.predict("digit_names", {"keys": [b"1"]})["values"].tolist() == [b"one"]


def test_asked_for_where_it_is_unsafe_it_is_a_configuration_error(tmp_path):
    result = subprocess.run(
        [
            *(*LIMITED, sys.executable, "-m", "servingd", "serve"),
            *(f"--model_base_path={tmp_path}", "--grpc_transport=native"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 255
    assert "--grpc_transport=native cannot be had: the address space is limited" in result.stderr


def test_the_client_loads_neither_the_server_nor_tensorflow():
    program = (
        "import sys, servingd.client;"
        "print([m for m in sys.modules if m.startswith(('tensorflow', 'servingd.server',"
        " 'servingd.runtime', 'servingd.servables', 'servingd.frontends'))])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_light_client(server):
    from servingd.client import Client

    with Client(f"127.0.0.1:{server.port}") as client:
        outputs = client.predict("half_plus_two", {"x": np.float32([2])})
        assert outputs["y"].tolist() == [3.0]
        assert client.status("half_plus_two") == {1: "AVAILABLE"}


def test_a_stop_waits_for_no_client_that_reads_nothing(start, repository):
    """The front keeps what it is owed; here 40 answers of 400 KB, to a window that is closed."""
    server = start(f"--model_repository={repository}", "--grpc_transport=native")
    server.wait_until_ready()
    ask = request("half_plus_two", {"x": np.zeros(100_000, np.float32)}).SerializeToString()
    with http2.Client(server.port, struct.pack(">HI", 4, 0)) as client:
        client.socket.settimeout(0.2)  # its own window for what it sends may close, too
        path = "/tensorflow.serving.PredictionService/Predict"
        while client.data(client.open(path), http2.message(ask)):
            pass
        assert server.predict("half_plus_two", {"x": np.float32([1])})["y"].tolist() == [2.5]
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 12
