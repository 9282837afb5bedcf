"""What a newcomer reads in the first minutes: errors that name the next step, and no noise."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.e2e.process import free_port
from tests.http_client import Answers, connect

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

SERVINGD = (sys.executable, "-m", "servingd")


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SERVINGD, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_repository_that_is_one_model_is_told_how_to_be_served(repository):
    model = repository / "half_plus_two"
    result = run("serve", f"--model_repository={model}")
    assert result.returncode == 255
    assert (
        f"{model} is one model with versions: serve it by --model_name=half_plus_two "
        f"--model_base_path={model}" in result.stderr
    )


def test_a_model_without_a_version_folder_and_a_gpu_that_is_not_there(start, repository, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "bare").symlink_to(repository / "half_plus_two" / "1")
    (models / "elsewhere").symlink_to(repository / "half_plus_two")
    server = start(f"--model_repository={models}", "--device=GPU", CUDA_VISIBLE_DEVICES="-1")
    asked = "device: GPU was asked for, and there is only CPU:0"
    bare = f"It is a model without a version folder: move its files to {models}/bare/1"
    server.wait_for("the reason", lambda: asked in server.get("/readyz")[1])
    assert bare in server.get("/readyz")[1]
    log = server.log.read_text()
    assert asked in log
    assert bare in log


def test_a_start_says_where_it_listens_and_nothing_of_tensorflows_libraries(
    start, repository, tmp_path
):
    socket_path = tmp_path / "grpc"
    environment = {"TF_CPP_MIN_LOG_LEVEL": ""}
    wrapped = ("env", "-u", "TF_CPP_MIN_LOG_LEVEL")
    server = start(
        "--model_name=half_plus_two",
        f"--model_base_path={repository / 'half_plus_two'}",
        f"--grpc_socket_path={socket_path}",
        "--log_level=debug",
        prefix=wrapped,
        **environment,
    ).wait_until_ready()
    with connect(server.http_port) as client:
        client.sendall(b"GET / HTTP/9.9\r\n\r\n")
        assert Answers(client).next()[0] == 400
    server.wait_for("the line", lambda: "refused before it is a call: 400" in server.tail())
    log = server.log.read_text()
    assert f"Running gRPC ModelServer at 0.0.0.0:{server.port} ... (" in log
    if socket.has_dualstack_ipv6():
        assert f"(and at [::]:{server.port}; native)" in log
    assert f"Running gRPC ModelServer at unix:{socket_path} ... (grpcio)" in log
    for noise in ("oneDNN", "absl::InitializeLog", "cpu_feature_guard"):
        assert noise not in log


def test_who_wants_to_hear_tensorflow_does():
    """By the environment, as ever."""
    code = "from servingd.servables.tensorflow_runtime.runtime import tensorflow; tensorflow()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "absl::InitializeLog" in result.stderr


@pytest.mark.parametrize("typed", ["[1, 2]", '{"instances": [1, 2]}', '{"inputs": [1, 2]}', "-"])
def test_predict_takes_what_newcomers_type(server, typed):
    target = f"--server=localhost:{server.port}"
    result = run("predict", "half_plus_two", typed, target, stdin='{"x": [1, 2]}')
    assert (result.stdout, result.stderr) == ('{"y":[2.5,3.0]}\n', "")


def test_predict_without_inputs_shows_what_to_type(server):
    result = run("predict", "half_plus_two", f"--server=localhost:{server.port}")
    assert result.stdout == (
        "input x: FLOAT [?]\nsuch as: servingd predict half_plus_two '{\"x\": [1.0]}'\n"
    )


def test_predict_speaks_http_too(server):
    result = run("predict", "half_plus_two", "1", f"--server=http://localhost:{server.http_port}")
    assert (result.stdout, result.stderr) == ('{"y":2.5}\n', "")


@pytest.mark.parametrize("command", [["predict", "m", "1"], ["devices", "--here"], ["serve"]])
def test_ctrl_c_leaves_no_traceback(command):
    """In the middle of what a command does: a process that stands still sends the signal."""
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, and answers nobody
    code = (
        "import os, signal, sys, threading\n"
        "from servingd.cli.main import main\n"
        "threading.Timer(.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    if command[0] == "predict":
        command = [*command, f"--server=127.0.0.1:{silent.getsockname()[1]}"]
    if command[0] == "serve":
        command = [*command, "--model_base_path=/nowhere", f"--port={free_port()}"]
    with silent:
        result = subprocess.run(
            [sys.executable, "-c", code, *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "Traceback" not in result.stderr
    # A server that has taken its ports stops in order.
    assert result.returncode in ((0, 130) if command[0] == "serve" else (130, -signal.SIGINT))
