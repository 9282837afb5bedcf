"""Where SavedModels run: read back from the metadata of their runs, on virtual CPUs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ANYWHERE, CPU_0, Device, Placement, VersionData
from servingd.errors import Internal, NotFound, ResourceExhausted, ServingError
from servingd.servables.saved_model.files.meta_graph import read_meta_graph
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.servables.saved_model.replicas import ReplicatedServable
from servingd.servables.saved_model.session import c_api, opening
from servingd.servables.saved_model.session.device_assignment import (
    graph_without_devices,
    has_device_names,
)
from servingd.servables.saved_model.session.devices import LocalDevices
from servingd.servables.saved_model.session.opening import open_plain
from servingd.servables.saved_model.session.options import ONE_THREAD, SessionOptions
from servingd.servables.saved_model.trials.parity import agree
from tests.placed import ID, TAGS, Version, answers, fail, plain

pytestmark = pytest.mark.tf

TIMEOUT = 60
CPUS = tuple(Device("CPU", i) for i in range(4))
THIRD = SessionOptions(1, device=CPUS[2], cpus=4)


@pytest.fixture
def path(request: pytest.FixtureRequest, models: Path, more: Path) -> Path:
    name = request.param
    return (more if (more / name).exists() else models) / name


every = pytest.mark.parametrize(
    "path",
    [
        "half_plus_two",
        "keras_exported",
        "tf1_with_table",
        "examples",
        "slow",
        "loop_and_branch",
        "stubborn",
        "keras_saved_plainly",
    ],
    indirect=True,
)


# One session ------------------------------------------------------------------------------------


@every
def test_everything_runs_on_the_planned_device(path):
    session, host = plain(path, THIRD), plain(path, ONE_THREAD)
    try:
        assert set(session.observed.devices) == {"CPU:2"}
        assert not session.observed.moved
        assert agree(answers(session, path), answers(host, path))
        assert host.observed is None, "there is no other device, so nobody looks"
    finally:
        session.close()
        host.close()


@pytest.mark.parametrize("path", ["half_plus_two", "tf1_with_table", "stubborn"], indirect=True)
def test_the_public_way_obeys_as_well(path, monkeypatch):
    monkeypatch.setattr(c_api, "is_sound", lambda: False)
    session = plain(path, THIRD)
    assert set(session.observed.devices) == {"CPU:2"}
    session.close()


@pytest.mark.parametrize(
    ("path", "names"), [("half_plus_two", False), ("stubborn", True)], indirect=["path"]
)
def test_the_host_keeps_tensorflows_own_loader_unless_a_graph_names_other_devices(
    path, names, monkeypatch
):
    used = []
    load = c_api.load_saved_model

    def spy(*arguments: Any) -> Any:
        used.append(arguments)
        return load(*arguments)

    monkeypatch.setattr(c_api, "load_saved_model", spy)
    assert has_device_names(read_meta_graph(str(path), TAGS).graph_def) is names
    plain(path, ONE_THREAD).close()
    assert bool(used) is not names


def test_a_graph_that_names_nothing_is_not_copied():
    assert graph_without_devices(b"no device here") == b"no device here"


def test_what_runs_elsewhere_is_seen(more, monkeypatch):
    """As on a GPU, where TensorFlow moves what has no kernel for it: here, nodes that insist."""
    graph = read_meta_graph(str(more / "loop_and_branch"), TAGS).graph_def
    monkeypatch.setattr(opening, "graph_without_devices", lambda graph_def: insistent(graph))
    session = plain(more / "loop_and_branch", THIRD)
    assert session.observed.devices["CPU:1"] > 0
    assert session.observed.moved.keys() == {"CPU:1"}
    session.close()


def insistent(graph_def: bytes) -> bytes:
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef.FromString(graph_without_devices(graph_def))
    for function in graph.library.function:
        for node in function.node_def:
            if node.op in ("MatMul", "AddV2"):
                node.device = "/device:CPU:1"
    return bytes(graph.SerializeToString())


def test_signatures_that_keep_state_are_not_run_and_said_to_be_unseen(models):
    meta_graph = read_meta_graph(str(models / "counter"), TAGS)
    session = open_plain(
        str(models / "counter"), TAGS, THIRD, meta_graph, {"serving_default": False}
    )
    assert (session.observed.devices, session.observed.unseen) == ({}, ("serving_default",))
    session.close()


# A version with replicas ------------------------------------------------------------------------


@pytest.fixture
def version() -> Iterator[Callable[..., Version]]:
    made: list[Version] = []

    def make(*arguments: Any, **more: Any) -> Version:
        made.append(Version(*arguments, **more))
        return made[-1]

    yield make
    for each in made:
        each.platform.stop()
        each.loader.unload(each.body)
        assert each.reports[-1] == []


def on(*indices: int, **more: bool) -> Placement:
    return Placement(tuple(CPUS[i] for i in indices), **more)


def break_(replica: Any, error: ServingError) -> Callable[[], None]:
    """Let a replica's runs fail; returns what mends it."""
    calls = replica.session.calls
    whole = dict(calls)

    class Broken:
        def run(self, inputs: Any, deadline: float | None = None) -> Any:
            raise error

    calls.update(dict.fromkeys(calls, Broken()))
    return lambda: calls.update(whole)


def test_each_replica_has_its_device_and_each_gets_calls(models, version):
    served = version(models / "half_plus_two", on(1, 3, 3))
    assert served.devices() == ["CPU:1", "CPU:3", "CPU:3"]
    assert all(set(r.observed.devices) == {r.device.name} for r in served.reports[-1])
    ran = []
    for replica in served.body.replicas:
        replica.run = lambda *a, r=replica: (ran.append(r), type(r).run(r, *a))
    assert {served.ask() for _ in range(9)} == {3.0}
    assert [ran.count(replica) for replica in served.body.replicas] == [3, 3, 3]
    assert served.body.runs_at_once == 3


def test_one_replica_is_served_without_anything_between(models, version):
    served = version(models / "half_plus_two", on(2))
    assert not isinstance(served.body, ReplicatedServable)
    assert served.body.runs_at_once == 1, "a device that was planned for is one worker"
    assert served.devices() == ["CPU:2"]
    assert served.ask() == 3.0


def test_on_the_host_alone_nothing_is_limited(models):
    loader: Any = SavedModelPlatform(SavedModelOptions(optimize_models="off")).loader(
        ID, VersionData(str(models / "half_plus_two"), "tensorflow")
    )
    for placement in (ANYWHERE, Placement((CPU_0,))):
        body = loader.load(placement)
        assert body.runs_at_once == 0
        loader.unload(body)


def test_every_replica_gets_the_optimised_graph_on_its_own_device(models, version, tmp_path):
    served = version(models / "keras_exported", on(0, 2), "wait", str(tmp_path))
    assert served.graph_states == ["plain", "optimising", "optimised"]
    assert [(r.device.name, r.graph) for r in served.reports[-1]] == [
        ("CPU:0", "optimised"),
        ("CPU:2", "optimised"),
    ]
    assert all(set(r.observed.devices) == {r.device.name} for r in served.reports[-1])
    worth = {replica.rows_worth_merging("serving_default") for replica in served.body.replicas}
    assert len(worth) == 1


def test_every_new_session_answers_the_recorded_requests_first(models, version, tmp_path):
    served = version(models / "half_plus_two", on(0, 2), "background", str(tmp_path))
    served.loader._job.finished.wait(TIMEOUT)
    assert served.graph_states[-1] == "optimised"
    assert len(served.warmed) == 2


def test_a_replica_on_an_accelerator_would_keep_its_plain_graph(models, version, caplog):
    caplog.set_level(logging.INFO)
    served = version(models / "half_plus_two", on(1), "off")
    (replica,) = served.body.replicas
    replica.session.options = THIRD._replace(device=Device("GPU", 0))
    job = job_of(served)
    served.platform._optimiser._enabled = True
    served.platform._optimiser.submit(job)
    assert job.finished.wait(TIMEOUT)
    assert served.graph_states[-1] == "declined"
    assert "not optimised: placed on GPU:0" in caplog.text


def job_of(served: Version) -> Any:
    from servingd.servables.saved_model.optimise.job import OptimisationJob

    path = served.loader._path
    meta_graph = read_meta_graph(path, TAGS)
    safe_to_run = dict.fromkeys(meta_graph.signatures, True)
    return OptimisationJob(ID, path, TAGS, meta_graph, safe_to_run, 1, served.body.replicas)


# Devices that fail ------------------------------------------------------------------------------

OUT_OF_MEMORY = ResourceExhausted("OOM when allocating tensor with shape[1,2]")
LOST = Internal("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, LOST])
def test_a_replica_that_goes_on_failing_is_taken_out_and_moved(models, version, error):
    served = version(models / "half_plus_two", on(1, 3))
    break_(served.body.replicas[1], error)
    seen = []
    while not served.failed:
        try:
            assert served.ask() == 3.0
        except ServingError as failure:
            seen.append((failure.code, failure.message))
    assert seen == 3 * [(error.code, error.message)]
    assert served.failed == [CPUS[3]]
    assert (served.devices(), served.devices("out")) == (["CPU:1"], ["CPU:3"])
    assert {served.ask() for _ in range(5)} == {3.0}, "nobody comes to it any more"
    assert served.loader.relocate(CPUS[3], CPUS[2]) == (CPUS[1], CPUS[2])
    assert served.devices() == ["CPU:1", "CPU:2"]
    assert {served.ask() for _ in range(5)} == {3.0}
    assert len(served.warmed) == 1


def test_one_that_fits_nowhere_else_is_freed(models, version):
    served = version(models / "half_plus_two", on(1, 3))
    broken = served.body.replicas[0]
    break_(broken, LOST)
    fail(served, 3)
    assert served.loader.relocate(CPUS[1], None) == (CPUS[3],)
    assert not broken.session.enter(), "it is closed"
    assert served.ask() == 3.0


def test_the_last_replica_serves_on_and_may_recover(models, version):
    served = version(models / "half_plus_two", on(1))
    mend = break_(served.body, OUT_OF_MEMORY)
    fail(served, 4)
    assert served.failed == [CPUS[1]], "told once"
    assert served.devices("failing") == ["CPU:1"]
    assert served.loader.relocate(CPUS[1], None) == (CPUS[1],)
    mend()
    assert served.ask() == 3.0
    assert served.devices() == ["CPU:1"]


def test_the_last_replica_is_moved_without_a_gap(models, version):
    served = version(models / "half_plus_two", on(1))
    break_(served.body, LOST)
    fail(served, 3)
    assert served.loader.relocate(CPUS[1], CPUS[0]) == (CPUS[0],)
    assert served.ask() == 3.0
    assert served.devices() == ["CPU:0"]


def test_a_success_in_between_begins_the_count_anew(models, version):
    served = version(models / "half_plus_two", on(1))
    for _ in range(3):
        mend = break_(served.body, OUT_OF_MEMORY)
        fail(served, 2)
        mend()
        assert served.ask() == 3.0
    assert served.failed == []


def test_what_is_the_callers_fault_is_nobody_elses(models, version):
    served = version(models / "half_plus_two", on(1, 3))
    for replica in served.body.replicas:
        break_(replica, NotFound("no such thing"))
    fail(served, 9)
    assert served.failed == []


def test_a_move_to_where_it_cannot_be_opened_leaves_the_rest_as_it_is(models, version, monkeypatch):
    served = version(models / "half_plus_two", on(1, 3))
    break_(served.body.replicas[0], LOST)
    fail(served, 3)

    def refuse(*arguments: Any) -> Any:
        raise ResourceExhausted("no memory there")

    monkeypatch.setattr(served.loader._sessions, "open_on", refuse)
    assert served.loader.relocate(CPUS[1], CPUS[2]) == (CPUS[3],)
    assert served.devices("out") == ["CPU:1"]
    assert not served.body.replicas[0].session.enter(), "it is closed"
    assert served.ask() == 3.0


# The machine ------------------------------------------------------------------------------------


def test_the_devices_are_those_that_were_asked_for():
    assert LocalDevices().known == ()
    assert [d for d in LocalDevices().usable() if d.is_host] == [CPU_0]
    four = LocalDevices(SavedModelOptions(virtual_cpu_devices=4))
    assert [d for d in four.usable() if d.is_host] == list(CPUS)
    assert [each.device for each in four.known if each.device.is_host] == list(CPUS)


def test_no_session_of_the_host_takes_a_gpu():
    assert ONE_THREAD.config().device_count["GPU"] == 0
    assert "GPU" not in SessionOptions(1).config().device_count
    assert "GPU" not in SessionOptions(1, device=Device("GPU", 1)).config().device_count
