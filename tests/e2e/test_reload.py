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

from tests.e2e.process import request
from tests.exports import copy_version

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

X = np.float32([1, 2])


def entry(name, base_path, labels=None, versions=(), platform="tensorflow", **fields):
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
def folders(models, tmp_path):
    """Model `a` with versions 1 and 2, model `b` with version 1."""
    for name, version, source in (
        ("a", 1, "half_plus_two"),
        ("a", 2, "half_plus_three"),
        ("b", 1, "half_plus_two"),
    ):
        shutil.copytree(models / source, tmp_path / name / str(version))
    return tmp_path


@pytest.fixture
def server(start, folders):
    """A server of model `a`, version 1."""
    file = folders / "models.config"
    first = model_server_config_pb2.ModelServerConfig()
    first.model_config_list.config.append(entry("a", folders / "a", versions=[1]))
    file.write_text(text_format.MessageToString(first))
    return start(f"--model_config_file={file}", "--max_num_load_retries=0").wait_until_ready()


def labelled(process, label, model="a"):
    ask = request(model, {"x": X})
    ask.model_spec.version_label = label
    return process.prediction.Predict(ask, timeout=10)


def test_a_reload_returns_when_its_new_models_answer(server, folders):
    answer = server.model.HandleReloadConfigRequest(
        reload_request(
            entry("b", folders / "b"),
            metrics=["/tensorflow/serving/request_count", "/no/such/metric"],
        ),
        timeout=30,
    )
    assert answer.status.error_code == 0
    assert {m.name: m.int64_value_increase for m in answer.metric} == {
        "/tensorflow/serving/request_count": 0,
        "/no/such/metric": 0,
    }
    assert server.predict("b", {"x": X})["y"].tolist() == [2.5, 3.0]
    server.wait_for("the end of a", lambda: server.states("a") == {})
    with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Latest\(a\)"):
        server.predict("a", {"x": X})
    # It may come back, and its old end neither satisfies nor fails the wait.
    server.model.HandleReloadConfigRequest(
        reload_request(entry("a", folders / "a"), entry("b", folders / "b")), timeout=30
    )
    assert server.predict("a", {"x": X})["y"].tolist() == [3.5, 4.0]


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
        lambda f: reload_request(entry("a", f / "a", platform="lookup_table")),
        "INVALID_ARGUMENT",
        "Illegal to change a model's platform. For model a platform was tensorflow and new "
        "platform requested is lookup_table",
    ),
    "no such platform": (
        lambda f: reload_request(entry("b", f / "b", platform="torch")),
        "INVALID_ARGUMENT",
        "Model b requests unsupported platform torch; known: lookup_table, tensorflow",
    ),
    "a label to a version that is not there": (
        lambda f: reload_request(entry("a", f / "a", {"stable": 7})),
        "FAILED_PRECONDITION",
        "Request to assign label to version 7 of model a, which is not currently available for "
        "inference",
    ),
}


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_a_wrong_reload_changes_nothing(start, folders, transport):
    server = start(
        "--model_name=a", f"--model_base_path={folders / 'a'}", f"--grpc_transport={transport}"
    ).wait_until_ready()
    for make, code, text in WRONG.values():
        assert refusal(server, make(folders)) == (code, text)
    assert server.predict("a", {"x": X})["y"].tolist() == [3.5, 4.0]
    assert server.states("b") == {}


def test_a_model_that_cannot_come_is_told_at_once_and_blocks_nobody(server, folders):
    (folders / "empty").mkdir()
    (folders / "broken" / "1").mkdir(parents=True)
    (folders / "broken" / "1" / "saved_model.pb").write_bytes(b"\x0a\x02\x08\x01")
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
    assert server.predict("b", {"x": X})["y"].tolist() == [2.5, 3.0]
    copy_version(folders / "b" / "1", folders / "empty" / "1")
    server.wait_for("empty", lambda: server.states("empty") == {1: "AVAILABLE"})


def test_a_model_that_fails_to_load_is_told_with_its_error(server, models, folders):
    broken = folders / "broken" / "1"
    shutil.copytree(models / "half_plus_two", broken)
    shard = next((broken / "variables").glob("*.data*"))
    shard.write_bytes(b"x" * shard.stat().st_size)
    code, text = refusal(
        server,
        reload_request(entry("a", folders / "a", versions=[1]), entry("m", folders / "broken")),
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


def test_labels_of_the_first_configuration_lead_to_their_versions_when_these_come(
    start, models, folders
):
    file = folders / "models.config"
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.append(
        entry("a", folders / "a", {"stable": 1, "canary": 3}, versions=[1, 3])
    )
    file.write_text(text_format.MessageToString(config))
    server = start(
        f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1"
    ).wait_until_ready()
    assert labelled(server, "stable").model_spec.version.value == 1
    with pytest.raises(grpc.RpcError, match=r"Specific\(a, 3\)"):
        labelled(server, "canary")
    copy_version(models / "half_plus_three", folders / "a" / "3")
    server.wait_for("version 3", lambda: server.states("a").get(3) == "AVAILABLE")
    assert labelled(server, "canary").model_spec.version.value == 3


def test_a_new_label_may_wait_for_its_version_where_that_is_allowed(start, models, folders):
    server = start(
        "--model_name=a",
        f"--model_base_path={folders / 'a'}",
        "--allow_version_labels_for_unavailable_models",
    ).wait_until_ready()
    server.model.HandleReloadConfigRequest(
        reload_request(entry("a", folders / "a", {"next": 3, "now": 2})), timeout=30
    )
    assert refusal(server, reload_request(entry("a", folders / "a", {"next": 3, "now": 3}))) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 3 of model a, which is not currently available for "
        "inference",
    )
    copy_version(models / "half_plus_two", folders / "a" / "3")
    server.wait_for("version 3", lambda: server.states("a").get(3) == "AVAILABLE")
    assert labelled(server, "next").model_spec.version.value == 3


def test_a_polled_file_is_applied_and_a_broken_one_is_not(start, folders):
    file = folders / "models.config"
    text = 'model_config_list {{ config {{ name: "{0}" base_path: "{1}" model_platform: "{2}" }} }}'
    file.write_text(text.format("a", folders / "a", "tensorflow"))
    server = start(
        f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1"
    ).wait_until_ready()
    file.write_text("model_config_list {")
    server.wait_for(
        "the complaint", lambda: "Failed to read ModelServerConfig file" in server.log.read_text()
    )
    assert server.predict("a", {"x": X})["y"].tolist() == [3.5, 4.0]
    assert server.metric("servingd_config_last_reload_successful") == 0
    file.write_text("")  # as while it is written
    server.wait_for("the complaint", lambda: "Cannot transition to" in server.log.read_text())
    assert server.predict("a", {"x": X})["y"].tolist() == [3.5, 4.0]
    file.write_text(text.format("b", folders / "b", "tensorflow"))
    server.wait_for("b", lambda: server.states("b") == {1: "AVAILABLE"})
    server.wait_for("the end of a", lambda: server.states("a") == {})
    server.wait_for("it", lambda: server.metric("servingd_config_last_reload_successful") == 1)
    assert server.log.read_text().count("reloaded: 1 models") == 1  # not at each reading


def test_the_file_undoes_a_reload_by_a_call_and_says_so(start, folders):
    file = folders / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "a" base_path: "{folders / "a"}" '
        'model_platform: "tensorflow" } }'
    )
    server = start(f"--model_config_file={file}").wait_until_ready()
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


def test_administrators_may_have_a_port_of_their_own(start, folders):
    from tests.e2e.process import free_port

    admin = free_port()
    server = start(
        "--model_name=a", f"--model_base_path={folders / 'a'}", f"--admin_port={admin}"
    ).wait_until_ready()
    ask = reload_request(entry("b", folders / "b"))
    assert refusal(server, ask)[0] == "PERMISSION_DENIED"
    from tensorflow_serving.apis import model_service_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{admin}") as channel:
        model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(ask, timeout=30)
    assert server.predict("b", {"x": X})["y"].tolist() == [2.5, 3.0]
