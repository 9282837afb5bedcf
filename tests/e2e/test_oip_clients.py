"""Clients of the Open Inference Protocol that we did not write, as they are."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import servingd
from tests.environments import install, make_environment
from tests.side_by_side import made_once

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

CALLS = int(os.environ.get("SERVINGD_TEST_OIP_CALLS", "1000"))
CLIENTS = Path(servingd.__file__).parents[1] / "tests" / "clients"
Y = [2.5, 3.0, 4.5]


def environment(tmp_path_factory, *packages: str) -> Path:
    def make(folder: Path) -> None:
        install(make_environment(folder / "venv"), *packages, needed=False)

    name = packages[0].partition("[")[0]
    return made_once(tmp_path_factory.getbasetemp(), name, make) / "venv" / "bin"


def run(programs: Path, script: str, server, *arguments: str):
    done = subprocess.run(
        [
            programs / "python",
            CLIENTS / script,
            str(server.port),
            str(server.http_port),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counted(server, protocol: str, method: str) -> float:
    """Calls of half_plus_two that succeeded."""
    labels = (
        f'code="OK",method="{method}",model="half_plus_two",protocol="{protocol}",'
        'signature="serving_default",version="1"'
    )
    return server.metric(f"servingd_requests_total{{{labels}}}") or 0.0


def test_tritonclient(server, tmp_path_factory):
    programs = environment(tmp_path_factory, "tritonclient[grpc,http]", "aiohttp")
    before = [
        counted(server, *each) for each in (("oip_grpc", "ModelInfer"), ("oip_rest", "infer"))
    ]
    found = run(programs, "triton.py", server, str(CALLS))
    assert found["wrong"] == {"grpc": 0, "http": 0, "grpc.aio": 0, "http.aio": 0}
    for way in ("grpc", "http"):
        seen = found[way]
        for question in ("live", "ready", "model_ready", "version_ready"):
            assert seen[question] is True
        assert seen["no_such_version"] is False
        for answer in ("y", "of_version", "one_output", "with_limits"):
            assert seen[answer] == Y
        assert seen["texts"] == ["zero", "one"]
        assert seen["id"] == "mine"
        assert seen["server"]["name"] == "servingd"
        (tensor,) = seen["metadata"]["inputs"]
        assert (tensor["name"], tensor["datatype"]) == ("x", "FP32")
        assert list(map(int, tensor["shape"])) == [-1]
        ready = {entry["name"] for entry in seen["index"] if entry["state"] == "READY"}
        assert {"half_plus_two", "digit_names"} <= ready
        codes = [seen[e][0] for e in ("wrong_input", "no_model", "no_output", "sequence")]
        if way == "grpc":
            names = ("INVALID_ARGUMENT", "NOT_FOUND", "INVALID_ARGUMENT", "INVALID_ARGUMENT")
            assert codes == [f"StatusCode.{name}" for name in names]
        else:
            assert codes == ["400", "404", "400", "400"]
        assert "input 'x' is missing" in seen["wrong_input"][1]
        assert "sequence_id" in seen["sequence"][1]
    assert found["http"]["as_json"] == found["http"]["gzip"] == Y

    def agree() -> bool:
        after = [
            counted(server, *each) for each in (("oip_grpc", "ModelInfer"), ("oip_rest", "infer"))
        ]
        return [a - b for a, b in zip(after, before, strict=True)] == [CALLS + 55, CALLS + 57]

    server.wait_for("the metrics to agree", agree, 5)


def test_kserves_own_clients(server, tmp_path_factory):
    found = run(environment(tmp_path_factory, "kserve"), "kserve_sdk.py", server)
    for way in ("rest", "grpc"):
        seen = found[way]
        assert (seen["live"], seen["ready"], seen["model_ready"]) == (True, True, True)
        for raw in (False, True):
            assert seen[f"y, raw={raw}"] == Y
            assert seen[f"id, raw={raw}"] == "mine"
