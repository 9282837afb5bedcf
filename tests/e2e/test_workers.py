"""Several workers behind one port: to its clients they are one server, and one may die."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2, prediction_log_pb2

from tests.e2e.process import KEYS, lookup_table, memory_mib, request

pytestmark = pytest.mark.e2e

KILLS = int(os.environ.get("SERVINGD_TEST_KILLS", "4"))
"""Random deaths of workers in the fault suite: a hundred in `make soak`."""

FATAL = 12345.0
"""The input at which a model aborts."""

RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "waitForReady": True,
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""The retry policy that gRPC's documentation has for idempotent calls.

A connection that a worker has not accepted when it dies is reset by the kernel, and gRPC waits a
second before it connects again: longer than all attempts, so calls wait for the connection."""


PREDICTED = 'servingd_requests_total{code="OK",method="Predict"'
PYTHON = (sys.executable, "-m", "servingd")


def workers(server) -> list[dict]:
    status, body = server.get("/servingd/v1/workers")
    assert status == 200
    return json.loads(body)["workers"]


def state(server, model: str, version: int) -> str:
    """A version's state over HTTP, on a new connection each time."""
    status, body = server.get(f"/v1/models/{model}")
    found = json.loads(body).get("model_version_status", []) if status == 200 else []
    return next((v["state"] for v in found if v["version"] == str(version)), "")


def processes(server) -> set[int]:
    return {worker["process"] for worker in workers(server) if worker["state"] == "serving"}


def kill_one(server, number: int = signal.SIGKILL) -> int:
    victim = random.choice(sorted(processes(server)))
    os.kill(victim, number)
    return victim


class Clients:
    """Clients with connections of their own that call a table all the time, with retries or not."""

    def __init__(self, server, count: int = 4, model: str = "t", retries: bool = True) -> None:
        self.outcomes: Counter = Counter()
        self.texts: Counter = Counter()
        self._server, self._model, self._retries = server, model, retries
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def wait(self, calls: int = 50) -> None:
        """Until so many more calls have been answered."""
        goal, deadline = self.outcomes["OK"] + calls, time.monotonic() + 30
        while self.outcomes["OK"] < goal:
            assert time.monotonic() < deadline, (self.outcomes, self.texts)
            time.sleep(0.01)

    def _run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if self._retries:
            options.append(("grpc.service_config", RETRIES))
        target = f"127.0.0.1:{self._server.port}"
        with grpc.insecure_channel(target, options=options) as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            message = request(self._model, KEYS).SerializeToString()
            while not self._stop.is_set():
                try:
                    assert call(message, timeout=20)
                    self.outcomes["OK"] += 1
                except grpc.RpcError as error:
                    self.outcomes[error.code().name] += 1
                    self.texts[error.details()] += 1


class HttpClient:
    """A client that keeps its HTTP connection for as long as the server does."""

    def __init__(self, server) -> None:
        self.outcomes: Counter = Counter()
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.http_port, timeout=10)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v1/models/t:predict", '{"instances": ["1"]}')
                answer = connection.getresponse()
                answer.read()
                self.outcomes[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.outcomes[repr(error)] += 1
        connection.close()


@pytest.fixture
def repository(tmp_path) -> Path:
    lookup_table(tmp_path / "repository" / "t" / "1")
    return tmp_path / "repository"


@pytest.fixture
def table(repository) -> Path:
    return repository / "t"


@pytest.fixture
def two(start, repository):
    """Two workers with one lookup table."""
    server = start(f"--model_repository={repository}", "--workers=2").wait_until_ready()
    server.wait_for("two workers", lambda: len(processes(server)) == 2)
    return server


def test_the_supervisor_is_small_and_knows_no_tensorflow(two):
    assert memory_mib(two) < 80
    maps = Path(f"/proc/{two.process.pid}/maps").read_text()
    assert "tensorflow" not in maps
    assert "cygrpc" not in maps


def test_metrics_tell_of_all_processes_together(two):
    pids = [two.process.pid, *processes(two)]
    resident = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident += 1024 * next(int(x.split()[1]) for x in lines if x.startswith("VmRSS:"))
    assert two.metric("process_resident_memory_bytes") == pytest.approx(resident, rel=0.1)
    assert two.metric("process_open_fds") > 20
    assert two.metric("process_start_time_seconds") < time.time()
    assert "servingd_build_info{" in two.get("/metrics")[1]


def test_metrics_are_the_sums_over_all_workers_and_never_go_back(two):
    with Clients(two, 6) as clients:
        clients.wait(200)
    calls = clients.outcomes["OK"]
    pages = [two.get("/metrics")[1] for _ in range(6)]  # whichever worker is asked
    line = next(x for x in pages[0].splitlines() if x.startswith(PREDICTED))
    assert line.endswith(f" {calls}"), (line, calls)
    assert all(line in page for page in pages)
    assert two.metric('servingd_workers{state="serving"}') == 2
    kill_one(two)
    two.wait_for("a new worker", lambda: len(processes(two)) == 2)
    assert line in two.get("/metrics")[1]
    assert two.metric('servingd_worker_restarts_total{reason="SIGKILL"}') == 1


def test_the_death_of_a_worker_costs_retrying_clients_nothing(two):
    with Clients(two) as clients:
        for _ in range(2):
            victim = kill_one(two)
            two.wait_for("a new worker", lambda v=victim: len(processes(two) - {v}) == 2)
            clients.wait()
    assert set(clients.outcomes) == {"OK"}, clients.texts


def test_workers_are_replaced_without_a_failed_call(two):
    old = processes(two)
    with Clients(two, retries=False) as clients, HttpClient(two) as http:
        done = subprocess.run(
            [*PYTHON, "workers", "recycle", f"--server=http://127.0.0.1:{two.http_port}"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        clients.wait()
    assert "done" in done.stdout
    assert not old & {worker["process"] for worker in workers(two)}
    assert set(clients.outcomes) == {"OK"}, clients.texts
    assert set(http.outcomes) == {200}, http.outcomes
    assert two.metric('servingd_worker_restarts_total{reason="recycled"}') == 2


def test_a_reload_by_call_is_answered_and_holds_in_every_worker(start, repository):
    """Labels too, and the metrics that the call asks for."""
    for version, one in ((1, "one"), (2, "two")):
        lookup_table(repository / "r" / str(version), one=one)
    config = repository / "models.config"
    config.write_text(labelled(repository, 1))
    server = start(
        f"--model_config_file={config}",
        "--workers=2",
        "--allow_version_labels_for_unavailable_models=true",
    ).wait_until_ready()
    server.wait_for("two workers", lambda: len(processes(server)) == 2)
    ask = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(labelled(repository, 2), ask.config)
    ask.metric_names.append("/tensorflow/serving/request_count")
    assert server.model.HandleReloadConfigRequest(ask, timeout=20).status.error_code == 0
    message = request("r", KEYS)
    message.model_spec.version_label = "stable"
    for _ in range(6):
        with grpc.insecure_channel(
            f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            assert b"two" in call(message.SerializeToString(), timeout=10)
    assert "Traceback" not in server.log.read_text()


def labelled(repository: Path, version: int) -> str:
    return (
        f'model_config_list {{ config {{ name: "r" base_path: "{repository / "r"}" '
        'model_platform: "lookup_table" model_version_policy { all {} } '
        f'version_labels {{ key: "stable" value: {version} }} }} }}'
    )


def test_a_client_is_sent_to_new_connections_and_loses_no_call(start, repository):
    server = start(
        f"--model_repository={repository}", "--workers=2", "--max_connection_age_s=0.5"
    ).wait_until_ready()
    ports: set[str] = set()

    def connected() -> bool:
        ports.update(clients_of(server.port))
        return len(ports) >= 5

    with Clients(server, 1, retries=False) as clients:
        server.wait_for("new connections", connected)
        clients.wait()
    assert set(clients.outcomes) == {"OK"}, clients.texts


def test_a_version_that_is_available_is_so_in_every_worker(two, table):
    for version in range(2, 8):
        lookup_table(table / str(version), one=f"v{version}")
        two.wait_for("the switch", lambda v=version: state(two, "t", v) == "AVAILABLE")
        for _ in range(6):  # a connection each, so that both workers are asked
            with grpc.insecure_channel(
                f"127.0.0.1:{two.port}", options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
                answer = call(request("t", KEYS).SerializeToString(), timeout=10)
                assert f"v{version}".encode() in answer


@pytest.mark.tf
def test_a_load_that_fails_is_told_once_and_by_whichever_worker(start, models, tmp_path):
    shutil.copytree(models / "half_plus_two", tmp_path / "m" / "1")
    (data,) = (tmp_path / "m" / "1" / "variables").glob("variables.data*")
    data.write_bytes(bytes(data.stat().st_size))
    server = start(f"--model_repository={tmp_path}", "--workers=2", "--max_num_load_retries=0")
    server.wait_for("the error", lambda: state(server, "m", 1) == "END")
    answers = {server.get("/v1/models/m")[1] for _ in range(6)}
    assert len(answers) == 1
    assert "DATA_LOSS" in answers.pop()
    assert server.log.read_text().count("Encountered an error for servable version") == 1


def test_a_busy_port_is_an_error_that_names_it(start, repository):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(f"--model_repository={repository}", "--workers=2", f"--rest_api_port={port}")
        assert server.process.wait(30) == 255
    assert f"the HTTP port {port} cannot be used" in server.tail()


def test_a_socket_that_cannot_be_shared_is_refused(start, repository, tmp_path):
    server = start(
        f"--model_repository={repository}",
        "--workers=2",
        f"--grpc_socket_path={tmp_path / 's'}",
    )
    assert server.process.wait(30) == 255
    assert "--workers: expected 1 with --grpc_socket_path" in server.tail()


def test_workers_that_cannot_start_end_the_server(start, tmp_path):
    lookup_table(tmp_path / "m")
    (tmp_path / "broken.so").write_bytes(b"no library")
    server = start(
        "--workers=2",
        f"--op_libraries={tmp_path / 'broken.so'}",
        path=tmp_path / "m",
        TMPDIR=str(tmp_path),
    )
    assert server.process.wait(60) == 255
    assert "no worker could be started" in server.tail()
    assert list(tmp_path.glob("servingd-*")) == []


def test_workers_die_with_their_supervisor(two):
    there = processes(two)
    two.process.kill()
    two.process.wait()
    deadline = time.monotonic() + 2
    while any(alive(pid) for pid in there):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_logs_of_requests_lose_no_line(start, tmp_path, table):
    import tensorflow as tf

    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "t" base_path: "{table}" '
        'model_platform: "lookup_table" logging_config { '
        f'log_collector_config {{ filename_prefix: "{tmp_path}/log" }} '
        "sampling_config { sampling_rate: 1.0 } } } }"
    )
    server = start(f"--model_config_file={config}", "--workers=2").wait_until_ready()
    server.wait_for("two workers", lambda: len(processes(server)) == 2)
    with Clients(server, 6) as clients:
        clients.wait(300)
    assert server.terminate() == 0
    records = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for file in tmp_path.glob("log*")
        for record in tf.compat.v1.io.tf_record_iterator(str(file))
    ]
    assert len(records) == clients.outcomes["OK"]
    assert len({file.name.split("worker-")[1][0] for file in tmp_path.glob("log*")}) == 2


@pytest.mark.tf
@pytest.mark.parametrize("when", ["at load", "in a run"])
def test_a_version_that_aborts_is_quarantined_and_the_one_before_it_comes_back(
    start, models, tmp_path, when
):
    base = tmp_path / "m"
    shutil.copytree(models / "half_plus_two", base / "1")
    aborts(base / "2", recorded=when == "at load")
    server = start("--model_name=m", f"--model_base_path={base}", "--workers=2")
    x = {"x": np.float32([1])}
    if when == "in a run":
        server.wait_for("version 2", lambda: state(server, "m", 2) == "AVAILABLE")
        server.wait_for("two workers", lambda: len(processes(server)) == 2)
        for _ in range(3):
            with pytest.raises(grpc.RpcError):
                server.predict("m", {"x": np.float32([FATAL])}, timeout=10)
            server.wait_for("a worker", lambda: len(processes(server)) == 2)
    server.wait_for("version 1", lambda: state(server, "m", 1) == "AVAILABLE", 90)
    server.wait_for("the error", lambda: state(server, "m", 2) == "END")
    assert server.predict("m", x)["y"].tolist() == [2.5]
    error = json.loads(server.get("/servingd/v1/models/m")[1])["versions"][0]["error"]
    assert "quarantined: 3 workers have died of it, the last one by SIGABRT" in error["message"]
    assert server.metric('servingd_worker_restarts_total{reason="SIGABRT"}') == 3
    assert "Fatal Python error: Aborted" in server.log.read_text()


@pytest.mark.timeout(60 + 20 * KILLS)
def test_faults_of_all_kinds_cost_no_call_and_no_version(two, table):
    """Random deaths while versions come, go and are reloaded, under load."""
    rng = random.Random(17)
    version = 1
    with Clients(two) as clients:
        for _ in range(KILLS):
            if rng.random() < 0.6:
                version += 1
                lookup_table(table / str(version), one=f"v{version}")
            if rng.random() < 0.5:
                os.kill(two.process.pid, signal.SIGHUP)
            time.sleep(rng.random() / 2)
            two.wait_for("two workers", lambda: len(processes(two)) == 2, 90)
            os.kill(
                rng.choice(sorted(processes(two))), rng.choice((signal.SIGKILL, signal.SIGSEGV))
            )
            clients.wait(10)
        two.wait_for("two workers", lambda: len(processes(two)) == 2, 90)
        two.wait_for("the version", lambda: state(two, "t", version) == "AVAILABLE", 90)
        clients.wait()
    print(KILLS, dict(clients.outcomes), dict(clients.texts))
    assert set(clients.outcomes) == {"OK"}, clients.texts
    answers = {two.get("/v1/models/t")[1] for _ in range(8)}
    assert len(answers) == 1, answers


def aborts(path: Path, recorded: bool) -> None:
    """A version that ends the process at one input; recorded: its warm-up has that input."""
    import tensorflow as tf

    class Aborts(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def f(self, x):
            def end():
                with tf.control_dependencies([tf.raw_ops.Abort(error_msg="as asked")]):
                    return tf.identity(x)

            return {"y": tf.cond(x[0] == FATAL, end, lambda: x)}

    module = Aborts()
    tf.saved_model.save(module, str(path), {"serving_default": module.f})
    if recorded:
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.CopyFrom(request("m", {"x": np.float32([FATAL])}))
        (path / "assets.extra").mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(path / "assets.extra/tf_serving_warmup_requests")) as file:
            file.write(log.SerializeToString())


def clients_of(port: int) -> set[str]:
    """The remote ends of the connections that are established on a port."""
    rows = [
        line.split()
        for file in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(file).read_text().splitlines()[1:]
    ]
    established = "01"
    return {r[2] for r in rows if r[3] == established and int(r[1].split(":")[1], 16) == port}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False
