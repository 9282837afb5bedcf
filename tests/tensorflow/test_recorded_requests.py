"""Recorded requests warm real SavedModels up, on the first session and on the one after it."""

from __future__ import annotations

import logging
import os
import shutil
import threading

import numpy as np
import pytest

from servingd.config.batching import BatchingParameters
from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import DataType, ModelSpec, ServableId, TensorSpec, VersionData
from servingd.errors import InvalidArgument, InvalidConfig, ServingError
from servingd.inference.replay import replay
from servingd.runtime.warm_up.recorded import WarmUp
from servingd.servables.files.sidecar_files import batching_parameters, check_saved_model_config
from servingd.servables.saved_model.listener import NullListener
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.wire import protos
from servingd.wire.records.prediction_logs import WARM_UP_FILE, examples_request, predict_request
from servingd.wire.records.tf_records import frame

pytestmark = pytest.mark.tf

M1 = ServableId("m", 1)
SPEC = ModelSpec("another", 5)


def predict_log(signature, inputs, types=None):
    log = protos.PredictionLog()
    specs = {a: TensorSpec((types or {}).get(a, DataType.FLOAT), None) for a in inputs}
    content = predict_request(SPEC._replace(signature_name=signature), inputs, specs)
    log.predict_log.request.MergeFromString(content)
    return log


def examples_log(kind, signature, *examples):
    log = protos.PredictionLog()
    content = examples_request(SPEC._replace(signature_name=signature), examples)
    getattr(log, kind).request.MergeFromString(content)
    return log


def example(x):
    made = protos.Example()
    made.features.feature["x"].float_list.value.append(x)
    return made.SerializeToString()


@pytest.fixture
def version(models, tmp_path):
    """Makes a version of an export with a warm-up file."""

    def make(export, *logs):
        path = tmp_path / export
        shutil.copytree(models / export, path)
        (path / "assets.extra").mkdir()
        records = (frame(log.SerializeToString()) for log in logs)
        (path / WARM_UP_FILE).write_bytes(b"".join(records))
        return VersionData(str(path), "tensorflow")

    return make


def warmed(data, **options):
    """Load a version and warm it up, as a manager does; the number of records."""
    platform = SavedModelPlatform(SavedModelOptions(optimize_models="off", **options))
    loader = platform.loader(M1, data)
    servable = loader.load()
    found = []
    try:
        WarmUp(replay, lambda s, path, seconds, records: found.append(records))(M1, data, servable)
    finally:
        loader.unload(servable)
        platform.stop()
    return found[0]


def test_predictions_of_every_signature(version):
    x = np.ones((2, 3), np.float32)
    logs = (
        predict_log("fixed", {"x": x}),
        predict_log("", {"x": x, "z": np.array([1])}, {"z": DataType.INT32}),
        predict_log("string", {"x": np.array([b"a"], object)}, {"x": DataType.STRING}),
    )
    assert warmed(version("echo", *logs)) == 3


def test_examples_of_every_kind(version):
    multi = protos.PredictionLog()
    request = multi.multi_inference_log.request
    for signature in ("serving_default", "flat"):
        task = request.tasks.add(method_name="tensorflow/serving/regress")
        task.model_spec.name, task.model_spec.signature_name = "m", signature
    request.input.MergeFromString(
        examples_log("regress_log", "", example(1.0)).regress_log.request.input.SerializeToString()
    )
    logs = (
        examples_log("regress_log", "", example(1.0), example(2.0)),
        examples_log("classify_log", "classify", example(1.0)),
        multi,
    )
    assert warmed(version("examples", *logs)) == 3


def test_a_request_that_the_model_refuses_fails_the_load_with_its_error(version):
    wrong = protos.Example()
    wrong.features.feature["x"].int64_list.value.append(1)
    data = version("examples", examples_log("regress_log", "", wrong.SerializeToString()))
    with pytest.raises(ServingError) as caught:
        warmed(data)
    assert caught.value.code is InvalidArgument.code
    assert "[[" not in caught.value.message


def optimised(data, warm_up, tmp_path, mode="background"):
    """Load a version and wait until its graph is optimised or not; the states, and its answer."""
    states, over = [], threading.Event()

    class Listener(NullListener):
        def graph_state_changed(self, servable_id, state):
            states.append(state)
            if state in ("optimised", "declined"):
                over.set()

        def warm_up(self, servable_id, data, servable):
            warm_up(servable_id, data, servable)

    options = SavedModelOptions(optimize_models=mode, cache_dir=str(tmp_path / "cache"))
    platform = SavedModelPlatform(options, Listener())
    loader = platform.loader(M1, data)
    servable = loader.load()
    try:
        assert over.wait(100)
    finally:
        loader.unload(servable)
        platform.stop()
    return states


def test_the_session_that_takes_over_is_warmed_up_before_it_does(version, tmp_path):
    x = np.ones(7, np.float32)
    data = version("half_plus_two", predict_log("", {"x": x}), predict_log("", {"x": x}))
    seen = []

    def remembering(body, request):
        seen.append(body)
        replay(body, request)

    states = optimised(data, WarmUp(remembering).again, tmp_path)
    assert states == ["plain", "optimising", "optimised", ""]
    assert len(seen) == 2
    seen.clear()
    (tuning,) = tmp_path.glob("cache/*/tuning.json")
    tuning.unlink()
    assert optimised(data, WarmUp(remembering).again, tmp_path) == states
    assert len(seen) == 2, "also where the graph comes from the cache"
    seen.clear()
    assert optimised(data, WarmUp(remembering).again, tmp_path) == ["optimised", ""]
    assert seen == [], "nothing takes over: the load itself warms it up"


def test_one_that_is_waited_for_is_warmed_up_by_the_load_itself(version, tmp_path):
    data = version("half_plus_two", predict_log("", {"x": np.ones(7, np.float32)}))

    def never(servable, data, body):
        raise AssertionError("it is warmed up twice")

    assert optimised(data, never, tmp_path, "wait")[-2] == "optimised"


def test_a_session_that_fails_a_recorded_request_does_not_take_over(version, tmp_path, caplog):
    data = version("half_plus_two")

    def refuse(servable, data, body):
        raise InvalidArgument("not for this one")

    with caplog.at_level(logging.INFO):
        assert optimised(data, refuse, tmp_path)[-2] == "declined"
    assert "a recorded request fails on the new session: not for this one" in caplog.text


# What else lies beside a model --------------------------------------------------------------------

SHARED = BatchingParameters(max_batch_size=64, num_batch_threads=3, thread_pool_name="all")


@pytest.fixture
def load(version):
    made = []

    def loaded(data, **options):
        platform = SavedModelPlatform(SavedModelOptions(optimize_models="off", **options))
        loader = platform.loader(M1, data)
        servable = loader.load()
        made.append((platform, loader, servable))
        return servable

    yield loaded
    for platform, loader, servable in made:
        loader.unload(servable)
        platform.stop()


def own_batching(data, text):
    with open(f"{data.path}/batching_params.pbtxt", "w") as file:
        file.write(text)


def test_a_versions_own_batching_replaces_all_but_the_threads(version):
    data = version("half_plus_two")
    own_batching(data, "max_batch_size { value: 8 } num_batch_threads { value: 9 }")
    options = SavedModelOptions(batching=SHARED, enable_per_model_batching=True)
    assert batching_parameters(data.path, options) == BatchingParameters(
        max_batch_size=8, num_batch_threads=3, thread_pool_name="all"
    )


def test_a_pipe_in_their_place_is_refused(version, caplog):
    data = version("half_plus_two")
    os.mkfifo(f"{data.path}/batching_params.pbtxt")
    options = SavedModelOptions(batching=SHARED, enable_per_model_batching=True)
    with pytest.raises(InvalidConfig, match=r"batching_params.pbtxt is not a regular file"):
        batching_parameters(data.path, options)
    os.makedirs(f"{data.path}/assets.extra", exist_ok=True)
    os.mkfifo(f"{data.path}/assets.extra/saved_model_config.pb")
    check_saved_model_config(data.path)
    assert "saved_model_config.pb is not a regular file" in caplog.text


@pytest.mark.parametrize(
    ("batching", "per_model", "wanted"),
    [(SHARED, True, None), (SHARED, False, SHARED), (None, False, None), (None, True, None)],
)
def test_without_a_file_of_its_own(tmp_path, batching, per_model, wanted):
    options = SavedModelOptions(batching=batching, enable_per_model_batching=per_model)
    assert batching_parameters(str(tmp_path), options) == wanted


@pytest.mark.parametrize("text", ["max_batch_size {", "max_batch_size { value: 0 }"])
def test_batching_that_cannot_be_read_fails_the_load(version, load, text):
    data = version("half_plus_two")
    own_batching(data, text)
    with pytest.raises(InvalidArgument, match=r"batching_params\.pbtxt"):
        load(data, batching=SHARED, enable_per_model_batching=True)
    load(data, batching=SHARED)


def test_a_configuration_that_cannot_be_read_is_a_warning(version, load, caplog):
    data = version("half_plus_two")
    with open(f"{data.path}/assets.extra/saved_model_config.pb", "wb") as file:
        file.write(b"\xff\xff")
    with caplog.at_level(logging.WARNING):
        load(data)
    (message,) = caplog.messages
    assert message.startswith("Failed to load saved model config: ")
    assert data.path in message
