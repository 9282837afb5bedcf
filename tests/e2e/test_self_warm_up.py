"""A new version answers the requests that the server has kept before anybody calls it."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest

from tests.e2e.process import Process
from tests.exports import copy_version

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

SECRET = 123456.0


def kept(server, model):
    return server.metric(f'servingd_kept_requests{{model="{model}"}}')


def answered(server, model, version, outcome="answered"):
    labels = f'model="{model}",outcome="{outcome}",version="{version}"'
    return server.metric(f"servingd_self_warm_up_requests_total{{{labels}}}")


def queue(server, model, version):
    """What the server says of the queue of a version's default signature."""
    versions = json.loads(server.get(f"/servingd/v1/models/{model}")[1])["versions"]
    (found,) = [v["queues"] for v in versions if v["version"] == version]
    return next(q for q in found if q["signature"] == "serving_default")


FLAGS = ("--optimize_models=off", "--merge_waiting_calls=false", "--inline_below_us=1000000")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(repository):
    """One for all, each test with a model of its own."""
    process = Process(repository.with_name("log"), f"--model_repository={repository}", *FLAGS)
    try:
        yield process.wait_until_ready()
    finally:
        process.close()


@pytest.fixture
def serve(server, repository, models):
    """Have an export served, as a model of this name."""

    def begin(name, export="half_plus_two"):
        shutil.copytree(models / export, repository / name / "1")
        server.wait_for("the model", lambda: server.states(name) == {1: "AVAILABLE"})
        return server

    return begin


def switch(server, repository, source, model):
    copy_version(source, repository / model / "2")
    server.wait_for("the switch", lambda: server.states(model).get(2) == "AVAILABLE")


def test_a_new_version_has_answered_what_the_old_one_did(serve, repository, models):
    server = serve("new")
    sizes = itertools.cycle((1, 3, 5))

    def three_forms():
        server.predict("new", {"x": np.full(next(sizes), SECRET, np.float32)})
        return kept(server, "new") == 3

    server.wait_for("samples of three forms", three_forms)
    switch(server, repository, models / "half_plus_three", "new")
    lines = server.log.read_text()
    told = "{name: new version: 2} is warmed with 3 kept requests (0 failed, 0 skipped), batch "
    available = "Successfully loaded servable version {name: new version: 2}"
    assert 0 < lines.index(told) < lines.index(available)
    assert answered(server, "new", 2) == 3
    assert str(int(SECRET)) not in lines
    # Its first caller's request is none of its first runs, and what it costs is known: it is run
    # in place, where a call of unknown cost would have waited for a thread.
    assert server.predict("new", {"x": np.float32([2, 2, 2])})["y"].tolist() == [4.0] * 3
    assert queue(server, "new", 2)["batch"]["left"] == {}


def test_a_version_of_another_signature_skips_them(serve, repository, models):
    server = serve("other")
    server.predict("other", {"x": np.float32([1])})
    switch(server, repository, models / "keras_saved_plainly", "other")
    assert answered(server, "other", 2, "skipped") == 1
    assert answered(server, "other", 2) is None


def test_a_model_that_keeps_state_is_called_by_its_callers_alone(serve, repository, models):
    server = serve("counter", "counter")
    for n in range(5):
        assert server.predict("counter", {"x": np.float32(1)})["total"] == n + 1
    switch(server, repository, models / "counter", "counter")
    assert server.predict("counter", {"x": np.float32(1)})["total"] == 1
    assert kept(server, "counter") is None


def test_of_a_model_that_is_removed_nothing_is_kept(serve, repository):
    server = serve("gone")
    server.predict("gone", {"x": np.float32([1])})
    assert kept(server, "gone") == 1
    assert server.metric('servingd_kept_request_bytes{model="gone"}') > 0
    shutil.rmtree(repository / "gone")
    server.wait_for("forgetting", lambda: kept(server, "gone") is None)


def test_it_can_be_switched_off(start, models, tmp_path):
    shutil.copytree(models / "half_plus_two", tmp_path / "models" / "m" / "1")
    flags = (f"--model_repository={tmp_path / 'models'}", "--self_warm_up=false", *FLAGS)
    server = start(*flags).wait_until_ready()
    server.predict("m", {"x": np.float32([1])})
    assert kept(server, "m") is None
    switch(server, tmp_path / "models", models / "half_plus_three", "m")
    assert "is warmed with" not in server.log.read_text()
