"""Composites in the real process: wired, switched under load, and gone with their parts."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.e2e.process import Process

pytestmark = pytest.mark.e2e

PART = """
from servingd.servables.plugin import Servable, signature


class Add(Servable):
    signatures = {{
        "serving_default": signature(
            inputs={{"x": ("FLOAT", [None])}}, outputs={{"y": ("FLOAT", [None])}}
        )
    }}

    def __init__(self, version):
        pass

    def predict(self, signature, inputs):
        return {{"y": inputs["x"] + {add}}}


servable = Add
"""
TWICE = """
steps:
  one: {model: add, inputs: {x: x}}
  two: {model: add, inputs: {x: one.y}}
  other: {model: other, inputs: {x: x}}
  mean: {mean: [two.y, other.y]}
outputs: {one: one.y, two: two.y, mean: mean}
...
"""
X = {"x": np.zeros(2, np.float32)}


def write_part(version: Path, add: float) -> None:
    version.mkdir(parents=True)
    (version / "model.py").write_text(PART.format(add=add))


def write_composite(version: Path, text: str = TWICE) -> None:
    version.mkdir(parents=True)
    (version / "composite.yaml").write_text(text)


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def server(request, start, tmp_path) -> Process:
    root = tmp_path / "models"
    write_composite(root / "a_composite" / "1")  # looked at before its parts
    write_part(root / "add" / "1", 1)
    write_part(root / "other" / "1", 10)
    return start(
        f"--model_repository={root}",
        "--allow_python_models",
        "--file_system_poll_wait_seconds=1",
        f"--workers={request.param}",
    ).wait_until_ready()


def test_a_composite_answers_over_both_apis_and_is_counted_by_step(server):
    answer = server.predict("a_composite", X)
    assert {name: array.tolist() for name, array in answer.items()} == {
        "one": [1, 1],
        "two": [2, 2],
        "mean": [6, 6],
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    body = json.dumps({"instances": [1.0, 2.0]})
    connection.request("POST", "/v1/models/a_composite:predict", body)
    assert json.loads(connection.getresponse().read())["predictions"] == [
        {"one": 2.0, "two": 3.0, "mean": 7.0},
        {"one": 3.0, "two": 4.0, "mean": 8.0},
    ]
    connection.close()
    for step in ("one", "two", "other"):
        labels = f'code="OK",model="a_composite",step="{step}",version="1"'
        assert server.metric(f"servingd_steps_total{{{labels}}}") == 2
    assert "steps.mean" not in server.get("/metrics")[1]


def test_versions_that_switch_under_load_are_never_mixed(server, tmp_path):
    outcomes: Counter = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answer = server.predict("a_composite", X)
            except grpc.RpcError as error:
                outcomes[f"{error.code().name}: {error.details()}"] += 1
                continue
            one, two = answer["one"][0], answer["two"][0]
            outcomes["whole" if two == 2 * one else f"mixed: {one} {two}"] += 1

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(2, 6):
        write_part(tmp_path / "models" / "add" / str(version), version)
        server.wait_for(
            "the switch", lambda v=version: server.predict("a_composite", X)["one"][0] == v
        )
    write_composite(tmp_path / "models" / "a_composite" / "2")
    server.wait_for("its switch", lambda: server.states("a_composite").get(2) == "AVAILABLE")
    stop.set()
    for thread in threads:
        thread.join(30)
    assert set(outcomes) == {"whole"}, outcomes
    assert outcomes["whole"] > 5


def test_readiness_follows_the_parts(server, tmp_path):
    assert server.get("/readyz")[0] == 200
    gone = tmp_path / "models" / "other"
    gone.rename(tmp_path / "other")

    def reason():
        status, text = server.get("/readyz")
        return status == 503 and text

    assert "{name: a_composite} lacks its parts: other" in server.wait_for("503", reason)
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("a_composite", X)
    assert "a part of a_composite is not available" in caught.value.details()
    (tmp_path / "other").rename(gone)
    server.wait_for("the part", lambda: server.get("/readyz")[0] == 200)
    assert server.predict("a_composite", X)["mean"].tolist() == [6, 6]


def test_what_does_not_fit_is_a_load_error_and_a_missing_part_is_waited_for(start, tmp_path):
    root = tmp_path / "models"
    write_part(root / "add" / "1", 1)
    write_composite(
        root / "wrong" / "1",
        "steps: {one: {model: add, inputs: {z: x}}}\noutputs: {y: one.y}\n...\n",
    )
    write_composite(
        root / "early" / "1",
        "steps: {one: {model: late, inputs: {x: x}}}\noutputs: {y: one.y}\n...\n",
    )
    server = start(
        f"--model_repository={root}",
        "--allow_python_models",
        "--file_system_poll_wait_seconds=1",
        "--max_num_load_retries=0",
        "--ready_when=add",
    ).wait_until_ready()

    def failure():
        found = json.loads(server.get("/v1/models/wrong")[1])["model_version_status"][0]
        return found["status"]["error_message"] if found["state"] == "END" else ""

    assert "step one (model add), input z: expected one of x" in server.wait_for("END", failure)
    assert server.states("early") == {1: "LOADING"}
    write_part(root / "late" / "1", 5)
    server.wait_for("the composite", lambda: server.states("early") == {1: "AVAILABLE"})
    assert server.predict("early", X)["y"].tolist() == [5, 5]
