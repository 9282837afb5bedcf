"""Other models for a server that runs: by call, by file, and labels that move."""

from __future__ import annotations

import shutil
import signal
import threading

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

from servingd.servables.registry import TYPES
from tests.e2e.process import KEYS, lookup_table, request
from tests.exports import copy_version

pytestmark = [pytest.mark.tf, pytest.mark.e2e]


def entry(name, base_path, labels=None, versions=(), platform="lookup_table", **fields):
    config = model_server_config_pb2.ModelConfig(
        name=name, base_path=str(base_path), model_platform=platform, **fields
    )
    config.version_labels.update(labels or {})
    config.model_version_policy.specific.versions.extend(versions)
    if not versions:
        config.ClearField("model_version_policy")
    return config


def reload_request(*entries, metrics=()):
    ask = model_management_pb2.ReloadConfigRequest(metric_names=metrics)
    ask.config.model_config_list.SetInParent()
    ask.config.model_config_list.config.extend(entries)
    return ask


def refusal(process, ask, timeout=30):
    with pytest.raises(grpc.RpcError) as failure:
        process.model.HandleReloadConfigRequest(ask, timeout=timeout)
    return failure.value.code().name, failure.value.details()


@pytest.fixture
def folders(tmp_path):
    """Model `a` with versions 1 and 2, model `b` with version 1."""
    for name, version, one in (("a", 1, "one"), ("a", 2, "first"), ("b", 1, "one")):
        lookup_table(tmp_path / name / str(version), one)
    return tmp_path


@pytest.fixture
def serve(start, folders):
    """Start a server of what a file lists: `serve(entries, *flags)`."""
    file = folders / "models.config"

    def begin(entries, *flags):
        listed = model_server_config_pb2.ModelServerConfig()
        listed.model_config_list.config.extend(entries)
        file.write_text(text_format.MessageToString(listed))
        return start(f"--model_config_file={file}", *flags).wait_until_ready()

    return begin


@pytest.fixture
def server(serve, folders):
    """A server of model `a`, version 1."""
    return serve([entry("a", folders / "a", versions=[1])], "--max_num_load_retries=0")


def answer(process, model):
    (found,) = process.predict(model, KEYS)["values"]
    return found.decode()


def labelled(process, label, model="a"):
    ask = request(model, KEYS)
    ask.model_spec.version_label = label
    return process.prediction.Predict(ask, timeout=10)


def test_a_reload_returns_when_its_new_models_answer(server, folders, models):
    """The new one takes its time to load: TensorFlow's import."""
    shutil.copytree(models / "half_plus_two", folders / "half" / "1")
    half = entry("half", folders / "half", platform="tensorflow")
    reloaded = server.model.HandleReloadConfigRequest(
        reload_request(
            half,
            metrics=["/tensorflow/serving/request_count", "/no/such/metric"],
        ),
        timeout=30,
    )
    assert reloaded.status.error_code == 0
    assert {m.name: m.int64_value_increase for m in reloaded.metric} == {
        "/tensorflow/serving/request_count": 0,
        "/no/such/metric": 0,
    }
    assert server.predict("half", {"x": np.float32([1, 2])})["y"].tolist() == [2.5, 3.0]
    server.wait_for("the end of a", lambda: server.states("a") == {})
    with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Latest\(a\)"):
        answer(server, "a")
    # It may come back, and its old end neither satisfies nor fails the wait.
    server.model.HandleReloadConfigRequest(
        reload_request(entry("a", folders / "a"), half), timeout=30
    )
    assert answer(server, "a") == "first"


def test_an_empty_list_unloads_everything(server):
    server.model.HandleReloadConfigRequest(reload_request(), timeout=30)
    server.wait_for("the end of a", lambda: server.states("a") == {})


WRONG = {
    "no list": (
        lambda f: model_management_pb2.ReloadConfigRequest(),
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList "
        "is currently supported",
    ),
    "a name twice": (
        lambda f: reload_request(entry("b", f / "b"), entry("b", f / "b")),
        "INVALID_ARGUMENT",
        "Illegal to list model b multiple times in config list",
    ),
    "a relative path": (
        lambda f: reload_request(entry("b", "models/b")),
        "INVALID_ARGUMENT",
        "Expected model b to have an absolute path or URI; got base_path()=models/b",
    ),
    "no platform": (
        lambda f: reload_request(entry("b", f / "b", platform="")),
        "INVALID_ARGUMENT",
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
        "ModelServerConfig::model_platform, model name is b",
    ),
    "type and platform": (
        lambda f: reload_request(entry("b", f / "b", model_type=1)),
        "INVALID_ARGUMENT",
        "Illegal setting both ModelServerConfig::model_type (deprecated) and "
        "ModelServerConfig::model_platform, model name is b",
    ),
    "another type": (
        lambda f: reload_request(entry("b", f / "b", platform="", model_type=2)),
        "INVALID_ARGUMENT",
        "ModelServerConfig::model_type choice 2 not supported.",
    ),
    "another platform": (
        lambda f: reload_request(entry("a", f / "a", platform="tensorflow")),
        "INVALID_ARGUMENT",
        "Illegal to change a model's platform. For model a platform was lookup_table and new "
        "platform requested is tensorflow",
    ),
    "no such platform": (
        lambda f: reload_request(entry("b", f / "b", platform="torch")),
        "INVALID_ARGUMENT",
        f"Model b requests unsupported platform torch; known: {', '.join(sorted(TYPES))}",
    ),
    "a label to a version that is not there": (
        lambda f: reload_request(entry("a", f / "a", {"stable": 7})),
        "FAILED_PRECONDITION",
        "Request to assign label to version 7 of model a, which is not currently available for "
        "inference",
    ),
}


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_a_wrong_reload_changes_nothing(serve, folders, transport):
    server = serve([entry("a", folders / "a")], f"--grpc_transport={transport}")
    for make, code, text in WRONG.values():
        assert refusal(server, make(folders)) == (code, text)
    assert answer(server, "a") == "first"
    assert server.states("b") == {}


def test_a_model_that_cannot_come_is_told_at_once_and_blocks_nobody(server, folders):
    (folders / "empty").mkdir()
    answers = []

    def ask():
        answers.append(
            refusal(
                server,
                reload_request(
                    entry("a", folders / "a", versions=[1]),
                    entry("b", folders / "b"),
                    entry("empty", folders / "empty"),
                    entry("nowhere", folders / "nowhere"),
                ),
            )
        )

    caller = threading.Thread(target=ask)
    caller.start()
    caller.join(20)
    assert not caller.is_alive()
    code, text = answers[0]
    assert code == "UNKNOWN"
    assert text.startswith("2 model(s) did not become available: {{{name: empty} due to error: ")
    assert "Could not find base path" in text
    # The others are up, and the one that had not come is loaded when it does.
    assert answer(server, "b") == "one"
    copy_version(folders / "b" / "1", folders / "empty" / "1")
    server.wait_for("empty", lambda: server.states("empty") == {1: "AVAILABLE"})


def test_a_model_that_fails_to_load_is_told_with_its_error(server, models, folders):
    broken = folders / "broken" / "1"
    shutil.copytree(models / "half_plus_two", broken)
    shard = next((broken / "variables").glob("*.data*"))
    shard.write_bytes(b"x" * shard.stat().st_size)
    code, text = refusal(
        server,
        reload_request(
            entry("a", folders / "a", versions=[1]),
            entry("m", folders / "broken", platform="tensorflow"),
        ),
    )
    assert code == "UNKNOWN"
    assert text.startswith(
        "1 model(s) did not become available: {{{name: m version: 1} due to error: DATA_LOSS"
    )


def test_labels_follow_the_matrix(server, folders):
    both = entry("a", folders / "a", {"stable": 1}, versions=[1, 2])
    server.model.HandleReloadConfigRequest(reload_request(both), timeout=30)
    server.wait_for("version 2", lambda: server.states("a").get(2) == "AVAILABLE")
    assert labelled(server, "stable").model_spec.version.value == 1
    assert not labelled(server, "stable").model_spec.version_label
    moved = entry("a", folders / "a", {"stable": 2, "old": 1, "also": 1}, versions=[1, 2])
    server.model.HandleReloadConfigRequest(reload_request(moved), timeout=30)
    assert labelled(server, "stable").model_spec.version.value == 2
    assert labelled(server, "old").model_spec.version.value == 1
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: nothing"):
        labelled(server, "nothing")
    # The old one is unloaded; its label leads nowhere, and an unchanged config is no error.
    gone = entry("a", folders / "a", {"stable": 2, "old": 1}, versions=[2])
    server.model.HandleReloadConfigRequest(reload_request(gone), timeout=30)
    server.wait_for("the end of 1", lambda: server.states("a").get(1) == "END")
    server.model.HandleReloadConfigRequest(reload_request(gone), timeout=30)
    with pytest.raises(grpc.RpcError, match=r"Specific\(a, 1\)"):
        labelled(server, "old")
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: also"):
        labelled(server, "also")


def test_labels_of_the_first_configuration_lead_to_their_versions_when_these_come(serve, folders):
    first = entry("a", folders / "a", {"stable": 1, "canary": 3}, versions=[1, 3])
    server = serve([first], "--model_config_file_poll_wait_seconds=1")
    assert labelled(server, "stable").model_spec.version.value == 1
    with pytest.raises(grpc.RpcError, match=r"Specific\(a, 3\)"):
        labelled(server, "canary")
    copy_version(folders / "a" / "2", folders / "a" / "3")
    server.wait_for("version 3", lambda: server.states("a").get(3) == "AVAILABLE")
    assert labelled(server, "canary").model_spec.version.value == 3


def test_a_new_label_may_wait_for_its_version_where_that_is_allowed(serve, folders):
    flag = "--allow_version_labels_for_unavailable_models"
    server = serve([entry("a", folders / "a")], flag)
    server.model.HandleReloadConfigRequest(
        reload_request(entry("a", folders / "a", {"next": 3, "now": 2})), timeout=30
    )
    assert refusal(server, reload_request(entry("a", folders / "a", {"next": 3, "now": 3}))) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 3 of model a, which is not currently available for "
        "inference",
    )
    copy_version(folders / "a" / "2", folders / "a" / "3")
    server.wait_for("version 3", lambda: server.states("a").get(3) == "AVAILABLE")
    assert labelled(server, "next").model_spec.version.value == 3


def test_a_polled_file_is_applied_and_a_broken_one_is_not(start, folders):
    file = folders / "models.config"
    text = 'model_config_list {{ config {{ name: "{0}" base_path: "{1}" model_platform: "{2}" }} }}'
    file.write_text(text.format("a", folders / "a", "lookup_table"))
    server = start(
        f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1"
    ).wait_until_ready()
    file.write_text("model_config_list {")
    server.wait_for(
        "the complaint", lambda: "Failed to read ModelServerConfig file" in server.log.read_text()
    )
    assert answer(server, "a") == "first"
    assert server.metric("servingd_config_last_reload_successful") == 0
    file.write_text("")  # as while it is written
    server.wait_for("the complaint", lambda: "Cannot transition to" in server.log.read_text())
    assert answer(server, "a") == "first"
    file.write_text(text.format("b", folders / "b", "lookup_table"))
    server.wait_for("b", lambda: server.states("b") == {1: "AVAILABLE"})
    server.wait_for("the end of a", lambda: server.states("a") == {})
    server.wait_for("it", lambda: server.metric("servingd_config_last_reload_successful") == 1)
    assert server.log.read_text().count("reloaded: 1 models") == 1  # not at each reading


def test_the_file_undoes_a_reload_by_a_call_and_says_so(serve, folders):
    server = serve([entry("a", folders / "a")])
    server.model.HandleReloadConfigRequest(reload_request(entry("b", folders / "b")), timeout=60)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("a again", lambda: server.states("a").get(2) == "AVAILABLE")
    assert "a reload by a call is undone" in server.log.read_text()


def test_a_repository_cannot_be_reloaded(start, folders):
    (folders / "models").mkdir()
    shutil.copytree(folders / "a", folders / "models" / "a")
    server = start(f"--model_repository={folders / 'models'}").wait_until_ready()
    code, text = refusal(server, reload_request(entry("b", folders / "b")))
    assert code == "FAILED_PRECONDITION"
    assert "cannot be reloaded" in text


def test_administrators_may_have_a_port_of_their_own(serve, folders):
    from tests.e2e.process import free_port

    admin = free_port()
    server = serve([entry("a", folders / "a")], f"--admin_port={admin}")
    ask = reload_request(entry("b", folders / "b"))
    assert refusal(server, ask)[0] == "PERMISSION_DENIED"
    from tensorflow_serving.apis import model_service_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{admin}") as channel:
        model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(ask, timeout=30)
    assert answer(server, "b") == "one"
