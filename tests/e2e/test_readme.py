"""What README.md shows works as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import servingd
from servingd.config.flags.parser import FLAGS
from tests.e2e.process import request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

ROOT = Path(servingd.__file__).parents[1]
PREDICT = (sys.executable, "-m", "servingd", "predict")
README = (ROOT / "README.md").read_text()


def test_the_prediction_from_the_shell(server):
    command, shown = re.search(r"\.venv/bin/servingd (predict .*)\n(\{.*\})\n", README).groups()
    model, inputs = re.fullmatch(r"predict (\S+) '(.*)'", command).groups()
    result = subprocess.run(
        [*PREDICT, model, inputs, f"--server=grpc://localhost:{server.port}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == shown + "\n"


def test_the_prediction_from_the_shell_tells_what_went_wrong(server):
    result = subprocess.run(
        [*PREDICT, "nobody", "{}", f"--server=grpc://localhost:{server.port}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == "Error: NOT_FOUND: Servable not found for request: Latest(nobody)\n"


def test_the_changelog_is_of_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "servingd" / "CHANGELOG.md").read_text(), re.M)[1]
    assert newest == servingd.__version__


def test_make_run_and_make_test_stand_first():
    assert re.findall(r"```\n(make \w+)\n```", README)[:2] == ["make run", "make test"]


@pytest.mark.parametrize("command", re.findall(r"^curl localhost:8501\S*.*$", README, re.M))
def test_what_is_asked_by_curl_is_answered(server, command):
    words = shlex.split(command.replace("localhost:8501", f"localhost:{server.http_port}"))
    result = subprocess.run(
        [*words, "--silent", "--fail-with-body"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if ":predict" in command:
        assert json.loads(result.stdout) == {"predictions": [2.5, 3.0, 4.5]}


def test_the_parts_that_python_reads(server, capsys):
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    (block,) = (b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "Streamed" in b)
    ask = request("half_plus_two", {"x": np.array([1, 2, 5], np.float32)})
    names = {"grpc": grpc, "tf": tf, "predict_pb2": predict_pb2, "request": ask}
    exec(block.replace("localhost:8500", f"localhost:{server.port}"), names)
    assert capsys.readouterr().out == "{'y': array([2.5, 3. , 4.5], dtype=float32)}\n"


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/startupz", "/readyz"])
def test_the_probes_that_it_names(server, path):
    assert path in README
    assert server.get(path) == (200, "ok\n")


def test_the_flags_that_it_names_are_there():
    of_others = {"help", "server", "target", "read-only", "no-deps"}
    named = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", README))
    assert named - of_others <= FLAGS.keys()
