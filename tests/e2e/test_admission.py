"""Latency goals and priorities, from the configuration and the headers to what callers see."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.e2e.process import request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]


def queue(server, model):
    """What the server says of the queue of a model's default signature."""
    (version,) = json.loads(server.get(f"/servingd/v1/models/{model}")[1])["versions"]
    return next(q for q in version["queues"] if q["signature"] == "serving_default")


# Latency goals ----------------------------------------------------------------------------------


@pytest.fixture
def goals(start, models, tmp_path):
    """The same model twice, one with a goal."""
    for name in ("with_goal", "without"):
        shutil.copytree(models / "keras_exported", tmp_path / name / "1")
    config = tmp_path / "servingd.yaml"
    config.write_text(f"""
inline_below_us: 0
models:
- name: with_goal
  base_path: {tmp_path / "with_goal"}
  latency_goal_ms: 400
- name: without
  base_path: {tmp_path / "without"}
""")
    server = start(f"--servingd_config_file={config}").wait_until_ready()
    for name in ("with_goal", "without"):
        server.wait_for("the proof", lambda name=name: queue(server, name)["worth_merging"] > 1)
    return server


def input_of(server, model) -> str:
    from tensorflow_serving.apis import get_model_metadata_pb2

    signatures = get_model_metadata_pb2.SignatureDefMap()
    server.metadata(model).metadata["signature_def"].Unpack(signatures)
    (name,) = signatures.signature_def["serving_default"].inputs
    return name


def test_a_latency_goal_of_the_configuration_decides_when_batches_leave(goals):
    message = {
        name: request(name, {input_of(goals, name): np.zeros((1, 8, 8, 1), np.float32)})
        for name in ("with_goal", "without")
    }
    with ThreadPoolExecutor(16) as pool:

        def all_called(name):
            calls = [pool.submit(goals.prediction.Predict, message[name], 30) for _ in range(64)]
            return [call.result() for call in calls]

        def held_for_the_goal():
            all_called("with_goal")
            return queue(goals, "with_goal")["batch"]["left"].get("goal")

        goals.wait_for("a batch that was held", held_for_the_goal)
        all_called("without")
    with_goal, without = (queue(goals, name) for name in ("with_goal", "without"))
    assert with_goal["batch"]["full_rows"] > 1
    assert with_goal["batch"]["hold_ms"] <= 400
    assert with_goal["batch"]["mean_rows"] > 1
    assert with_goal["run_ms_by_rows"]
    # Nobody waits for company where there is no goal to wait for.
    assert without["batch"]["hold_ms"] == 0
    assert without["batch"]["left"].keys() <= {"idle", "full"}

    def left(name, reason):
        labels = f'model="{name}",reason="{reason}",signature="serving_default",version="1"'
        return goals.metric(f"servingd_batches_total{{{labels}}}")

    assert left("with_goal", "goal") == with_goal["batch"]["left"]["goal"]
    assert left("without", "goal") is None
    labels = 'model="with_goal",signature="serving_default",version="1"'
    assert goals.metric(f"servingd_batch_rows_count{{{labels}}}") == sum(
        with_goal["batch"]["left"].values()
    )


# Priorities -------------------------------------------------------------------------------------

THREADS = max(2, os.cpu_count() or 1)
"""So many of the model's calls run at a time."""
LOW_CALLS = 6 * THREADS
RUN = 150_000
"""Rounds of the slow model's loop: a run takes long beside what passes between two requests."""


@pytest.fixture
def slow(start, models, tmp_path):
    """A slow model, all of whose threads are busy once the first calls have come."""
    shutil.copytree(models / "slow", tmp_path / "slow" / "1")
    server = start(
        "--model_name=slow", f"--model_base_path={tmp_path / 'slow'}", "--optimize_models=off"
    ).wait_until_ready()
    server.predict("slow", {"n": np.int32(RUN)})
    return server


def ask_over_grpc(server):
    message = request("slow", {"n": np.int32(RUN)})
    metadata = [("x-servingd-priority", "high")]
    server.prediction.Predict(message, timeout=60, metadata=metadata)


def ask_over_rest(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    body, headers = json.dumps({"inputs": RUN}), {"x-servingd-priority": "high"}
    connection.request("POST", "/v1/models/slow:predict", body, headers)
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("ask", [ask_over_grpc, ask_over_rest])
def test_a_call_of_high_priority_passes_those_of_low_priority_that_wait(slow, ask):
    message = request("slow", {"n": np.int32(RUN)})
    low = [("x-servingd-priority", "low")]
    answered = []
    all_answered = threading.Event()

    def take(call):
        answered.append(call.result())
        if len(answered) == LOW_CALLS:
            all_answered.set()

    for _ in range(LOW_CALLS):
        call = slow.prediction.Predict.future(message, timeout=60, metadata=low)
        call.add_done_callback(take)
    slow.wait_for("a queue", lambda: queue(slow, "slow")["waiting_rows"] >= 4 * THREADS)
    ask(slow)
    # It was the last that came, and the next that ran: of those before it, most still wait.
    waiting = queue(slow, "slow")["waiting_rows"]
    assert waiting > 0
    assert len(answered) < LOW_CALLS
    assert all_answered.wait(60)
