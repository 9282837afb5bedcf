"""A new version answers the requests that the server has kept before anybody calls it."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest

from tests.exports import copy_version

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

SECRET = 123456.0


def kept(server, model="m"):
    return server.metric(f'servingd_kept_requests{{model="{model}"}}')


def answered(server, version, outcome="answered", model="m"):
    labels = f'model="{model}",outcome="{outcome}",version="{version}"'
    return server.metric(f"servingd_self_warm_up_requests_total{{{labels}}}")


def queue(server, version):
    """What the server says of the queue of a version's default signature."""
    versions = json.loads(server.get("/servingd/v1/models/m")[1])["versions"]
    (found,) = [v["queues"] for v in versions if v["version"] == version]
    return next(q for q in found if q["signature"] == "serving_default")


@pytest.fixture
def repository(models, tmp_path):
    for name, export in (("m", "half_plus_two"), ("counter", "counter")):
        shutil.copytree(models / export, tmp_path / "models" / name / "1")
    return tmp_path / "models"


@pytest.fixture
def serve(start, repository):
    def begin(*flags):
        plain = ("--optimize_models=off", "--merge_waiting_calls=false")
        flags = (*plain, "--inline_below_us=1000000", *flags)
        return start(f"--model_repository={repository}", *flags).wait_until_ready()

    return begin


def switch(server, repository, source, model="m", version=2):
    copy_version(source, repository / model / str(version))
    server.wait_for("the switch", lambda: server.states(model).get(version) == "AVAILABLE")


def test_a_new_version_has_answered_what_the_old_one_did(serve, repository, models):
    server = serve()

    sizes = itertools.cycle((1, 3, 5))

    def three_forms():
        server.predict("m", {"x": np.full(next(sizes), SECRET, np.float32)})
        return kept(server) == 3

    server.wait_for("samples of three forms", three_forms)
    switch(server, repository, models / "half_plus_three")
    lines = server.log.read_text()
    told = "{name: m version: 2} is warmed with 3 kept requests (0 failed, 0 skipped), batch sizes "
    available = "Successfully loaded servable version {name: m version: 2}"
    assert 0 < lines.index(told) < lines.index(available)
    assert answered(server, 2) == 3
    assert str(int(SECRET)) not in lines
    # Its first caller's request is none of its first runs, and what it costs is known: it is run
    # in place, where a call of unknown cost would have waited for a thread.
    assert server.predict("m", {"x": np.float32([2, 2, 2])})["y"].tolist() == [4.0] * 3
    assert queue(server, 2)["batch"]["left"] == {}


def test_a_version_of_another_signature_skips_them(serve, repository, models):
    server = serve()
    server.predict("m", {"x": np.float32([1])})
    switch(server, repository, models / "keras_saved_plainly")
    assert answered(server, 2, "skipped") == 1
    assert answered(server, 2) is None


def test_a_model_that_keeps_state_is_called_by_its_callers_alone(serve, repository, models):
    server = serve()
    for n in range(5):
        assert server.predict("counter", {"x": np.float32(1)})["total"] == n + 1
    switch(server, repository, models / "counter", "counter")
    assert server.predict("counter", {"x": np.float32(1)})["total"] == 1
    assert kept(server, "counter") is None


def test_of_a_model_that_is_removed_nothing_is_kept(serve, repository):
    server = serve()
    server.predict("m", {"x": np.float32([1])})
    assert kept(server) == 1
    assert server.metric('servingd_kept_request_bytes{model="m"}') > 0
    shutil.rmtree(repository / "m")
    server.wait_for("forgetting", lambda: kept(server) is None)


def test_it_can_be_switched_off(serve, repository, models):
    server = serve("--self_warm_up=false")
    server.predict("m", {"x": np.float32([1])})
    assert kept(server) is None
    switch(server, repository, models / "half_plus_three")
    assert "is warmed with" not in server.log.read_text()
