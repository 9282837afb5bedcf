"""Calls that run together: by TensorFlow Serving's parameters, or because they wait together."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from tests.e2e.process import request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]


@pytest.fixture
def base(models, tmp_path):
    shutil.copytree(models / "half_plus_two", tmp_path / "m" / "1")
    return tmp_path / "m"


@pytest.fixture
def batching(start, base, tmp_path):
    """Start a server of one model with batching parameters: `batching(text, *flags)`."""

    def begin(text: str, *flags: str, name="m", folder=base):
        file = tmp_path / "batching.config"
        file.write_text(text)
        return start(
            f"--model_name={name}",
            f"--model_base_path={folder}",
            "--enable_batching",
            f"--batching_parameters_file={file}",
            "--optimize_models=off",  # they are too short for it to come to an end
            *flags,
        )

    return begin


def together(server, calls, timeout=30):
    """Send requests at the same time; outputs or errors in their order."""

    def one(message):
        try:
            answer = server.prediction.Predict(message, timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return {name: np.float32(t.float_val) for name, t in answer.outputs.items()}

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def half(*numbers):
    return request("m", {"x": np.float32(numbers)})


def session_metric(server, name, labels=""):
    return server.metric(f":tensorflow:serving:batching_session:{name}{{{labels}}}")


def test_a_batch_waits_for_its_timer_or_until_it_is_full(batching):
    server = batching(
        "max_batch_size { value: 4 } batch_timeout_micros { value: 2000000 } "
        "num_batch_threads { value: 1 }"
    ).wait_until_ready()
    answers = together(server, [half(float(n)) for n in range(4)])
    assert [a["y"].tolist() for a in answers] == [[2.0], [2.5], [3.0], [3.5]]
    assert session_metric(server, "wrapped_run_count") == 1
    assert session_metric(server, "processed_batch_size_sum") == 4
    assert session_metric(server, "input_batch_size_count") == 4
    name = "queuing_latency_count"
    assert session_metric(server, name, 'thread_pool_name=""') == 4
    (lone,) = together(server, [half(1.0)])  # nobody else comes: the timer lets it go
    assert lone["y"].tolist() == [2.5]


def test_batches_are_filled_up_to_allowed_sizes(batching):
    server = batching(
        "max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8"
    ).wait_until_ready()
    (answer,) = together(server, [half(1.0, 2.0, 3.0)])
    assert answer["y"].tolist() == [2.5, 3.0, 3.5]
    series = 'padding_size_sum{execution_batch_size="4"}'
    assert server.metric(f":tensorflow:serving:batching_session:{series}") == 1


def test_sizes_that_do_not_end_in_the_largest_are_refused(batching):
    server = batching("max_batch_size { value: 8 } allowed_batch_sizes: 4")
    assert server.process.wait(30) == 255
    assert (
        "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8"
        in server.tail()
    )


def test_a_request_may_be_too_large_or_be_split(batching):
    server = batching("max_batch_size { value: 2 }").wait_until_ready()
    assert together(server, [half(1.0, 2.0, 3.0)]) == [
        ("INVALID_ARGUMENT", "Task size 3 is larger than maximum input batch size 2")
    ]
    server = batching(
        "max_batch_size { value: 10 } enable_large_batch_splitting { value: true } "
        "max_execution_batch_size { value: 2 }"
    ).wait_until_ready()
    (answer,) = together(server, [half(1.0, 2.0, 3.0, 4.0, 5.0)])
    assert answer["y"].tolist() == [2.5, 3.0, 3.5, 4.0, 4.5]


def test_a_full_queue_says_so(batching, models, tmp_path):
    shutil.copytree(models / "slow", tmp_path / "slow" / "1")
    server = batching(
        "max_batch_size { value: 1 } max_enqueued_batches { value: 1 } "
        "num_batch_threads { value: 1 }",
        name="slow",
        folder=tmp_path / "slow",
    ).wait_until_ready()
    (answer,) = together(server, [request("slow", {"n": np.int32(1)})])
    assert answer == (
        "INVALID_ARGUMENT",
        "Batching Run() input tensors must have at least one dimension",
    )


def test_variable_lengths_are_padded_and_stay_so(batching, models, tmp_path):
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([None, None], tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": x * 2.0}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "wide" / "1"), {"serving_default": module.f})
    wait = "max_batch_size { value: 2 } batch_timeout_micros { value: 2000000 } "
    calls = [
        request("wide", {"x": np.float32([[1, 2]])}),
        request("wide", {"x": np.float32([[3, 4, 5]])}),
    ]
    server = batching(
        wait + "pad_variable_length_inputs: true", name="wide", folder=tmp_path / "wide"
    ).wait_until_ready()
    answers = together(server, calls)
    assert [a["y"].tolist() for a in answers] == [[2, 4, 2], [6, 8, 10]]
    assert session_metric(server, "wrapped_run_count") == 1
    # Without padding they do not share a batch, and so do not spoil each other.
    server = batching(wait, name="wide", folder=tmp_path / "wide").wait_until_ready()
    answers = together(server, calls)
    assert [a["y"].tolist() for a in answers] == [[2, 4], [6, 8, 10]]
    assert session_metric(server, "wrapped_run_count") == 2


def test_a_model_may_have_parameters_of_its_own_and_without_is_not_batched(batching, base):
    flag = "--enable_per_model_batching_parameters"
    server = batching("max_batch_size { value: 2 }", flag).wait_until_ready()
    (answer,) = together(server, [half(1.0, 2.0, 3.0)])
    assert answer["y"].tolist() == [2.5, 3.0, 3.5]
    server.close()
    (base / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 1 }")
    server = batching("max_batch_size { value: 2 }", flag).wait_until_ready()
    assert together(server, [half(1.0, 2.0)])[0][0] == "INVALID_ARGUMENT"


# Merging without parameters


def status(server, model="m"):
    """What the server says of the queue of a model's default signature."""
    (version,) = json.loads(server.get(f"/servingd/v1/models/{model}")[1])["versions"]
    return next(q for q in version["queues"] if q["signature"] == "serving_default")


def test_what_waits_together_runs_together_where_it_is_proven_to_be_right(start, models, tmp_path):
    shutil.copytree(models / "keras_exported", tmp_path / "m" / "1")
    server = start(
        "--model_name=m", f"--model_base_path={tmp_path / 'm'}", "--inline_below_us=0"
    ).wait_until_ready()
    server.wait_for("the proof", lambda: status(server)["worth_merging"] > 0)
    rng = np.random.default_rng(0)
    calls = [rng.random((1, 8, 8, 1), np.float32) for _ in range(64)]
    alone = [server.predict("m", {server_input(server): x}) for x in calls]
    name = server_input(server)
    messages = [request("m", {name: x}) for x in calls]
    for _ in range(10):
        answers = together(server, messages)
        for one, answer in zip(alone, answers, strict=True):
            (out,) = one
            assert np.allclose(one[out].reshape(-1), answer[out], rtol=1e-4, atol=1e-6)
    queue = status(server)
    assert queue["batch"]["mean_rows"] > 1
    assert sum(queue["batch"]["left"].values()) >= 64
    text = server.get("/metrics")[1]
    assert 'servingd_batches_total{model="m",reason=' in text
    assert 'servingd_queue_seconds_bucket{model="m",' in text


def server_input(server) -> str:
    from tensorflow_serving.apis import get_model_metadata_pb2

    signatures = get_model_metadata_pb2.SignatureDefMap()
    server.metadata("m").metadata["signature_def"].Unpack(signatures)
    (name,) = signatures.signature_def["serving_default"].inputs
    return name


def test_merging_can_be_switched_off(start, base):
    server = start(
        "--model_name=m", f"--model_base_path={base}", "--merge_waiting_calls=false"
    ).wait_until_ready()
    server.wait_for("the graph", lambda: "runs on a graph" in server.log.read_text())
    assert status(server)["worth_merging"] == 0


def test_a_call_that_could_not_be_answered_in_time_is_refused_with_a_hint(start, models, tmp_path):
    shutil.copytree(models / "slow", tmp_path / "slow" / "1")
    server = start(
        "--model_name=slow", f"--model_base_path={tmp_path / 'slow'}", "--optimize_models=off"
    ).wait_until_ready()
    slow = request("slow", {"n": np.int32(100_000)})
    for _ in range(3):
        server.prediction.Predict(slow, timeout=60)
    done = threading.Event()

    def occupy():
        while not done.is_set():
            server.prediction.Predict(slow, timeout=60)

    callers = [threading.Thread(target=occupy) for _ in range(8)]
    for caller in callers:
        caller.start()
    try:

        def refused():
            try:
                server.prediction.Predict(slow, timeout=0.2)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return error
            return None

        error = server.wait_for("a refusal", refused)
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert "the answer would take" in error.details()
    assert int(dict(error.trailing_metadata())["retry-after-ms"]) > 0
    assert server.metric(
        'servingd_admission_refused_total{model="slow",reason="resource_exhausted",'
        'signature="serving_default",version="1"}'
    )
