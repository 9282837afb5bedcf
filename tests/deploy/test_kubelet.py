"""Containers of our manifests, run as a kubelet runs them: probes, calls, and the stop."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import yaml

from tests.deploy.kit import DEPLOY
from tests.deploy.kubelet import Container, possible

pytestmark = [
    pytest.mark.tf,
    pytest.mark.e2e,
    pytest.mark.skipif(not possible(), reason="this machine gives us no namespaces (needs root)"),
]


def read(path: str) -> dict:
    return yaml.safe_load((DEPLOY / "kubernetes" / path).read_text())


def run_through(container: Container, call: tuple[str, str], grace_s: float) -> str:
    """From the first probe to the exit; return what the call, a path and a body, was answered."""
    try:
        if "startupProbe" in container.container:
            container.wait_for("startupProbe")
        container.wait_for("readinessProbe")
        assert container.probe("livenessProbe")
        status, answer = container.ask(*call)
        assert status == 200, answer
        ended = time.monotonic() + grace_s
        container.stop()
        while container.probe("readinessProbe"):
            pass
        # Others do not know yet that it is going: it is alive, and answers.
        assert container.probe("livenessProbe")
        assert container.ask(*call) == (200, answer)
        assert container.process.wait(ended - time.monotonic()) == 0
        log = container.log.read_text()
        for trouble in ("Read-only file system", "others can write", "Traceback"):
            assert trouble not in log
        return answer
    finally:
        container.close()


def test_the_deployment(repository, tmp_path) -> None:
    pod = read("base/deployment.yml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container["securityContext"] |= {"runAsUser": pod["securityContext"]["runAsUser"]}
    models = tmp_path / "models"
    shutil.copytree(repository / "names", models / "names")
    started = Container(container, tmp_path, models=models, models_at="/models")
    call = ("/v1/models/names:predict", json.dumps({"instances": ["2"]}))
    answer = run_through(started, call, pod["terminationGracePeriodSeconds"])
    assert json.loads(answer) == {"predictions": ["two"]}


def test_the_serving_runtime_of_kserve(repository, tmp_path) -> None:
    (container,) = read("kserve/cluster-serving-runtime.yml")["spec"]["containers"]
    container["args"] = [flag.replace("{{.Name}}", "flowers") for flag in container["args"]]
    models = tmp_path / "models"
    shutil.copytree(repository / "half_plus_two" / "1", models / "1")
    started = Container(container, tmp_path, models=models, models_at="/mnt/models")
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}
    call = ("/v2/models/flowers/infer", json.dumps({"inputs": [tensor]}))
    answer = run_through(started, call, grace_s=30)  # what pods have by default
    assert json.loads(answer)["outputs"][0]["data"] == [2.5, 3.0]
