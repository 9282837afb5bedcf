"""Every command against the real process: what people type, and what they see."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from servingd import __version__
from servingd.cli.exit_status import CANNOT_START
from servingd.cli.main import main
from tests.e2e.process import Process, lookup_table

pytestmark = [pytest.mark.tf, pytest.mark.e2e]


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command in this process: `run("models ls")` returns status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def begin(line: str, server: Process | None = None, *, stdin: str = ""):
        if server is not None:
            monkeypatch.setenv("SERVINGD_SERVER", f"localhost:{server.http_port}")
        if stdin:
            monkeypatch.setattr("sys.stdin", __import__("io").StringIO(stdin))
        capsys.readouterr()
        status = main(shlex.split(line))
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return begin


# Looking at a server ------------------------------------------------------------------------------


def test_status(run, server):
    status, shown, _ = run("status", server)
    assert status == 0
    assert shown.startswith(
        f"servingd {__version__} at http://localhost:{server.http_port}\nready\n"
    )
    assert re.search(r"half_plus_two +1 +AVAILABLE", shown)
    found = json.loads(run("status --json", server)[1])
    assert (found["ready"], found["why_not_ready"]) == (True, None)
    assert len(found["workers"]) == (0 if server.workers == 1 else server.workers)
    if server.workers > 1:
        assert "2 of 2 workers serve" in shown


def test_models(run, server):
    assert re.search(r"digit_names +1 +AVAILABLE", run("models ls", server)[1])
    listed = json.loads(run("models ls --json", server)[1])
    assert "half_plus_two" in {model["name"] for model in listed}
    status, shown, _ = run("models show half_plus_two", server)
    assert status == 0
    assert "version 1: AVAILABLE" in shown
    assert "on CPU:0, holding" in shown
    status, _, error = run("models show nobody", server)
    assert status == 1
    assert error == "Error: NOT_FOUND: Could not find any versions of model nobody\n"


def test_the_server_may_be_named_in_each_way(run, server):
    for address in (
        f"localhost:{server.http_port}",
        f"http://localhost:{server.http_port}",
        f"localhost:{server.port}",
        f"grpc://127.0.0.1:{server.port}",
    ):
        status, shown, error = run(f"predict half_plus_two '[1]' --server {address}")
        assert (status, shown, error) == (0, '{"y":[2.5]}\n', "")
    status, _, error = run(f"models ls --server localhost:{server.port}")
    assert status == 1
    assert "http" in error


def test_devices_and_workers(run, server):
    assert re.search(r"CPU:0 .* the host", run("devices", server)[1])
    assert json.loads(run("devices --json", server)[1])["versions"]
    shown = run("workers ls", server)[1]
    if server.workers == 1:
        assert shown == "the server has no worker processes: it runs with --workers=1\n"
    else:
        assert len(re.findall(r"serving", shown)) == server.workers


def test_waiting(run, server):
    assert run("models wait half_plus_two", server)[0] == 0
    assert run("models wait half_plus_two --version 1 --state AVAILABLE", server)[0] == 0
    status, _, error = run("models wait half_plus_two --version 7 --timeout_s 0.3", server)
    assert status == 4
    assert error == "Error: not AVAILABLE within 0.3 s: nothing\n"
    assert run("models wait half_plus_two --state GONE", server)[0] == 2


# Calling ------------------------------------------------------------------------------------------


def test_predict_takes_what_people_have(run, server, tmp_path):
    for name, text in (
        ("a.json", '{"x": [1, 2, 5]}'),
        ("b.jsonl", '{"x": 1}\n{"x": 2}\n{"x": 5}\n'),
        ("c.csv", "x\n1\n2\n5\n"),
    ):
        (tmp_path / name).write_text(text)
    np.save(tmp_path / "d.npy", np.float32([1, 2, 5]))
    np.savez(tmp_path / "e.npz", x=np.float32([1, 2, 5]))
    wanted = '{"y":[2.5,3.0,4.5]}\n'
    for file in sorted(tmp_path.iterdir()):
        assert run(f"predict half_plus_two @{file}", server) == (0, wanted, "")
    assert run("predict half_plus_two --input x='[1, 2, 5]'", server)[1] == wanted
    assert run(f"predict half_plus_two --input x=@{tmp_path}/d.npy", server)[1] == wanted
    assert run("predict half_plus_two -", server, stdin="[1, 2, 5]")[1] == wanted
    assert run("predict digit_names --input keys='[\"1\"]'", server)[1] == '{"values":["one"]}\n'
    status, shown, error = run("predict half_plus_two '[1]' -n 3 --version 1", server)
    assert (status, shown) == (0, '{"y":[2.5]}\n')
    assert error.startswith("3 calls: p50 ")


def test_predict_says_what_can_be_typed(run, server):
    status, shown, _ = run("predict half_plus_two", server)
    assert status == 0
    assert shown == (
        "input x: FLOAT [?]\nsuch as: servingd predict half_plus_two '{\"x\": [1.0]}'\n"
    )
    status, _, error = run("predict half_plus_two @/nowhere.json", server)
    assert (status, error) == (1, "Error: NOT_FOUND: there is no file /nowhere.json\n")
    status, _, error = run("predict half_plus_two {x}", server)
    assert status == 1
    assert "such as servingd predict half_plus_two" in error


def test_nobody_is_there(run):
    status, _, error = run("predict m '[1]' --server localhost:9")
    assert status == 3
    assert "nobody listens at localhost:9" in error


def test_bench(run, server, tmp_path):
    status, shown, _ = run(
        "bench half_plus_two --concurrency 1,2 --duration_s 0.3 --warm_s 0 "
        f"--report {tmp_path}/r.json --plot {tmp_path}/p.svg --compare grpc://localhost:"
        f"{server.port}",
        server,
    )
    assert status == 0
    assert "Ratios" in shown
    report = json.loads((tmp_path / "r.json").read_text())
    assert [len(found) for found in report["runs"].values()] == [2, 2]
    for found in report["runs"].values():
        assert all(each["calls_per_s"] > 10 and not each["errors"] for each in found)
    assert "<svg" in (tmp_path / "p.svg").read_text()
    status, shown, _ = run(
        "bench half_plus_two --rate 50 --concurrency 1 --duration_s 0.5 --warm_s 0 --json", server
    )
    (found,) = json.loads(shown)["runs"].values()
    assert status == 0
    assert found[0]["calls"] == 25
    assert run("bench nobody --duration_s 0.1", server)[0] == 1


# Files and the machine ----------------------------------------------------------------------------


def test_inspect_shows_calls_that_work(run, server, repository, tmp_path):
    for what in ("half_plus_two", repository / "half_plus_two"):
        found = json.loads(run(f"inspect {what} --json", server)[1])
        examples = found["examples"]["serving_default"]
        shell = examples["shell"].removeprefix("servingd ")
        assert run(shell, server) == (0, '{"y":[2.5]}\n', "")
        curl = examples["curl"].replace("localhost:8501", f"localhost:{server.http_port}")
        answer = subprocess.run(
            [*shlex.split(curl), "--silent"], capture_output=True, check=True, timeout=60
        )
        assert json.loads(answer.stdout) == {"outputs": [2.5]}
        for way in ("Python, with servingd.client", "Python, with tensorflow-serving-api"):
            program = examples[way].replace("localhost:8500", f"localhost:{server.port}")
            program = f"import os, sys; sys.modules['tensorflow'] = None\n{program}"
            if "api" in way:
                continue  # it imports TensorFlow: seconds; the guide's block is run
            done = subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert "2." in done.stdout
    shown = run(f"inspect {repository / 'half_plus_two'}", server)[1]
    assert "type: tensorflow, made with TensorFlow" in shown
    assert re.search(r"inputs +x +FLOAT +\[\?\]", shown)
    assert "operations:" in shown
    status, _, error = run(f"inspect {tmp_path}")
    assert status == 1
    assert "holds no model's files" in error


def test_validate(run, repository, tmp_path):
    status, shown, _ = run(f"validate {repository}")
    assert status == 0
    assert re.search(r"half_plus_two +1 +tensorflow +.*MiB +yes", shown)
    assert "the configuration is valid" in shown
    shutil.copytree(repository / "half_plus_two", tmp_path / "m")
    (tmp_path / "m" / "2").mkdir()
    (tmp_path / "m" / "2" / "saved_model.pb").write_bytes(b"half")
    status, shown, _ = run(f"validate {tmp_path}/m --json")
    assert status == 1
    found = json.loads(shown)
    assert "version 2 is incomplete" in found["problems"][0]
    assert [row["version"] for row in found["versions"]] == [1, 2]
    for flags, problem in (
        ("--port=70000", "--port: expected a port between 0 and 65535, got 70000"),
        (f"{tmp_path}/nothing", "is no folder"),
        (f"{tmp_path}/m --device=CPU:7", "there is no device CPU:7"),
        (f"{tmp_path}/m --enable_batching --batching_parameters_file=/nowhere", "/nowhere"),
    ):
        status, shown, _ = run(f"validate {flags}")
        assert status == 1
        assert problem in shown


def test_doctor(run, server, tmp_path):
    status, shown, _ = run(f"doctor --model_base_path=/nowhere --port={server.port} --json")
    assert status == 1
    found = {(each["check"], each["level"]): each for each in json.loads(shown)}
    assert f"{server.port} cannot be used" in found["ports", "bad"]["says"]
    assert "--port" in found["ports", "bad"]["cure"]
    assert found["permissions", "bad"]["says"] == "/nowhere does not exist"
    assert "with 0 GPUs" in found["TensorFlow", "good"]["says"]


def test_warm_up(run, repository, start, tmp_path):
    version = tmp_path / "m" / "half_plus_two" / "1"
    shutil.copytree(repository / "half_plus_two" / "1", version)
    (tmp_path / "requests.jsonl").write_text('{"x": [1, 2]}\n[3]\n{"instances": [1.0]}\n')
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    status, shown, _ = run(f"warmup make {version.parent} --from {tmp_path}/requests.jsonl")
    assert (status, shown) == (0, f"3 of 3 requests are in {file}\n")
    assert run(f"warmup check {version}")[:2] == (0, f"{file}: 3 predict\n")
    server = start(f"--model_repository={tmp_path / 'm'}").wait_until_ready()
    assert "Number of warmup records read: 3" in server.log.read_text()
    (tmp_path / "requests.jsonl").write_text('{"z": [1, 2]}\n')
    status, _, error = run(f"warmup make {version} --from {tmp_path}/requests.jsonl")
    assert status == 1
    assert "line 1: input x is missing" in error
    file.write_bytes(file.read_bytes()[:-3])
    assert run(f"warmup check {version}")[0] == 1


# Changing a server --------------------------------------------------------------------------------

YAML = """\
# Ours.
models:
- name: a   # the first
  base_path: {root}/a
"""


@pytest.fixture(params=[1, 2])
def changeable(request, start, tmp_path):
    """A server whose models servingd.yaml says: of one process, and with two workers."""
    for name in "ab":
        lookup_table(tmp_path / name / "1", name)
    lookup_table(tmp_path / "a" / "2", "newer")
    (tmp_path / "servingd.yaml").write_text(YAML.format(root=tmp_path))
    server = start(f"--servingd_config_file={tmp_path}/servingd.yaml", f"--workers={request.param}")
    return server.wait_until_ready()


def test_models_come_and_go_durably(run, changeable, tmp_path):
    file = tmp_path / "servingd.yaml"
    status, shown, _ = run(f"models add b {tmp_path}/b", changeable)
    assert (status, shown) == (0, "b was added; to wait for it: servingd models wait b\n")
    assert run("models wait b", changeable)[0] == 0
    assert run("predict b '[\"1\"]'", changeable)[1] == '{"values":["b"]}\n'
    written = YAML.format(root=tmp_path) + f"- name: b\n  base_path: {tmp_path}/b\n"
    assert file.read_text() == written
    status, _, error = run(f"models add b {tmp_path}/b", changeable)
    assert (status, error) == (1, "Error: ABORTED: model b is configured already\n")
    status, _, error = run("models add c relative", changeable)
    assert status == 1
    assert "models[2].base_path: expected an absolute path, got 'relative'" in error
    assert str(file) in error
    assert file.read_text() == written
    assert run("models rm a", changeable)[:2] == (0, "a was removed\n")
    changeable.wait_for("the end of a", lambda: changeable.get("/v1/models/a")[0] == 404)
    assert file.read_text().startswith("# Ours.\nmodels:\n- name: b\n")
    assert run("models rm a", changeable)[2] == "Error: NOT_FOUND: no model a is configured\n"


def test_labels_move_durably(run, changeable, tmp_path):
    file = tmp_path / "servingd.yaml"
    file.write_text(file.read_text() + "  version_policy: all\n")
    assert run("models reload", changeable)[0] == 0
    assert run("models wait a --version 1", changeable)[0] == 0
    assert run("labels set a stable 1", changeable)[:2] == (0, "stable of a is version 1\n")
    assert run("predict a '[\"1\"]' --label stable", changeable)[1] == '{"values":["a"]}\n'
    assert run("labels set a stable 2", changeable)[0] == 0
    assert run("predict a '[\"1\"]' --label stable", changeable)[1] == '{"values":["newer"]}\n'
    assert re.search(r"a +stable +2", run("labels ls", changeable)[1])
    assert json.loads(run("labels ls a --json", changeable)[1]) == {"a": {"stable": 2}}
    status, _, error = run("labels set a canary 9", changeable)
    assert status == 1
    assert "9" in error
    assert "canary" not in file.read_text()
    assert run("labels rm a stable", changeable)[0] == 0
    assert "# the first" in file.read_text()
    assert run("predict a '[\"1\"]' --label stable", changeable)[0] == 1


def test_a_server_without_the_file_says_where_models_are_changed(run, server):
    status, _, error = run("models add b /b", server)
    assert status == 1
    assert "--servingd_config_file" in error


def test_a_file_that_cannot_be_written_is_left_alone(run, changeable, tmp_path):
    file = tmp_path / "servingd.yaml"
    file.write_text("models: [{name: a, base_path: " + str(tmp_path) + "/a}]\n")
    status, _, error = run(f"models add b {tmp_path}/b", changeable)
    assert status == 1
    assert "change the file by hand" in error
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".serv")] == []


# Serving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "half_plus_two", "half_plus_two/1"])
def test_serve_looks_at_the_path(start, repository, tmp_path, below, run):
    shutil.copytree(repository / "half_plus_two", tmp_path / "models" / "half_plus_two")
    server = start(path=tmp_path / "models" / below, TMPDIR=str(tmp_path))
    server.wait_until_ready()
    assert run("predict half_plus_two '[1]'", server)[1] == '{"y":[2.5]}\n'
    assert server.terminate() == 0
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("servingd-")] == []


@pytest.mark.parametrize("wrong", ["--port={busy}", "--servingd_config_file=/nowhere"])
def test_a_start_that_fails_leaves_no_temporary_folder(tmp_path, wrong):
    lookup_table(tmp_path / "m")
    with socket.create_server(("", 0)) as busy:
        flag = wrong.format(busy=busy.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "servingd", "serve", f"{tmp_path}/m", flag],
            env={**os.environ, "TMPDIR": str(tmp_path), "SERVINGD_CACHE_DIR": str(tmp_path / "c")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == CANNOT_START, ended.stderr
    assert flag.partition("=")[2] in ended.stderr
    assert list(tmp_path.glob("servingd-*")) == []


@pytest.mark.parametrize("command", ["validate", "doctor"])
def test_looking_at_a_version_leaves_no_temporary_folder(run, tmp_path, monkeypatch, command):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    lookup_table(tmp_path / "m")
    status, shown, _ = run(f"{command} {tmp_path}/m")
    assert "does not exist" not in shown
    assert command == "doctor" or status == 0, shown
    assert list((tmp_path / "temporary").glob("servingd-*")) == []


def test_json_logs_and_one_address(start, tmp_path):
    lookup_table(tmp_path / "m" / "1")
    flags = ("--log_format=json", "--host=127.0.0.1", "--log_level=debug")
    server = start(*flags, path=tmp_path / "m")
    server.wait_until_ready()
    request = (
        f"curl -s localhost:{server.http_port}/v1/models/m/versions/9:predict -d {{}} "
        "-H x-request-id:abc"
    )
    subprocess.run(shlex.split(request), check=True, timeout=30, capture_output=True)

    def lines():
        return [json.loads(line) for line in server.log.read_text().splitlines()]

    server.wait_for("the line", lambda: any(line.get("request_id") == "abc" for line in lines()))
    (failed, *_) = [line for line in lines() if line.get("request_id") == "abc"]
    assert (failed["method"], failed["code"], failed["model"]) == ("predict", "NOT_FOUND", "m")
    (loaded,) = [line for line in lines() if line["message"].startswith("Successfully loaded")]
    assert (loaded["model"], loaded["version"], loaded["level"]) == ("m", 1, "info")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", loaded["time"])
    assert lines()[0]["message"].startswith(f"servingd {__version__}: gRPC on port")


# Help ---------------------------------------------------------------------------------------------


def test_help_for_everybody(run):
    for line in ("--help", "help", "help models", "models add -h", "help bench", "help serve"):
        status, shown, _ = run(line)
        assert status == 0
        assert "Usage" in shown or "usage" in shown
    assert "--model_base_path" in run("help serve")[1]
    assert "-- " not in run("--help")[1]
    for line in ("--version", "-V"):
        assert run(line)[:2] == (0, f"servingd {__version__}\n")
    assert run("nothing")[0] == 2
    assert "## servingd.yaml" in run("config-reference")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run, shell):
    assert "_SERVINGD_COMPLETE" in run(f"completion {shell}")[1]


def test_bash_completes_commands_and_flags(run, tmp_path):
    (tmp_path / "script").write_text(run("completion bash")[1])
    (tmp_path / "servingd").write_text(f'#!/bin/sh\nexec {sys.executable} -m servingd "$@"\n')
    (tmp_path / "servingd").chmod(0o755)
    for words, wanted in (("servingd mod", "models"), ("servingd serve --model_rep", "repository")):
        program = (
            f"PATH={tmp_path}:$PATH; source {tmp_path}/script; "
            f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; "
            "_servingd_completion servingd; echo ${COMPREPLY[@]}"
        )
        done = subprocess.run(
            ["bash", "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert wanted in done.stdout


def test_a_repository_of_triton_is_served(run, start, repository, tmp_path):
    version = tmp_path / "triton" / "half" / "1"
    shutil.copytree(repository / "half_plus_two" / "1", version / "model.savedmodel")
    (version.parent / "config.pbtxt").write_text('platform: "tensorflow_savedmodel"')
    status, shown, _ = run(f"import triton {tmp_path}/triton --to {tmp_path}/out")
    assert status == 0
    assert f"servingd serve --servingd_config_file={tmp_path}/out/servingd.yaml" in shown
    server = start(f"--servingd_config_file={tmp_path}/out/servingd.yaml").wait_until_ready()
    assert run("predict half '[1]'", server)[1] == '{"y":[2.5]}\n'


def test_models_of_a_repository_are_labelled_too(run, start, tmp_path):
    for version in (1, 2):
        lookup_table(tmp_path / "models" / "a" / str(version), f"v{version}")
    (tmp_path / "servingd.yaml").write_text(
        "models:\n- name: a\n  version_policy: all\n  version_labels: {stable: 1}\n"
    )
    server = start(
        f"--model_repository={tmp_path}/models", f"--servingd_config_file={tmp_path}/servingd.yaml"
    ).wait_until_ready()
    labelled = "predict a '[\"1\"]' --label stable"
    assert run(labelled, server)[1] == '{"values":["v1"]}\n'
    assert run("labels set a stable 2", server)[0] == 0
    assert run(labelled, server)[1] == '{"values":["v2"]}\n'
    status, _, error = run("labels set a stable 9", server)
    assert status == 1
    assert "not currently available" in error
    assert "stable: 2" in (tmp_path / "servingd.yaml").read_text()


def test_there_is_nothing_to_read_again(run, server):
    status, _, error = run("models reload", server)
    assert (status, "there is no configuration file" in error) == (1, True)
