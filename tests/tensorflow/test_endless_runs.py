"""Runs that would go on for ever: of callers who left, of made-up inputs, of versions that go."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ServableId, VersionData
from servingd.errors import Cancelled, DeadlineExceeded, ServingError, Unavailable
from servingd.servables.saved_model.listener import NO_LISTENER
from servingd.servables.saved_model.loader import SavedModelLoader
from servingd.servables.saved_model.optimise.optimiser import GraphOptimiser
from servingd.servables.saved_model.session.run_watch import RunWatch
from servingd.wire.records.prediction_logs import WARM_UP_FILE
from tests import exports
from tests.threads.fakes import TIMEOUT, RecordingCompletion

pytestmark = pytest.mark.tf

ID = ServableId("endless", 1)
FOR_EVER = np.float32([3.0])
QUICK = np.float32([0.5])


@pytest.fixture
def load():
    """Load a SavedModel, its runs watched: `load(path)`; the loader and the servable."""
    watch = RunWatch(grace_s=0.0, interval_s=0.01)
    optimisers = []

    def make(path, max_synthetic_s=0.3, cache_dir="", max_synthetic_growth_bytes=0):
        optimiser = GraphOptimiser(cache_dir, False, NO_LISTENER)
        optimisers.append(optimiser)
        data = VersionData(str(path), "tensorflow")
        loader = SavedModelLoader(
            ID, data, SavedModelOptions(optimize_models="off"), optimiser, NO_LISTENER, watch
        )
        sessions = loader._sessions
        sessions.limits = sessions.limits._replace(
            max_synthetic_s=max_synthetic_s, max_synthetic_growth_bytes=max_synthetic_growth_bytes
        )
        return loader

    yield make
    watch.stop()
    for optimiser in optimisers:
        optimiser.stop()


def call(body, x, caller):
    """A call on a thread of its own; its failure, if any, is in `caller.error`."""
    signature = body.signatures["serving_default"]

    def run():
        try:
            body.run(signature, {"x": x}, caller)
        except ServingError as error:
            caller.fail(error)

    thread = threading.Thread(target=run, name="caller", daemon=True)
    thread.start()
    return thread


def answered(body, x=QUICK, deadline=None):
    caller = RecordingCompletion(deadline)
    call(body, x, caller).join(TIMEOUT)
    return caller.outcome


def test_a_run_of_a_caller_who_left_is_ended_and_the_others_go_on(models, load):
    loader = load(models / "endless")
    body = loader.load()
    caller, patient = RecordingCompletion(), RecordingCompletion()
    looping = call(body, FOR_EVER, caller)
    call(body, QUICK, patient).join(TIMEOUT)
    caller.lives = False
    looping.join(TIMEOUT)
    assert not looping.is_alive()
    assert isinstance(caller.outcome, Unavailable)
    assert answered(body)["y"] == QUICK
    loader.unload(body)


def test_as_often_as_callers_leave_the_others_go_on(models, load):
    """TensorFlow ends a run when its time is up, but not when its caller leaves before that."""
    loader = load(models / "endless")
    body = loader.load()
    for _ in range(3):
        caller = RecordingCompletion(time.monotonic() + 600)
        looping = call(body, FOR_EVER, caller)
        while not body.session.runs and looping.is_alive():
            time.sleep(0.001)
        caller.lives = False
        looping.join(TIMEOUT)
        assert isinstance(caller.outcome, Unavailable)
        assert answered(body)["y"] == QUICK
    loader.unload(body)


def test_from_then_on_tensorflow_ends_runs_when_their_time_is_up(models, load):
    loader = load(models / "endless")
    body = loader.load()
    caller = RecordingCompletion()
    looping = call(body, FOR_EVER, caller)
    caller.lives = False
    looping.join(TIMEOUT)
    assert body.session.options.timed
    session = body.session
    assert isinstance(answered(body, FOR_EVER, time.monotonic() + 0.2), DeadlineExceeded)
    assert body.session is session
    assert answered(body, deadline=time.monotonic() + TIMEOUT)["y"] == QUICK
    loader.unload(body)


def test_who_still_waits_is_answered_by_the_new_session(models, load):
    loader = load(models / "endless")
    body = loader.load()
    leaving, patient = RecordingCompletion(), RecordingCompletion()
    looping = call(body, FOR_EVER, leaving)
    waiting = call(body, FOR_EVER, patient)  # ended beside the other, and run again: timed
    patient.deadline = time.monotonic() + 2.0
    leaving.lives = False
    looping.join(TIMEOUT)
    waiting.join(TIMEOUT)
    assert isinstance(leaving.outcome, Unavailable)
    assert isinstance(patient.outcome, DeadlineExceeded)
    loader.unload(body)


def test_made_up_inputs_that_loop_cost_the_warm_up_alone(tmp_path, load):
    exports.endless(tmp_path / "1", above=-1.0)
    loader = load(tmp_path / "1")
    body = loader.load()
    assert answered(body, np.float32([-2.0]))["y"] == np.float32([-2.0])
    assert not body.may_be_repeated("serving_default")
    loader.unload(body)


def test_made_up_inputs_that_take_ever_more_memory_are_ended(tmp_path, load, caplog):
    exports.endless(tmp_path / "1", above=-1.0, hoards=4 << 20)
    loader = load(tmp_path / "1", max_synthetic_s=3600.0, max_synthetic_growth_bytes=512 << 20)
    body = loader.load()
    assert "or takes too much memory" in caplog.text
    assert answered(body, np.float32([-2.0]))["y"] == np.float32([-2.0])
    loader.unload(body)


def test_recorded_requests_are_run_instead_of_made_up_ones(tmp_path, load):
    exports.endless(tmp_path / "1", above=-1.0)
    file = tmp_path / "1" / WARM_UP_FILE
    file.parent.mkdir(parents=True)
    file.touch()
    loader = load(tmp_path / "1", max_synthetic_s=3600.0)
    loader.unload(loader.load())


def test_made_up_inputs_that_ended_a_server_are_not_run_again(tmp_path, models, load, caplog):
    program = f"""if True:
        from servingd.servables.saved_model.optimise.attempts import Attempts
        import os, pathlib
        with Attempts(pathlib.Path({str(tmp_path)!r})).during(os.environ["ATTEMPT"], "endless"):
            os.abort()
    """
    loader = load(models / "endless", cache_dir=str(tmp_path))
    environment = {**os.environ, "ATTEMPT": loader._attempt}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    body = loader.load()
    assert "endless version: 1} is not run on made-up inputs: a server ended" in caplog.text
    assert not body.may_be_repeated("serving_default")
    loader.unload(body)


def test_a_load_that_is_not_wanted_any_more_ends(tmp_path, load):
    exports.endless(tmp_path / "1", above=-1.0)
    loader = load(tmp_path / "1", max_synthetic_s=3600.0)
    failures = []

    def run():
        try:
            loader.load()
        except ServingError as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="load", daemon=True)
    thread.start()
    loader.cancel()
    thread.join(TIMEOUT)
    assert [type(error) for error in failures] == [Cancelled]
