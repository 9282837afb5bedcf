"""The wheel, in an empty environment: the client and the tools alone, then with the server."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import servingd
from tests.e2e.process import free_port, lookup_table
from tests.environments import install, make_environment
from tests.side_by_side import made_once

pytestmark = pytest.mark.e2e

ROOT = Path(servingd.__file__).parents[1]
PINS = ROOT / ".ci" / "constraints.txt"
HEAVY = ("tensorflow", "orjson", "prometheus_client", "uvloop", "watchdog", "msgspec", "rich")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd="/",
        env={**clean, **environment},
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    def build(folder: Path) -> None:
        made = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr

    (found,) = made_once(tmp_path_factory.getbasetemp(), "wheel", build).glob("*.whl")
    return found


@pytest.fixture(scope="module")
def empty(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with nothing but `pip install servingd`."""
    programs = make_environment(tmp_path_factory.mktemp("empty") / "venv")
    install(programs, str(wheel), "--constraints", str(PINS))
    return programs


def test_what_is_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(n).decode() for n in names if n.endswith("/METADATA"))
    assert "servingd/py.typed" in names
    assert "servingd/wire/protos/protos.pb" in names
    source = "servingd/wire/protos/source/tensorflow_serving/apis/predict.proto"
    assert source in names
    assert not [name for name in names if name.startswith(("tests/", "models/"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for line in (
        "License-Expression: Apache-2.0",
        "Author: The servingd developers",
        "Classifier: Typing :: Typed",
        "Provides-Extra: cpu",
        "Description-Content-Type: text/markdown",
    ):
        assert line in metadata
    assert metadata.count("Project-URL: ") == 3


def test_alone_it_is_a_client_and_tools(empty, tmp_path):
    assert run(empty / "servingd", "--version").stdout == f"servingd {servingd.__version__}\n"
    for line in (["help"], ["config-reference"], ["completion", "bash"], ["help", "serve"]):
        done = run(empty / "servingd", *line)
        assert (done.returncode, done.stderr) == (0, ""), line
    for program in ("servingd serve", "tensorflow_model_server"):
        name, *rest = program.split()
        done = run(empty / name, *rest, "--model_base_path=/m")
        assert done.returncode == 255
        assert 'pip install "servingd[cpu]"' in done.stderr
        assert "Traceback" not in done.stderr
    done = run(empty / "servingd", "validate", "/m")
    assert done.returncode == 1
    assert 'pip install "servingd[cpu]"' in done.stderr
    done = run(empty / "servingd", "doctor")
    assert "the server is not installed" in done.stdout
    assert "Traceback" not in done.stderr
    code = f"import sys, servingd.client; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(empty / "python", "-c", code).stdout == "[]\n"


def test_it_calls_a_server(empty, start, tmp_path):
    lookup_table(tmp_path / "m" / "1")
    server = start(path=tmp_path / "m").wait_until_ready()
    for port in (server.port, server.http_port):
        done = run(
            empty / "servingd", "predict", "m", '{"keys": ["1"]}', f"--server=localhost:{port}"
        )
        assert (done.stdout, done.stderr) == ('{"values":["one"]}\n', "")
    web = f"--server=localhost:{server.http_port}"
    for command in ("status", "models ls", "models show m", "devices", "inspect m"):
        done = run(empty / "servingd", *command.split(), web)
        assert (done.returncode, done.stderr) == (0, ""), command
    done = run(empty / "servingd", "inspect", tmp_path / "m")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_the_server_runs_without_tensorflow(empty, wheel, start, tmp_path):
    install(empty, f"{wheel}[server]", "--constraints", str(PINS))
    lookup_table(tmp_path / "m" / "1")
    port, http_port = free_port(), free_port()
    command = [empty / "servingd", "serve", tmp_path / "m"]
    command += [f"--port={port}", f"--rest_api_port={http_port}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([str(word) for word in command], stderr=log, cwd="/")
    try:
        place = f"--server=localhost:{http_port}"
        done = run(
            empty / "python",
            "-c",
            "import time; from servingd.client import Client\n"
            f"with Client('localhost:{port}') as client:\n"
            "    for _ in range(200):\n"
            "        try: print(client.predict('m', {'keys': ['1']})); break\n"
            "        except Exception: time.sleep(.1)\n",
        )
        assert "b'one'" in done.stdout, (tmp_path / "log").read_text()
        done = run(empty / "servingd", "models", "ls", place)
        assert "AVAILABLE" in done.stdout
        assert "TensorFlow" not in (tmp_path / "log").read_text()
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_a_saved_model_without_tensorflow_says_what_to_install(empty, wheel, repository, tmp_path):
    install(empty, f"{wheel}[server]", "--constraints", str(PINS))
    port = free_port()
    command = [empty / "servingd", "serve", repository / "half_plus_two", f"--port={port}"]
    command += [f"--rest_api_port={free_port()}", "--max_num_load_retries=0"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([str(word) for word in command], stderr=log, cwd="/")
    try:
        done = run(
            empty / "servingd", "models", "wait", "half_plus_two", f"--server=localhost:{port}"
        )
        assert done.returncode == 1
        assert 'pip install "servingd[cpu]"' in done.stderr
    finally:
        process.terminate()
        process.wait(30)
