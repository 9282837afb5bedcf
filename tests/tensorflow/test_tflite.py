"""TF Lite models in the place of SavedModels; what every servable keeps is in the contract."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from servingd.config.batching import BatchingParameters
from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import DataType, ServableId, TensorSpec, VersionData
from servingd.errors import (
    Code,
    DataLoss,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ServingError,
    Unavailable,
)
from servingd.servables.registry import Platforms
from servingd.servables.tflite import interpreters
from servingd.servables.tflite.interpreters import Pool
from servingd.servables.tflite.model_file import FILE, find_damage
from servingd.sources.listing import DiskListing

pytestmark = pytest.mark.tf

M1 = ServableId("m", 1)


class Outcome:
    def __init__(self, deadline=None, lives=True):
        self.deadline = deadline
        self.lives = lives
        self.outputs = None

    def alive(self):
        return self.lives

    def succeed(self, outputs):
        self.outputs = outputs

    def fail(self, error):
        raise error


def floats(*values):
    return np.array(values, np.float32)


def text(*values):
    return np.array([v.encode() for v in values], object)


def platforms(**options):
    return Platforms(
        SavedModelOptions(
            optimize_models="off",
            **{"prefer_tflite_model": True, "num_tflite_pools": 1} | options,
        )
    )


@pytest.fixture
def load(models, tflite_models):
    """Load an export, or a folder; unloaded at the end."""
    made = []

    def loaded(name="tflite", **options):
        known = platforms(**options)
        root = tflite_models if str(name).startswith("tflite") else models
        loader = known["tensorflow"].loader(M1, VersionData(str(root / name), "tensorflow"))
        servable = loader.load()
        made.append((known, loader, servable))
        return servable

    yield loaded
    for known, loader, servable in made:
        loader.unload(servable)
        known.stop()


def call(servable, inputs, signature="serving_default", outcome=None):
    outcome = outcome or Outcome()
    servable.run(servable.signatures[signature], inputs, outcome)
    return outcome.outputs


def test_a_model_is_called_by_the_signature_defs_in_its_metadata(load, caplog):
    servable = load("tflite_with_signature_defs")
    assert list(servable.signatures) == ["serving_default"]
    assert call(servable, {"a": floats(1, 2, 5)})["b"].tolist() == [2.5, 3.0, 4.5]
    signature = servable.signatures["serving_default"]
    assert signature.inputs["a"] == TensorSpec(DataType.FLOAT, (None,), "x")
    assert b"x:0" in signature.definition
    assert "signature odd of a TF Lite model names no tensor" in caplog.text


# On disk ----------------------------------------------------------------------------------------


def both(models, tflite_models, tmp_path):
    shutil.copytree(models / "half_plus_three", tmp_path / "both")
    shutil.copy(tflite_models / "tflite" / FILE, tmp_path / "both" / FILE)
    return tmp_path / "both"


def test_it_is_preferred_only_where_that_is_asked_for(models, tflite_models, tmp_path, load):
    path = both(models, tflite_models, tmp_path)
    assert call(load(path), {"x": floats(4)})["y"] == [4]
    assert call(load(path, prefer_tflite_model=False), {"x": floats(4)})["y"] == [5]


def test_a_version_without_one_is_a_saved_model(load):
    assert call(load("half_plus_three"), {"x": floats(4)})["y"] == [5]


def test_a_version_with_nothing_else_is_complete_where_it_is_preferred(tflite_models):
    listing = DiskListing(str(tflite_models / "tflite"))
    assert platforms().recognise(listing) == "tensorflow"
    assert platforms()["tensorflow"].missing(listing) is None
    plain = platforms(prefer_tflite_model=False)
    assert plain.recognise(listing) is None
    assert plain["tensorflow"].missing(listing) == "saved_model.pb is not there"


def test_one_that_is_half_there_is_waited_for_whatever_else_is(models, tflite_models, tmp_path):
    path = both(models, tflite_models, tmp_path)
    whole = (path / FILE).read_bytes()
    (path / FILE).write_bytes(whole[: len(whole) // 2])
    reason = platforms()["tensorflow"].missing(DiskListing(str(path)))
    assert reason == f"{FILE}: it ends before its model does ({len(whole) // 2} bytes)"
    assert (
        platforms(prefer_tflite_model=False)["tensorflow"].missing(DiskListing(str(path))) is None
    )


@pytest.mark.parametrize("export", ["tflite", "tflite_without_signatures"])
def test_whatever_is_cut_off_is_noticed(tflite_models, export):
    whole = (tflite_models / export / FILE).read_bytes()
    assert find_damage(whole) is None
    assert [n for n in range(len(whole)) if find_damage(whole[:n]) is None] == []


def test_bytes_that_lie_behind_the_flatbuffer_count(models):
    """As in a model of more than 2 GiB: its weights' place and number stand in the buffer."""
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.StartObject(3)
    builder.PrependUint64Slot(1, 200, 0)
    builder.PrependUint64Slot(2, 50, 0)
    buffer = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(buffer)
    buffers = builder.EndVector()
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(4, buffers, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    content = bytes(builder.Output())
    assert len(content) < 200
    assert find_damage(content.ljust(250)) is None
    assert "ends before" in find_damage(content.ljust(249))


@pytest.mark.parametrize(
    "content", [b"", b"\x1c\0\0\0TFL", b"\x1c\0\0\0TFL3", b"\xff" * 4 + b"TFL3"]
)
def test_what_is_no_model_is_noticed(content):
    assert find_damage(content) is not None


# Signatures -------------------------------------------------------------------------------------


def test_its_signatures_are_those_of_the_file(load):
    signatures = load().signatures
    assert signatures.keys() == {"serving_default", "gather", "product"}
    gather = signatures["gather"]
    assert gather.inputs == {
        "places": TensorSpec(DataType.INT32, (None,), "gather_places:0"),
        "words": TensorSpec(DataType.STRING, (None,), "gather_words:0"),
    }
    assert gather.outputs["found"].data_type is DataType.STRING
    assert gather.method_name == "tensorflow/serving/predict"
    assert signatures["product"].inputs["b"].shape == (None, 2)


def test_a_model_without_them_has_one_of_its_tensors_names(load):
    servable = load("tflite_without_signatures")
    (signature,) = servable.signatures.values()
    assert signature.name == "serving_default"
    assert signature.inputs == {"x": TensorSpec(DataType.FLOAT, (None,), "x")}
    assert list(signature.outputs) == ["Identity"]
    assert signature.method_name == "tensorflow/serving/predict"


# Calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("export", "output"), [("tflite", "y"), ("tflite_without_signatures", "Identity")]
)
def test_inputs_of_every_size_in_any_order(load, export, output):
    servable = load(export)
    for size in (1, 3, 3, 0, 1000, 1):
        x = np.arange(size, dtype=np.float32)
        np.testing.assert_array_equal(call(servable, {"x": x})[output], x / 2 + 2)


def test_inputs_that_are_views_are_read_right(load):
    x = np.arange(10, dtype=np.float32)[::2]
    x.flags.writeable = False
    np.testing.assert_array_equal(call(load(), {"x": x})["y"], x / 2 + 2)


def test_strings(load):
    inputs = {"words": text("a", "", "\xe4" * 500), "places": np.array([2, 0, 1], np.int32)}
    found = call(load(), inputs, "gather")["found"]
    assert found.tolist() == ["\xe4".encode() * 500, b"a", b""]


def test_outputs_are_not_the_interpreters_memory(load):
    servable = load()
    first = call(servable, {"x": floats(2)})["y"]
    call(servable, {"x": floats(8)})
    assert first == [3]


def failure(servable, inputs, signature):
    with pytest.raises(ServingError) as caught:
        call(servable, inputs, signature)
    return caught.value


@pytest.mark.parametrize("export", ["tflite", "tflite_without_signatures"])
def test_after_a_failure_the_next_call_is_answered(load, export):
    servable = load(export)
    for _ in range(3):
        assert failure(servable, {"x": text("a")}, "serving_default").code is Code.INVALID_ARGUMENT
        (found,) = call(servable, {"x": floats(2)}).values()
        assert found == [3]


def test_a_failure_tells_nothing_of_an_earlier_ones(load):
    servable = load()
    outside = {"words": text("a"), "places": np.array([7], np.int32)}
    first = failure(servable, outside, "gather")
    assert first.code is Code.INTERNAL
    assert "index out of bounds" in first.message
    misfit = {"a": np.ones((2, 3), np.float32), "b": np.ones((4, 2), np.float32)}
    second = failure(servable, misfit, "product")
    assert second.code is Code.INVALID_ARGUMENT
    assert "index out of bounds" not in second.message
    assert failure(servable, outside, "gather").message == first.message
    found = call(servable, misfit | {"b": np.ones((3, 2), np.float32)}, "product")["c"]
    np.testing.assert_array_equal(found, np.full((2, 2), 3.0))


def test_an_interpreter_that_has_complained_a_lot_is_made_anew(load):
    servable = load()
    outside = {"words": text("a"), "places": np.array([7], np.int32)}
    messages = {failure(servable, outside, "gather").message for _ in range(1000)}
    assert len(messages) == 1
    assert call(servable, {"x": floats(2)})["y"] == [3]


# The pool ---------------------------------------------------------------------------------------


def test_there_are_as_many_interpreters_as_asked_and_no_call_shares_one(tflite_models):
    content = (tflite_models / "tflite" / FILE).read_bytes()
    pool = Pool(content, 3)
    together, held = threading.Barrier(3), []

    def hold():
        with pool.borrow(None) as interpreter:
            held.append(interpreter)
            together.wait(10)

    with ThreadPoolExecutor(3) as threads:
        for future in [threads.submit(hold) for _ in range(3)]:
            future.result(10)
    assert len(set(map(id, held))) == 3
    pool.close()


def test_a_call_waits_for_an_interpreter_until_its_deadline(tflite_models):
    pool = Pool((tflite_models / "tflite" / FILE).read_bytes(), 1)
    late = pool.borrow(time.monotonic() + 0.01)
    with pool.borrow(None), pytest.raises(DeadlineExceeded, match="none of 1 TF Lite"):
        late.__enter__()
    with pool.borrow(time.monotonic() - 1):  # one is free: there is no wait
        pass
    pool.close()


def test_a_call_that_waited_gets_the_interpreter_that_comes_back(tflite_models):
    pool = Pool((tflite_models / "tflite" / FILE).read_bytes(), 1)
    asking = threading.Event()

    def ask():
        asking.set()
        with pool.borrow(time.monotonic() + 10) as interpreter:
            return interpreter.run("serving_default", {"x": floats(2)})["y"].tolist()

    with ThreadPoolExecutor(1) as threads:
        with pool.borrow(None):
            answer = threads.submit(ask)
            assert asking.wait(10)
        assert answer.result(10) == [3]
    pool.close()


def test_a_call_that_nobody_waits_for_is_not_run(load):
    with pytest.raises(DeadlineExceeded):
        call(load(), {"x": floats(1)}, outcome=Outcome(lives=False))


def test_a_closed_pool_has_none(tflite_models):
    pool = Pool((tflite_models / "tflite" / FILE).read_bytes(), 2)
    pool.close()
    with pytest.raises((Unavailable, DeadlineExceeded)), pool.borrow(time.monotonic()):
        pass


def test_num_tflite_pools_times_interpreters_of_each(load):
    servable = load(num_tflite_pools=2, num_tflite_interpreters_per_pool=3)
    with pytest.raises(DeadlineExceeded, match="none of 6 "):
        exhaust(servable, 7)


def exhaust(servable, number):
    if number:
        with servable._pool.borrow(time.monotonic() + 0.01):
            exhaust(servable, number - 1)


# Loading ----------------------------------------------------------------------------------------


def test_what_the_interpreter_refuses_is_a_failed_load(load, tflite_models, tmp_path):
    whole = (tflite_models / "tflite" / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataLoss, match="cannot be read"):
        load(tmp_path)


def picking(path, place, width):
    """A model that answers one element of each row; a place that no row has fails in the run."""
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([1, width], tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": tf.gather(x, [place], axis=1)}, [spec])
    saved = path / "saved-model"
    tf.saved_model.save(module, str(saved), signatures={"serving_default": module.f})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    (path / FILE).write_bytes(converter.convert())


def test_a_model_that_fails_whatever_it_is_given_is_a_failed_load(load, tmp_path):
    (tmp_path / "good").mkdir()
    picking(tmp_path / "good", 2, 3)
    assert call(load(tmp_path / "good"), {"x": floats([1, 2, 5])})["y"].tolist() == [[5.0]]
    (tmp_path / "bad").mkdir()
    whole = (tmp_path / "good" / FILE).read_bytes()
    place = (2).to_bytes(4, "little")  # in the buffer of the constant: after its length
    assert whole.count(b"\x04\0\0\0" + place) == 1
    damaged = whole.replace(b"\x04\0\0\0" + place, b"\x04\0\0\0" + (9).to_bytes(4, "little"))
    (tmp_path / "bad" / FILE).write_bytes(damaged)
    with pytest.raises(ServingError, match=r"fails whatever it is given: .*gather") as refused:
        load(tmp_path / "bad")
    assert refused.value.code is Code.INTERNAL


def test_a_model_that_refuses_some_values_is_loaded(load, tmp_path, monkeypatch):
    """Gathers words at the places that it is told: those that are made up may not be there."""
    real = interpreters.Interpreter.run
    tries = []

    def run(self, name, inputs):
        tries.append(name)
        if len(tries) < 3:
            raise Internal("gather index out of bounds")
        return real(self, name, inputs)

    monkeypatch.setattr(interpreters.Interpreter, "run", run)
    load("tflite")
    assert len(tries) >= 3


def test_a_model_that_was_loaded_is_not_harmed_by_its_file(load, tflite_models, tmp_path):
    path = tmp_path / "m"
    shutil.copytree(tflite_models / "tflite", path)
    servable = load(path)
    (path / FILE).write_bytes(b"")
    assert call(servable, {"x": floats(2)})["y"] == [3]


def test_its_own_batching_is_read(load, tflite_models, tmp_path):
    path = tmp_path / "m"
    shutil.copytree(tflite_models / "tflite", path)
    shared = BatchingParameters(max_batch_size=64)
    load(path, batching=shared)
    (path / "batching_params.pbtxt").write_text("max_batch_size {")
    with pytest.raises(InvalidArgument):
        load(path, batching=shared, enable_per_model_batching=True)
