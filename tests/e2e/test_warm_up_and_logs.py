"""Recorded requests: a version answers them before it serves, and a request log makes new ones."""

from __future__ import annotations

import http.client
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tests.e2e.process import request

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

X = np.float32([1, 2])
FILE = "assets.extra/tf_serving_warmup_requests"


def prediction(signature="", inputs=None):
    log = prediction_log_pb2.PredictionLog()
    asked = request("another", inputs or {"x": X}, signature=signature, version=77)
    log.predict_log.request.CopyFrom(asked)
    return log


def record(version, *logs):
    """Write a version's warm-up file, as TensorFlow's documentation has it."""
    (version / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(version / FILE)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def logged(folder):
    """All records of a request log, read by TensorFlow."""
    return [
        prediction_log_pb2.PredictionLog.FromString(record)
        for file in sorted(folder.glob("*.tfrecord"))
        for record in tf.compat.v1.io.tf_record_iterator(str(file))
    ]


@pytest.fixture
def version(models, tmp_path):
    path = tmp_path / "half" / "1"
    shutil.copytree(models / "half_plus_two", path)
    return path


@pytest.fixture
def serve(start, version):
    def begin(*flags):
        return start("--model_name=half", f"--model_base_path={version.parent}", *flags)

    return begin


# Warm-up ----------------------------------------------------------------------------------------


def test_recorded_requests_are_run_before_a_version_is_available(serve, version, tmp_path):
    record(version, prediction(), prediction(inputs={"x": np.float32([3])}))
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/families" }')
    process = serve(
        "--num_request_iterations_for_warmup=2",
        "--optimize_models=off",
        f"--monitoring_config_file={monitoring}",
    )
    process.wait_until_ready()
    lines = process.log.read_text()
    told = f"Finished reading warmup data for model at {version}. Number of warmup records read: 2"
    assert 0 < lines.index(told) < lines.index("Successfully loaded servable version")
    page = process.get("/families")[1].splitlines()
    labels = f'{{model_path="{version}",status="OK"}}'
    assert f":tensorflow:serving:model_warmup_records_read{labels} 2" in page
    assert f":tensorflow:serving:model_warmup_latency_count{labels} 1" in page
    assert process.predict("half", {"x": X})["y"].tolist() == [2.5, 3.0]


def test_a_version_without_a_file_is_told_in_the_log(serve, version):
    process = serve("--optimize_models=off")
    process.wait_until_ready()
    assert f"No warmup data file found at {version}/{FILE}" in process.log.read_text()


WRONG = {
    "garbage": (b"no TFRecord file", "Please verify your warmup data is in TFRecord format."),
    "none": (prediction("none"), 'Serving signature key "none" not found.'),
    "session": (
        prediction_log_pb2.PredictionLog(session_run_log={}),
        "Unsupported log_type for warmup: 5",
    ),
}


def test_a_warm_up_that_fails_fails_the_load(start, models, tmp_path):
    for name, (content, _) in WRONG.items():
        version = tmp_path / "models" / name / "1"
        shutil.copytree(models / "half_plus_two", version)
        record(version, *([] if isinstance(content, bytes) else [content]))
        if isinstance(content, bytes):
            (version / FILE).write_bytes(content)
    flags = ("--max_num_load_retries=0", "--optimize_models=off")
    process = start(f"--model_repository={tmp_path / 'models'}", *flags)

    def failed(name):
        states = json.loads(process.get(f"/v1/models/{name}")[1]).get("model_version_status")
        return states and states[0]["state"] == "END" and states[0]["status"]["error_message"]

    for name, (_, why) in WRONG.items():
        assert why in process.wait_for(f"{name}'s failure", lambda name=name: failed(name))


def test_it_can_be_switched_off(serve, version):
    record(version)
    (version / FILE).write_bytes(b"no TFRecord file")
    process = serve("--enable_model_warmup=false", "--optimize_models=off")
    process.wait_until_ready()


# The request log --------------------------------------------------------------------------------


@pytest.fixture
def serve_logged(start, version, tmp_path):
    """A server that logs every call of `half` under `logs/`."""
    config = tmp_path / "models.config"
    config.write_text(f"""model_config_list {{ config {{
      name: "half" base_path: "{version.parent}" model_platform: "tensorflow"
      logging_config {{
        log_collector_config {{ type: "tfrecord" filename_prefix: "{tmp_path}/logs/half" }}
        sampling_config {{ sampling_rate: 1 }}
      }} }} }}""")

    def begin(*flags):
        process = start(f"--model_config_file={config}", "--optimize_models=off", *flags)
        return process.wait_until_ready()

    return begin


def test_every_call_is_a_record_that_warms_up_the_next_version(
    serve_logged, serve, version, tmp_path
):
    process = serve_logged()
    for n in range(3):
        process.predict("half", {"x": np.float32([n])})
    with pytest.raises(Exception, match="not found"):
        process.predict("half", {"x": X}, signature="none")
    assert process.terminate() == 0
    found = logged(tmp_path / "logs")
    values = [log.predict_log.request.inputs["x"] for log in found]
    assert [tf.make_ndarray(value).tolist() for value in values] == [[0.0], [1.0], [2.0]]
    answers = [log.predict_log.response.outputs["y"] for log in found]
    assert [tf.make_ndarray(value).tolist() for value in answers] == [[2.0], [2.5], [3.0]]
    spec = found[0].log_metadata.model_spec
    assert (spec.name, spec.version.value) == ("half", 1)
    assert spec.signature_name == "serving_default"
    assert list(found[0].log_metadata.saved_model_tags) == ["serve"]
    assert found[0].log_metadata.sampling_config.sampling_rate == 1

    (file,) = (tmp_path / "logs").iterdir()
    (version / FILE).parent.mkdir()
    file.rename(version / FILE)
    again = serve("--optimize_models=off")
    again.wait_until_ready()
    assert "Number of warmup records read: 3" in again.log.read_text()


def test_calls_over_rest_are_records_as_well(serve_logged, tmp_path):
    process = serve_logged()
    connection = http.client.HTTPConnection("127.0.0.1", process.http_port, timeout=10)
    connection.request("POST", "/v1/models/half:predict", json.dumps({"instances": [1.0, 2.0]}))
    assert json.loads(connection.getresponse().read()) == {"predictions": [2.5, 3.0]}
    connection.close()
    assert process.terminate() == 0
    (found,) = logged(tmp_path / "logs")
    request_, response = found.predict_log.request, found.predict_log.response
    assert tf.make_ndarray(request_.inputs["x"]).tolist() == [1.0, 2.0]
    assert tf.make_ndarray(response.outputs["y"]).tolist() == [2.5, 3.0]
    assert found.log_metadata.model_spec.signature_name == "serving_default"


def test_a_log_that_cannot_be_written_fails_no_call(serve_logged, tmp_path):
    (tmp_path / "logs").write_text("in the folder's place")
    process = serve_logged()
    for _ in range(3):
        assert process.predict("half", {"x": X})["y"].tolist() == [2.5, 3.0]
    assert process.terminate() == 0
    assert process.log.read_text().count("requests are not logged to") == 1


def test_a_log_of_another_kind_is_refused(start, tmp_path):
    config = tmp_path / "models.config"
    config.write_text(f"""model_config_list {{ config {{
      name: "half" base_path: "{tmp_path}" model_platform: "tensorflow"
      logging_config {{ log_collector_config {{ type: "kafka" }} }} }} }}""")
    process = start(f"--model_config_file={config}")
    assert process.process.wait(60) != 0
    assert "log_collector_config.type: expected tfrecord or nothing, got 'kafka'" in process.tail()


# TF Lite ----------------------------------------------------------------------------------------


def test_a_tf_lite_model_is_served_and_warmed_up_where_it_is_preferred(
    start, tflite_models, tmp_path
):
    version = tmp_path / "lite" / "1"
    shutil.copytree(tflite_models / "tflite", version)
    record(version, prediction())
    process = start(
        "--model_name=lite", f"--model_base_path={version.parent}", "--prefer_tflite_model=true"
    )
    process.wait_until_ready()
    assert process.predict("lite", {"x": X})["y"].tolist() == [2.5, 3.0]
    words = np.array([b"a", b"b"], object)
    found = process.predict("lite", {"words": words, "places": np.int32([1])}, signature="gather")
    assert found["found"].tolist() == [b"b"]
    assert "Number of warmup records read: 1" in process.log.read_text()
