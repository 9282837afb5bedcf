"""Placement on real GPUs: the checks of virtual CPUs, and what only a GPU can show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servingd.core.types import CPU_0, Device, Placement
from servingd.servables.saved_model.session.devices import LocalDevices
from servingd.servables.saved_model.session.options import ONE_THREAD, SessionOptions
from servingd.servables.saved_model.trials.parity import agree
from tests.e2e.process import Process
from tests.placed import Version, answers, plain

pytestmark = pytest.mark.tf

GPU_0 = Device("GPU", 0)
ON_GPU = SessionOptions(1, device=GPU_0)


@pytest.fixture
def version(gpus: Any) -> Iterator[Callable[..., Version]]:
    made: list[Version] = []

    def make(*arguments: Any, **said: Any) -> Version:
        made.append(Version(*arguments, cpus=0, **said))
        return made[-1]

    yield make
    for each in made:
        each.platform.stop()
        each.loader.unload(each.body)


@pytest.mark.parametrize("name", ["half_plus_two", "keras_exported", "loop_and_branch", "stubborn"])
def test_what_has_kernels_runs_on_the_gpu_and_answers_as_on_the_host(gpus, models, more, name):
    path = (more if (more / name).exists() else models) / name
    session, host = plain(path, ON_GPU), plain(path, ONE_THREAD)
    try:
        print(name, session.observed)
        assert session.observed.devices["GPU:0"] > 0
        assert agree(answers(session, path), answers(host, path))
    finally:
        session.close()
        host.close()


def test_tables_and_strings_are_moved_to_the_host_and_that_is_reported(version, models, caplog):
    served = version(models / "tf1_with_table", Placement((GPU_0,)))
    (report,) = served.reports[-1]
    print(report)
    assert any("Table" in kind for kind in report.observed.moved["CPU:0"])
    assert "operations run elsewhere, on CPU:0" in caplog.text


def test_a_replica_on_a_gpu_keeps_its_plain_graph(version, models, tmp_path):
    served = version(models / "half_plus_two", Placement((GPU_0,)), "wait", str(tmp_path))
    assert served.graph_states[-1] == "declined"
    assert served.ask() == 3.0


def test_replicas_on_the_gpu_and_on_the_host_answer_alike(version, models):
    served = version(models / "half_plus_two", Placement((GPU_0, CPU_0)))
    assert {served.ask() for _ in range(10)} == {3.0}


def test_memory_in_use_is_seen(gpus, version, tmp_path):
    def weights(path: Path) -> None:
        import tensorflow as tf

        module = tf.Module()
        module.w = tf.Variable(np.ones(16 << 20, np.float32))
        spec = tf.TensorSpec([None], tf.float32, name="x")
        module.f = tf.function(lambda x: {"y": 0.5 * x + 2.0 * module.w[0]}, input_signature=[spec])
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})

    weights(tmp_path / "m")
    devices = LocalDevices()
    devices.discover()
    before = devices.in_use()[GPU_0]
    version(tmp_path / "m", Placement((GPU_0,)))
    grown = devices.in_use()[GPU_0] - before
    print(f"64 MiB of weights take {grown >> 20} MiB")
    assert 60 << 20 < grown < 160 << 20


def test_no_session_of_the_host_takes_memory_of_the_gpu(gpus, models):
    code = """
import sys
from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.options import ONE_THREAD
from servingd.servables.tensorflow_runtime.runtime import tensorflow
assert c_api.is_sound()
c_api.load_saved_model(sys.argv[1], ("serve",), ONE_THREAD)
import subprocess, os
seen = subprocess.run(
    ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"],
    capture_output=True, text=True,
).stdout.split()
print("mine" if str(os.getpid()) in seen else "none")
"""
    done = python(code, str(models / "half_plus_two"))
    assert done.strip().endswith("none")


@pytest.mark.parametrize(("visible", "count"), [("-1", 0), ("0", 1)])
def test_cuda_visible_devices_is_honoured(gpus, visible, count):
    found = json.loads(
        python_m("servingd", "devices", "--here", "--json", CUDA_VISIBLE_DEVICES=visible)
    )
    assert sum(d["name"].startswith("GPU") for d in found["devices"]) == count


def test_the_share_of_memory_that_is_said_holds_for_the_process(gpus, models, tmp_path):
    server = Process(
        tmp_path / "log",
        "--model_name=m",
        f"--model_base_path={repository(models, tmp_path)}",
        "--per_process_gpu_memory_fraction=0.1",
    )
    try:
        server.wait_until_ready()
        page = json.loads(server.get("/servingd/v1/devices")[1])
        limit = next(d for d in page["devices"] if d["name"] == "GPU:0")["budget_bytes"]
        print(f"a tenth of the memory is {limit >> 20} MiB")
        assert 0.05 * gpus[0].usable_bytes < limit < 0.2 * gpus[0].usable_bytes
        (replica,) = page["versions"][0]["replicas"]
        assert replica["device"] == "GPU:0", "auto means the accelerator"
        assert server.predict("m", {"x": np.float32([2])})["y"].tolist() == [3.0]
    finally:
        server.close()


def test_a_call_that_is_too_large_fails_alone(gpus, tmp_path):
    def greedy(path: Path) -> None:
        import tensorflow as tf

        module = tf.Module()
        spec = tf.TensorSpec([], tf.int32, name="n")
        module.f = tf.function(
            lambda n: {"y": tf.reduce_sum(tf.random.uniform([n, 1 << 28]))},
            input_signature=[spec],
        )
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})

    greedy(tmp_path / "m" / "1")
    server = Process(tmp_path / "log", "--model_name=m", f"--model_base_path={tmp_path / 'm'}")
    try:
        server.wait_until_ready()
        import grpc

        with pytest.raises(grpc.RpcError) as caught:
            server.predict("m", {"n": np.int32(1 << 10)}, timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.predict("m", {"n": np.int32(0)})["y"] == 0.0
    finally:
        server.close()


def test_one_replica_on_each_gpu(gpus, version, models):
    if len(gpus) < 2:
        pytest.skip("there is one GPU")
    served = version(models / "half_plus_two", Placement(tuple(g.device for g in gpus)))
    assert served.devices() == [g.device.name for g in gpus]
    assert {served.ask() for _ in range(8)} == {3.0}


def repository(models: Path, folder: Path) -> Path:
    target = folder / "m"
    target.mkdir()
    (target / "1").symlink_to(models / "half_plus_two")
    return target


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def python_m(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout
