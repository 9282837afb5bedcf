"""TLS, sockets, channel arguments, the profiler, answers as content: what flags switch on."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    prediction_service_pb2_grpc,
    session_service_pb2,
)

from tests.e2e.process import KEYS, free_port, lookup_table, request, to_array

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

X = np.float32([1, 2])


@pytest.fixture
def base(models, tmp_path):
    shutil.copytree(models / "half_plus_two", tmp_path / "m" / "1")
    return tmp_path / "m"


def one_model(base, *flags):
    return ("--model_name=m", f"--model_base_path={base}", "--optimize_models=off", *flags)


@pytest.fixture
def serve(start, tmp_path):
    """Start a server of a lookup table `m`."""
    lookup_table(tmp_path / "models" / "m" / "1")
    return lambda *flags: start(f"--model_repository={tmp_path / 'models'}", *flags)


def predict(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(request("m", KEYS), timeout=20)
    return to_array(answer.outputs["values"]).tolist()


# TLS


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A root, a server's certificate for localhost, and a client's, each as (key, certificate)."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "rsa:2048", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=root")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=it")
        sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
        openssl("x509", "-req", "-in", f"{name}.csr", *sign, "-out", f"{name}.pem")
    return folder


def ssl_config(pki, path, verify):
    from google.protobuf import text_format

    from servingd.wire import protos

    config = protos.SSLConfig(
        server_key=(pki / "server.key").read_text(),
        server_cert=(pki / "server.pem").read_text(),
        client_verify=verify,
    )
    if verify:
        config.custom_ca = (pki / "ca.pem").read_text()
    path.write_text(text_format.MessageToString(config))
    return path


def https(server, context):
    connection = http.client.HTTPSConnection(
        "localhost", server.http_port, timeout=20, context=context
    )
    try:
        connection.request("POST", "/v1/models/m:predict", b'{"instances": ["1"]}')
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_both_ports_can_be_encrypted(serve, pki, tmp_path, workers):
    file = ssl_config(pki, tmp_path / "ssl.config", verify=False)
    server = serve(
        f"--ssl_config_file={file}", f"--rest_ssl_config_file={file}", f"--workers={workers}"
    )
    root = (pki / "ca.pem").read_bytes()
    context = ssl.create_default_context(cadata=root.decode())
    server.wait_for("an answer", lambda: b"predictions" in https(server, context))
    with grpc.secure_channel(
        f"localhost:{server.port}", grpc.ssl_channel_credentials(root)
    ) as channel:
        assert predict(channel) == [b"one"]
    with grpc.insecure_channel(f"localhost:{server.port}") as channel, pytest.raises(grpc.RpcError):
        predict(channel)
    plain = http.client.HTTPConnection("localhost", server.http_port, timeout=20)
    plain.request("GET", "/livez")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()


def test_clients_can_be_made_to_show_a_certificate(serve, pki, tmp_path):
    file = ssl_config(pki, tmp_path / "ssl.config", verify=True)
    server = serve(f"--ssl_config_file={file}", f"--rest_ssl_config_file={file}")
    root, target = (pki / "ca.pem").read_bytes(), f"localhost:{server.port}"
    anonymous = ssl.create_default_context(cadata=root.decode())
    known = ssl.create_default_context(cadata=root.decode())
    known.load_cert_chain(pki / "client.pem", pki / "client.key")
    server.wait_for("an answer", lambda: b"predictions" in https(server, known))
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        https(server, anonymous)
    mine = ((pki / "client.key").read_bytes(), (pki / "client.pem").read_bytes())
    with grpc.secure_channel(target, grpc.ssl_channel_credentials(root, *mine)) as channel:
        assert predict(channel) == [b"one"]
    with (
        grpc.secure_channel(target, grpc.ssl_channel_credentials(root)) as channel,
        pytest.raises(grpc.RpcError),
    ):
        predict(channel)


def test_a_key_that_does_not_fit_ends_the_start(serve, pki, tmp_path):
    from google.protobuf import text_format

    from servingd.wire import protos

    file = tmp_path / "ssl.config"
    config = protos.SSLConfig(
        server_key=(pki / "client.key").read_text(), server_cert=(pki / "server.pem").read_text()
    )
    file.write_text(text_format.MessageToString(config))
    for flag in ("ssl_config_file", "rest_ssl_config_file"):
        server = serve(f"--{flag}={file}")
        assert server.process.wait(30) == 255
        assert "server_key, server_cert or custom_ca cannot be used" in server.tail()


# Sockets and arguments


def test_a_unix_socket_beside_the_port(serve, tmp_path):
    path = tmp_path / "grpc.sock"
    server = serve(f"--grpc_socket_path={path}").wait_until_ready()
    assert server.predict("m", KEYS)["values"].tolist() == [b"one"]
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert predict(channel) == [b"one"]


def test_a_unix_socket_alone_and_what_a_dead_server_left(serve, tmp_path):
    path = tmp_path / "grpc.sock"
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = serve("--port=0", f"--grpc_socket_path={path}").wait_until_ready()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert predict(channel) == [b"one"]
    other = serve("--port=0", f"--grpc_socket_path={path}").wait_until_ready()
    assert f"unix:{path} is taken over from another server" in other.log.read_text()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert predict(channel) == [b"one"]
    assert server.process.poll() is None


def test_channel_arguments_are_grpcios(serve):
    arguments = "grpc.max_concurrent_streams=100,grpc.primary_user_agent=it"
    server = serve(f"--grpc_channel_arguments={arguments}").wait_until_ready()
    assert server.predict("m", KEYS)["values"].tolist() == [b"one"]
    assert "channel arguments are grpcio's" in server.log.read_text()


# What else flags switch on


def test_answers_as_content_over_grpc_and_as_ever_over_rest(start, base):
    flag = "--enable_serialization_as_tensor_content"
    server = start(*one_model(base, flag)).wait_until_ready()
    answer = server.prediction.Predict(request("m", {"x": X}), timeout=10)
    assert answer.outputs["y"].tensor_content == np.float32([2.5, 3.0]).tobytes()
    assert not answer.outputs["y"].float_val
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
    connection.request("POST", "/v1/models/m:predict", b'{"instances": [1.0, 2.0]}')
    assert b"[2.5, 3.0" in connection.getresponse().read()
    connection.close()


def test_the_method_of_a_signature_is_checked_where_that_is_asked_for(start, models, tmp_path):
    from tests.e2e.test_examples import ONE, classification, refusal, regression

    shutil.copytree(models / "examples", tmp_path / "m" / "1")
    flag = "--enable_signature_method_name_check"
    server = start(*one_model(tmp_path / "m", flag)).wait_until_ready()
    server.prediction.Regress(regression(ONE, "flat", "m"), timeout=10)
    server.prediction.Predict(request("m", {"inputs": [b""]}, signature="flat"), timeout=10)
    code, text = refusal(server.prediction.Classify, classification(ONE, "flat", "m"))
    assert code == "INVALID_ARGUMENT"
    assert text == (
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/regress"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trace_comes_back_in_the_form_that_tensorflows_client_saves(
    start, base, tmp_path, workers
):
    import threading

    import tensorflow as tf

    server = start(*one_model(base), f"--workers={workers}").wait_until_ready()
    if workers == 2:
        serving = 'servingd_workers{state="serving"}'
        server.wait_for("both workers", lambda: server.metric(serving) == 2)
    done = threading.Event()

    def traffic():
        while not done.is_set():
            server.predict("m", {"x": X})

    caller = threading.Thread(target=traffic)
    caller.start()
    try:
        tf.profiler.experimental.client.trace(
            f"127.0.0.1:{server.port}", str(tmp_path / "log"), 500
        )
    finally:
        done.set()
        caller.join()
    traces = [file.read_bytes() for file in (tmp_path / "log").rglob("*.xplane.pb")]
    assert len(traces) == workers  # all of them; the calls were one worker's
    assert any(b"SessionRun" in trace or b"RunGraph" in trace for trace in traces)


def test_without_the_profiler_its_service_is_not_there(serve):
    server = serve("--enable_profiler=false").wait_until_ready()
    with pytest.raises(grpc.RpcError) as failure:
        server.channel.unary_unary("/tensorflow.ProfilerService/Profile")(b"\x08\x01", timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_session_run_is_unimplemented(server):
    ask = session_service_pb2.SessionRunRequest()
    ask.model_spec.name = "half_plus_two"
    call = server.channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
    with pytest.raises(grpc.RpcError) as failure:
        call(ask.SerializeToString(), timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_metadata_and_labels(start, tmp_path):
    for version in "12":
        lookup_table(tmp_path / "m" / version)
    file = tmp_path / "servingd.yaml"
    file.write_text(
        f"models:\n- name: m\n  base_path: {tmp_path / 'm'}\n  platform: lookup_table\n"
        "  version_policy: all\n"
        "  version_labels: {stable: 1, canary: 2}\n"
    )
    server = start(f"--servingd_config_file={file}").wait_until_ready()
    server.wait_for("both", lambda: server.states("m") == {1: "AVAILABLE", 2: "AVAILABLE"})
    ask = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    ask.model_spec.name, ask.model_spec.version_label = "m", "stable"
    answer = server.prediction.GetModelMetadata(ask, timeout=10)
    assert answer.model_spec.version.value == 1
    assert not answer.model_spec.signature_name
    for label, version in (("stable", 1), ("canary", 2)):
        ask = request("m", KEYS)
        ask.model_spec.version_label = label
        assert server.prediction.Predict(ask, timeout=10).model_spec.version.value == version
    assert server.get("/v1/models/m/labels/stable/metadata")[0] == 200


def test_a_busy_admin_port_ends_the_start(serve):
    import socket

    with socket.socket() as taken:
        port = free_port()
        taken.bind(("0.0.0.0", port))
        taken.listen()
        server = serve(f"--admin_port={port}")
        assert server.process.wait(30) == 255
        assert str(port) in server.tail()
