"""Versions come, go, fail and come half: with the real process, under calls."""

from __future__ import annotations

import ctypes
import shutil
import signal
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from servingd.servables.saved_model.files.completeness import INDEX, table_entries
from tests import absent
from tests.e2e.process import KEYS, Process, lookup_table, request
from tests.exports import copy_version
from tests.tables import SNAPPY, table

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

X = {"x": np.float32([2])}


class Caller:
    """Calls without pause until told to stop; remembers every answer and failure."""

    def __init__(self, server, model: str) -> None:
        self._server, self._model = server, model
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caller")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join(30)

    def _run(self):
        while not self._stop.is_set():
            try:
                self.answers.append(float(self._server.predict(self._model, X)["y"][0]))
            except grpc.RpcError as error:
                self.failures.append(f"{error.code().name}: {error.details()}")


@pytest.fixture
def base(models, tmp_path):
    """A model's folder with version 1."""
    folder = tmp_path / "m"
    folder.mkdir()
    shutil.copytree(models / "half_plus_two", folder / "1")
    return folder


@pytest.fixture(scope="module")
def repository_server(tmp_path_factory):
    """A server of a repository, and the repository."""
    root = tmp_path_factory.mktemp("models")
    flags = (f"--model_repository={root}", "--num_load_threads=1")
    process = Process(root.with_name(f"{root.name}.log"), *flags)
    try:
        yield process.wait_until_ready(), root
    finally:
        process.close()


@pytest.fixture
def served(repository_server, models, request):
    """A server, a model's name and its folder: a model of the test's own, with version 1."""
    server, root = repository_server
    name = request.node.name
    shutil.copytree(models / "half_plus_two", root / name / "1")
    server.wait_for("version 1", lambda: server.states(name) == {1: "AVAILABLE"})
    return server, name, root / name


def test_a_new_version_takes_over_without_a_failed_call(served, models):
    server, model, base = served
    with Caller(server, model) as caller:
        copy_version(models / "half_plus_three", base / "2")
        server.wait_for("the switch", lambda: server.states(model) == {2: "AVAILABLE", 1: "END"})
        assert server.predict(model, X)["y"].tolist() == [4.0]
    assert caller.failures == []
    assert set(caller.answers) == {3.0, 4.0}


def test_removing_the_newest_version_brings_the_older_one_back(served, models):
    server, model, base = served
    copy_version(models / "half_plus_three", base / "2")
    server.wait_for("the switch", lambda: server.states(model) == {2: "AVAILABLE", 1: "END"})
    with Caller(server, model) as caller:
        shutil.rmtree(base / "2")
        server.wait_for("the return", lambda: server.states(model) == {2: "END", 1: "AVAILABLE"})
    assert caller.failures == []


def test_garbage_as_a_new_version_harms_nothing(served):
    server, model, base = served
    (base / "3").mkdir()
    (base / "3" / "saved_model.pb").write_bytes(b"garbage")
    with Caller(server, model) as caller:
        series = f'servingd_model_incomplete{{model="{model}",version="3"}}'
        server.wait_for("the report", lambda: server.metric(series) == 1.0)
        assert server.states(model) == {3: "START", 1: "AVAILABLE"}
    assert caller.failures == []
    assert "incomplete" in server.get(f"/servingd/v1/models/{model}")[1]
    reason = f"version 3 of model {model} is incomplete: saved_model.pb does not parse"
    server.wait_for("the reason", lambda: reason in server.tail())


def test_a_copy_that_stalls_does_not_go_live_early(served, models):
    """Every file but the last bytes of one, for longer than several polls."""
    server, model, base = served
    staged = base / "2"
    name = "variables/variables.data-00000-of-00001"
    content = (models / "half_plus_three" / name).read_bytes()
    (staged / "variables").mkdir(parents=True)
    shutil.copy(models / "half_plus_three" / "saved_model.pb", staged)
    shutil.copy(models / "half_plus_three" / "variables" / "variables.index", staged / "variables")
    with (staged / name).open("wb") as file:
        file.write(content[:-1])
        file.flush()
        series = f'servingd_model_incomplete{{model="{model}",version="2"}}'
        server.wait_for("the report", lambda: server.metric(series) == 1.0)
        with pytest.raises(AssertionError, match="did not happen"):
            server.wait_for("an early start", lambda: server.states(model).get(2) != "START", 3)
        file.write(content[-1:])
    server.wait_for("the switch", lambda: server.states(model).get(2) == "AVAILABLE")
    assert server.predict(model, X)["y"].tolist() == [4.0]


def test_a_model_whose_index_is_compressed_is_served(start, tmp_path, models):
    """TensorFlow Serving's demo models, and what older builds wrote."""
    version = tmp_path / "base" / "1"
    shutil.copytree(models / "half_plus_two", version)
    index = version / INDEX
    index.write_bytes(table(list(table_entries(index.read_bytes())), kind=SNAPPY))
    server = start("--model_name=m", f"--model_base_path={version.parent}").wait_until_ready()
    assert server.predict("m", {"x": np.array([1.0, 2.0, 5.0], np.float32)})["y"].tolist() == [
        2.5,
        3.0,
        4.5,
    ]


def test_a_version_that_cannot_load_leaves_the_old_one_and_is_tried_again(start, base, models):
    server = start(
        "--model_name=m",
        f"--model_base_path={base}",
        "--max_num_load_retries=0",
    ).wait_until_ready()
    broken = base / "2"
    shutil.copytree(models / "half_plus_three", broken.with_name(".2"))
    shard = broken.with_name(".2") / "variables" / "variables.data-00000-of-00001"
    content = shard.read_bytes()
    shard.write_bytes(bytes(len(content)))  # the size is right, the checksums are not
    broken.with_name(".2").rename(broken)
    with Caller(server, "m") as caller:
        server.wait_for("the failure", lambda: server.states("m").get(2) == "END")
        assert server.predict("m", X)["y"].tolist() == [3.0]
        shard = broken / "variables" / "variables.data-00000-of-00001"
        shard.write_bytes(content)
        server.wait_for("the recovery", lambda: server.states("m").get(2) == "AVAILABLE")
    assert caller.failures == []


def test_a_model_that_never_loads_is_unavailable_with_its_error(start, tmp_path, models):
    shutil.copytree(models / "half_plus_two", tmp_path / "bad" / "1")
    shard = tmp_path / "bad" / "1" / "variables" / "variables.data-00000-of-00001"
    shard.write_bytes(bytes(shard.stat().st_size))
    shutil.copytree(models / "half_plus_two", tmp_path / "good" / "1")
    (tmp_path / "models.config").write_text(
        f"""model_config_list {{
          config {{ name: "bad" base_path: "{tmp_path}/bad" model_platform: "tensorflow" }}
          config {{ name: "absent" base_path: "{tmp_path}/absent" model_platform: "tensorflow" }}
          config {{ name: "good" base_path: "{tmp_path}/good" model_platform: "tensorflow" }}
        }}"""
    )
    server = start(
        f"--model_config_file={tmp_path}/models.config",
        "--max_num_load_retries=0",
        "--ready_when=good",
    ).wait_until_ready()
    assert server.predict("good", X)["y"].tolist() == [3.0]
    server.wait_for("the failure", lambda: server.states("bad").get(1) == "END")
    with pytest.raises(grpc.RpcError) as failure:
        server.predict("bad", X)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "failed to load: DATA_LOSS" in failure.value.details()
    with pytest.raises(grpc.RpcError) as failure:
        server.predict("absent", X)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failure.value.details() == (
        "Model absent is configured, but no version of it is available"
    )


def test_a_new_folder_in_a_repository_is_a_new_model(start, tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    server = start(f"--model_repository={root}").wait_until_ready()
    lookup_table(root / "m" / "1")
    server.wait_for("the model", lambda: server.states("m").get(1) == "AVAILABLE")
    assert server.predict("m", KEYS)["values"].tolist() == [b"one"]
    shutil.rmtree(root / "m")
    server.wait_for("the end", lambda: server.states("m") == {})

    def forgotten():  # its folder goes a moment after its last version
        with pytest.raises(grpc.RpcError) as failure:
            server.predict("m", KEYS)
        return failure.value.details() == "Servable not found for request: Latest(m)"

    server.wait_for("the model's end", forgotten)


def test_optimised_graphs_come_from_the_cache_at_the_next_start(start, base):
    flags = ("--model_name=m", f"--model_base_path={base}", "--optimize_models=background")
    optimised = 'servingd_model_graph{model="m",state="optimised",version="1"}'
    server = start(*flags).wait_until_ready()
    server.wait_for("the swap", lambda: server.metric(optimised) == 1.0)
    assert server.predict("m", X)["y"].tolist() == [3.0]
    assert server.terminate() == 0
    again = start(*flags, "--optimize_models=wait").wait_until_ready()
    assert again.metric(optimised) == 1.0  # there before it was ready
    assert again.predict("m", X)["y"].tolist() == [3.0]


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_sigterm_lets_calls_in_flight_finish(start, tmp_path, models, transport):
    shutil.copytree(models / "slow", tmp_path / "slow" / "1")
    server = start(
        "--model_name=slow",
        f"--model_base_path={tmp_path}/slow",
        f"--grpc_transport={transport}",
        "--drain_delay_s=0.5",
    ).wait_until_ready()
    call = server.prediction.Predict.future(request("slow", {"n": np.int32(600_000)}), timeout=60)
    warm = server.predict("slow", {"n": np.int32(10)})  # the server is at the other call by now
    assert warm["n"] == 10
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("the probe", lambda: server.get("/readyz")[0] == 503)
    assert call.result(timeout=60).outputs["n"].int_val[0] == 600_000
    assert server.process.wait(30) == 0
    assert server.tail().rstrip().endswith("stopped")


def test_a_signal_is_heard_whichever_thread_gets_it(start, tmp_path, models):
    """The kernel may give it to any; the main thread, which runs handlers, may sleep on."""
    shutil.copytree(models / "slow", tmp_path / "slow" / "1")
    server = start("--model_name=slow", f"--model_base_path={tmp_path}/slow").wait_until_ready()
    pid = server.process.pid
    last = max(int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir())
    assert last != pid
    assert ctypes.CDLL(None).tgkill(pid, last, signal.SIGTERM) == 0
    assert server.process.wait(20) == 0


def test_a_second_signal_exits_at_once(start, tmp_path):
    lookup_table(tmp_path / "m" / "1")
    server = start("--drain_delay_s=60", path=tmp_path / "m" / "1", TMPDIR=str(tmp_path))
    server.wait_until_ready()
    assert len(list(tmp_path.glob("servingd-*"))) == 1
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGINT)  # as of a terminal and a supervisor: one wish
    server.wait_for("the probe", lambda: server.get("/readyz")[0] == 503)
    time.sleep(1.1)  # so much later it is another one
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("servingd-*")) == []


def test_a_signal_during_the_start_ends_it_at_once(start, tmp_path, models):
    shutil.copytree(models / "half_plus_two", tmp_path / "m" / "1")
    server = start("--model_name=m", f"--model_base_path={tmp_path}/m", PYTHONPATH=absent.SEEN)
    server.wait_for("the load", lambda: "LOADING" in server.get("/v1/models/m")[1])
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(3) == 0  # TensorFlow's import alone takes longer


def test_calls_that_loop_for_ever_do_not_take_their_model_out(server):
    """As many as there are workers, and more: each is ended some seconds after its client left."""
    server.wait_for("the model", lambda: server.states("endless").get(1) == "AVAILABLE")
    looping = request("endless", {"x": np.float32([3])})
    calls = [server.prediction.Predict.future(looping, timeout=0.5) for _ in range(3)]
    assert {call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}

    def answered():
        try:
            return server.predict("endless", {"x": np.float32([0.5])}, timeout=1)["y"] == 0.5
        except grpc.RpcError:
            return False

    server.wait_for("an answer", answered)
    assert server.predict("half_plus_two", {"x": np.float32([2])})["y"].tolist() == [3.0]
