"""Devices and memory, from the configuration to what operators see: with the real process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.exports import copy_version

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

SWITCHES = int(os.environ.get("SERVINGD_TEST_SWITCHES", "5"))
X = {"x": np.float32([2])}
MIB = 1 << 20
SIZES = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 8, "f": 13}
"""Six models, in MiB of weights."""


def heavy(path: Path, mib: float, b: float = 2.0) -> None:
    """y = 0.5 x + b, with weights that take so much memory."""
    import tensorflow as tf

    module = tf.Module()
    weights = np.random.default_rng(0).random(int(mib * MIB / 4), np.float32)
    module.weights, module.b = tf.Variable(weights), tf.Variable(b)
    spec = tf.TensorSpec([None], tf.float32, name="x")

    def f(x):
        return {"y": 0.5 * x + module.b + 0.0 * module.weights[0]}

    module.f = tf.function(f, input_signature=[spec])
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})


def devices_page(server) -> dict:
    status, text = server.get("/servingd/v1/devices")
    assert status == 200
    return json.loads(text)


class Callers:
    """Calls of several models, with a pause if one is said; counts what comes of them."""

    def __init__(self, server, *models: str, answers=frozenset({3.0}), pause_s=0.0) -> None:
        self._server, self._answers, self._pause_s = server, answers, pause_s
        self.outcomes: Counter = Counter()
        self.texts: set[str] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(m,)) for m in models]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def wait(self, model: str, calls: int = 20) -> None:
        """Until so many more calls have been answered."""
        goal, deadline = self.outcomes[model, "OK"] + calls, time.monotonic() + 30
        while self.outcomes[model, "OK"] < goal:
            assert time.monotonic() < deadline, self.outcomes
            time.sleep(0.01)

    def codes(self) -> set[str]:
        return {code for _, code in self.outcomes}

    def _run(self, model: str) -> None:
        while not self._stop.is_set():
            try:
                answer = float(self._server.predict(model, X)["y"][0])
                code = "OK" if answer in self._answers else f"answered {answer}"
            except grpc.RpcError as error:
                code = error.code().name
                self.texts.add(error.details())
            self.outcomes[model, code] += 1
            self._stop.wait(self._pause_s)


# Placement --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def six(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("six")
    for name, mib in SIZES.items():
        heavy(root / name / "1", mib)
    return root


@pytest.fixture
def placed(start, six, tmp_path):
    """Six models over four devices: two with their own rules."""
    rules = {"a": "device: CPU:3", "b": "replicas: per_device", "c": "replicas: 2"}
    config = tmp_path / "servingd.yaml"
    models = "".join(
        f"- {{name: {name}, base_path: {six / name}, {rules.get(name, 'replicas: 1')}}}\n"
        for name in SIZES
    )
    config.write_text(f"virtual_cpu_devices: 4\nmodels:\n{models}")
    return start(f"--servingd_config_file={config}").wait_until_ready()


@pytest.mark.timeout(240)
def test_six_models_lie_and_run_where_they_were_planned_while_they_are_called(placed):
    # The optimiser's children have the lowest priority, and other tests run beside this one.
    with Callers(placed, *SIZES, pause_s=0.2) as callers:
        placed.wait_for("every graph's last word", lambda: all_graphs_are_made(placed), 200)
        for name in SIZES:
            callers.wait(name)
    assert callers.codes() == {"OK"}, callers.texts
    page = devices_page(placed)
    assert [d["name"] for d in page["devices"]] == [f"CPU:{i}" for i in range(4)]
    assert {v["model"]: len(v["replicas"]) for v in page["versions"]} == {
        **dict.fromkeys(SIZES, 1),
        "b": 4,
        "c": 2,
    }
    for version in page["versions"]:
        replicas = version["replicas"]
        assert [r["device"] for r in replicas] == version["planned"]
        assert len(set(version["planned"])) == len(replicas), "each on a device of its own"
        for replica in replicas:
            assert (replica["state"], replica["graph"]) == ("serving", "optimised")
            assert set(replica["operations_by_device"]) == {replica["device"]}
            assert replica["moved_operations"] == {}
    assert next(v for v in page["versions"] if v["model"] == "a")["planned"] == ["CPU:3"]
    assert all(device["replicas"] > 1 for device in page["devices"]), "none is left idle"
    held = sum(device["held_bytes"] for device in page["devices"])
    assert held > sum(SIZES.values()) * MIB
    see_operators_tools(placed)


def all_graphs_are_made(server) -> bool:
    versions = devices_page(server)["versions"]
    return all(r["graph"] == "optimised" for v in versions for r in v["replicas"])


def see_operators_tools(server) -> None:
    (version,) = json.loads(server.get("/servingd/v1/models/b")[1])["versions"]
    assert len(version["placement"]["replicas"]) == 4
    series = 'servingd_replicas{device="CPU:3",model="a",state="serving",version="1"}'
    assert server.metric(series) == 1.0
    assert server.metric('servingd_device_bytes{device="CPU:3",kind="held"}') > MIB
    url = f"http://127.0.0.1:{server.http_port}"
    assert json.loads(devices_command("--json", f"--server={url}"))["versions"]
    table = devices_command(f"--server={url}")
    assert "CPU:3" in table
    assert "Replicas" in table


def devices_command(*arguments: str) -> str:
    command = [sys.executable, "-m", "servingd", "devices", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_the_command_shows_the_machine_as_well():
    found = json.loads(devices_command("--here", "--json"))
    assert found["devices"][0]["name"] == "CPU:0"


def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(start, six):
    server = start(
        "--model_name=a",
        f"--model_base_path={six / 'a'}",
        "--device=CPU:7",
        "--virtual_cpu_devices=2",
        "--max_num_load_retries=0",
    )
    text = "device: CPU:7 was asked for, and there is only CPU:0, CPU:1"
    server.wait_for("the error", lambda: text in server.get("/servingd/v1/models/a")[1])
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("a", X)
    assert text in caught.value.details()


# Memory -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Path, Path]:
    """Two versions of 64 MiB."""
    root = tmp_path_factory.mktemp("large")
    heavy(root / "1", 64, 2.0)
    heavy(root / "2", 64, 3.0)
    return root / "1", root / "2"


def serve_large(start, base: Path, large, budget: int, *flags: str):
    base.mkdir()
    shutil.copytree(large[0], base / "1")
    server = start(
        "--model_name=m",
        f"--model_base_path={base}",
        f"--ram_budget_mb={budget}",
        "--optimize_models=off",
        *flags,
    )
    return server.wait_until_ready()


def test_what_does_not_fit_is_refused_in_so_many_words_and_the_old_version_serves_on(
    start, large, tmp_path
):
    server = serve_large(start, tmp_path / "m", large, 100, "--transition=availability_preserving")
    with Callers(server, "m") as callers:
        copy_version(large[1], tmp_path / "m" / "2")
        server.wait_for("the refusal", lambda: server.states("m").get(2) == "END")
        callers.wait("m")
    assert callers.codes() == {"OK"}
    page = json.loads(server.get("/servingd/v1/models/m")[1])
    (error,) = [v["error"] for v in page["versions"] if v["version"] == 2]
    assert error["code"] == "RESOURCE_EXHAUSTED"
    assert re.fullmatch(
        r"Insufficient resources to load servable \{name: m version: 2\}: it needs [\d.]+ MiB of "
        r"RAM for 1 replica; of 100\.0 MiB [\d.]+ MiB are in use \(m:1 [\d.]+ MiB\)",
        error["message"],
    )


def test_no_child_is_started_that_would_take_more_than_the_budget_leaves(start, large, tmp_path):
    shutil.copytree(large[0], tmp_path / "m" / "1")
    flags = (f"--model_base_path={tmp_path / 'm'}", "--model_name=m", "--ram_budget_mb=900")
    server = start(*flags).wait_until_ready()
    text = "is served as it was exported: there is no memory for its optimised form"
    # The manager's plan is shown up to a quarter of a second after the version serves.
    server.wait_for(
        "the reason", lambda: devices_page(server)["versions"][0]["note"].endswith(text)
    )
    assert server.metric('servingd_model_graph{model="m",state="plain",version="1"}') == 1


@pytest.mark.timeout(30 + 10 * SWITCHES)
@pytest.mark.parametrize(
    ("transition", "budget", "allowed"),
    [
        ("resource_preserving", 100, {"OK", "UNAVAILABLE"}),
        ("auto", 100, {"OK", "UNAVAILABLE"}),
        ("availability_preserving", 400, {"OK"}),
        ("auto", 400, {"OK"}),
    ],
)
def test_switches_of_a_model_that_fits_once_and_of_one_that_fits_twice(
    start, large, tmp_path, transition, budget, allowed
):
    base = tmp_path / "m"
    server = serve_large(start, base, large, budget, f"--transition={transition}")
    with Callers(server, "m", answers={3.0, 4.0}) as callers:
        for n in range(2, SWITCHES + 2):
            copy_version(large[(n + 1) % 2], base / str(n))
            shutil.rmtree(base / str(n - 1))
            wanted = {n: "AVAILABLE", n - 1: "END"}
            server.wait_for(f"switch {n}", lambda w=wanted: w.items() <= server.states("m").items())
            callers.wait("m", 5)
    print(transition, budget, dict(callers.outcomes), callers.texts)
    assert callers.codes() <= allowed, callers.texts
    assert callers.outcomes["m", "OK"] >= 5 * SWITCHES
    if budget == 100:
        assert "UNAVAILABLE" in callers.codes(), "both were there at a time"


# Devices that fail ------------------------------------------------------------------------------


GREEDY = ("serving_default", "second", "third")
"""One call of each: TensorFlow tries for ten seconds before it gives one up."""


def greedy(path: Path) -> None:
    """y = 2 n; from n = 2 on by way of a tensor of pebibytes."""
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([], tf.int32, name="n")

    def f(n):
        too_many = tf.maximum(n - 1, 0)  # not of what is made up to warm it
        nothing = tf.reduce_sum(tf.zeros([too_many, 1 << 24, 1 << 24]))
        return {"y": 2.0 * tf.cast(n, tf.float32) + nothing}

    module.functions = [tf.function(f, input_signature=[spec]) for _ in GREEDY]
    tf.saved_model.save(module, str(path), dict(zip(GREEDY, module.functions, strict=True)))


def test_a_replica_whose_device_goes_on_failing_is_loaded_on_another(start, tmp_path):
    greedy(tmp_path / "m" / "1")
    server = start(
        "--model_name=m",
        f"--model_base_path={tmp_path / 'm'}",
        "--virtual_cpu_devices=2",
        "--optimize_models=off",
    ).wait_until_ready()

    def call(n: int, signature: str = "") -> float | str:
        try:
            return float(
                server.predict("m", {"n": np.int32(n)}, signature=signature, timeout=100)["y"]
            )
        except grpc.RpcError as error:
            return error.code().name

    def lies_on() -> list[str]:
        (version,) = devices_page(server)["versions"]
        return [r["device"] for r in version["replicas"] if r["state"] == "serving"]

    assert call(0) == 0.0
    assert lies_on() == ["CPU:0"]
    with ThreadPoolExecutor(len(GREEDY)) as pool:
        assert set(pool.map(lambda s: call(2, s), GREEDY)) == {"RESOURCE_EXHAUSTED"}
    server.wait_for("the move", lambda: lies_on() == ["CPU:1"])
    assert call(0) == 0.0
    (version,) = devices_page(server)["versions"]
    assert version["planned"] == ["CPU:1"]
