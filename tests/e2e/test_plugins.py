"""Servable types of other people: they are found, they serve, and a bad one harms itself alone."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import predict_pb2

from tests.e2e.process import KEYS, lookup_table, request, to_array

pytestmark = pytest.mark.e2e

MISBEHAVING = f"--plugin={Path(__file__).parent / 'plugins' / 'misbehaving.py'}:BadPlatform"
X = {"x": np.array([1.0, 2.0], np.float32)}

NOT_LOADED = {
    "raises in a load": "RuntimeError: broken",
    "exits in a load": "SystemExit: 3",
    "hangs in a load": "has not ended within 8 s",
    "has no signatures": "expected a mapping of names to Signature",
    "is no servable": "AttributeError",
}
"""What a version's status says, by its misbehaviour."""
NOT_COMPLETE = {
    "raises when it is checked": "broken",
    "exits when it is checked": "3",
}
FAILED_CALLS = {
    "raises in a call": "RuntimeError: broken",
    "exits in a call": "SystemExit: 3",
    "answers of another type": "output y: expected float, got an array of float64",
    "answers of another shape": "output y: expected the shape [-1], got [2,1]",
    "answers of other names": "expected the outputs y, got z",
    "answers nothing": "expected a mapping of outputs, got NoneType",
    "writes to its inputs": "read-only",
    "never completes": "the servable did not complete the call",
}
"""What a call is answered with, by its model's misbehaviour; always INTERNAL."""
NEVER_ANSWERED = (
    "hangs in a call",
    "keeps the call and never completes",
    "blocks its event loop",
)
FINE = (
    "completes twice",
    "is slow but asynchronous",
    "hangs at its end",
    "raises at its end",
)


def name_of(how: str) -> str:
    return how.replace(" ", "_")


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    lookup_table(root / "table" / "1")
    hows = (*NOT_LOADED, *NOT_COMPLETE, *FAILED_CALLS, *NEVER_ANSWERED, *FINE)
    for how in (*hows, "hangs when it is checked", "hangs with a time limit"):
        version = root / name_of(how) / "1"
        version.mkdir(parents=True)
        (version / "how.txt").write_text(how)
    return root


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    from tests.e2e.process import Process

    process = Process(
        tmp_path_factory.mktemp("server") / "log",
        f"--model_repository={repository}",
        "--load_timeout_s=8",
        "--max_num_load_retries=0",
        "--file_system_poll_wait_seconds=1",
        "--drain_timeout_s=1",
        "--ready_when=table",
        MISBEHAVING,
    )
    try:
        process.wait_until_ready()
        yield process
        started = time.monotonic()
        assert process.terminate() == 0, process.tail()
        assert time.monotonic() - started < 25
    finally:
        process.close()


def status(server, model: str) -> dict:
    """The newest version's status, over HTTP; empty before there is one."""
    found = json.loads(server.get(f"/v1/models/{name_of(model)}")[1])
    return found.get("model_version_status", [{"state": ""}])[0]


def available(server, how: str) -> None:
    server.wait_for(how, lambda: status(server, how)["state"] == "AVAILABLE", 40)


def healthy(server) -> None:
    """Another model answers at once."""
    started = time.monotonic()
    assert server.predict("table", KEYS)["values"][0] == b"one"
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("how", NOT_LOADED)
def test_what_cannot_be_loaded_says_why(server, how):
    def ended():
        found = status(server, how)
        return found["state"] == "END" and found["status"]["error_message"]

    assert NOT_LOADED[how] in server.wait_for(how, ended, 40)
    healthy(server)


@pytest.mark.parametrize("how", NOT_COMPLETE)
def test_what_cannot_be_checked_is_not_loaded(server, how):
    def reason():
        found = status(server, how)
        return found["state"] == "START" and found["status"]["error_message"]

    assert NOT_COMPLETE[how] in server.wait_for(how, reason)
    healthy(server)


@pytest.mark.parametrize("how", FAILED_CALLS)
def test_a_call_that_goes_wrong_is_an_error_that_names_it(server, how):
    available(server, how)
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            server.predict(name_of(how), X, timeout=10)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert FAILED_CALLS[how] in caught.value.details()
    healthy(server)


@pytest.mark.parametrize("how", NEVER_ANSWERED)
def test_a_call_that_hangs_stops_no_other_model(server, how):
    available(server, how)
    for _ in range(5):  # more than it has threads
        with pytest.raises(grpc.RpcError) as caught:
            server.predict(name_of(how), X, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        healthy(server)
    assert server.get("/livez")[0] == 200


def test_a_time_limit_answers_though_the_code_goes_on(server):
    available(server, "hangs with a time limit")
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("hangs_with_a_time_limit", X, timeout=10)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "its time limit of 0.3 s" in caught.value.details()
    assert time.monotonic() - started < 1.4


def test_a_call_that_is_completed_twice_is_answered_once(server):
    available(server, "completes twice")
    for _ in range(20):
        np.testing.assert_array_equal(server.predict("completes_twice", X)["y"], X["x"])


def test_coroutines_wait_together(server):
    available(server, "is slow but asynchronous")
    server.predict("is_slow_but_asynchronous", X)
    started = time.monotonic()
    threads = [
        threading.Thread(target=server.predict, args=("is_slow_but_asynchronous", X))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - started < 1.2, "eight calls of .2 s, one after the other"


def test_an_end_that_goes_wrong_keeps_no_other_version_from_ending(server, repository):
    for how in ("hangs at its end", "raises at its end"):
        available(server, how)
        (repository / name_of(how)).rename(repository / f".{name_of(how)}")
    lookup_table(repository / "table" / "2", one="two")
    server.wait_for("the switch", lambda: server.predict("table", KEYS)["values"][0] == b"two")
    server.wait_for(
        "the end of version 1", lambda: server.states("table").get(1) in (None, "END"), 30
    )
    (repository / "table" / "3").mkdir()
    (repository / "table" / "3" / "table.csv").write_text("1,one\n")
    server.wait_for("the switch", lambda: server.predict("table", KEYS)["values"][0] == b"one")


def test_a_crash_takes_its_own_model_only_with_several_workers(start, tmp_path):
    root = tmp_path / "models"
    lookup_table(root / "table" / "1")
    for how in ("dies in a load", "dies in a call"):
        version = root / name_of(how) / "1"
        version.mkdir(parents=True)
        (version / "how.txt").write_text(how)
    server = start(
        f"--model_repository={root}", "--workers=2", "--ready_when=table", MISBEHAVING
    ).wait_until_ready()
    server.wait_for("the quarantine", lambda: _quarantined(server, "dies in a load"), 90)
    available(server, "dies in a call")
    server.wait_for(
        "the other one", lambda: _die(server) or _quarantined(server, "dies in a call"), 90
    )
    server.wait_for("another model", lambda: server.get("/v1/models/table")[0] == 200, 60)
    server.wait_for("the end", lambda: status(server, "dies in a call")["state"] == "END", 60)
    assert "exit status 3" in status(server, "dies in a call")["status"]["error_message"]


def _quarantined(server, how: str) -> bool:
    return f"{{name: {name_of(how)} version: 1}} is quarantined" in server.log.read_text()


def _die(server) -> None:
    with pytest.raises(grpc.RpcError):
        server.predict("dies_in_a_call", X, timeout=10)


# Found --------------------------------------------------------------------------------------------

PACKAGE = """
from pathlib import Path

import numpy as np

from servingd.servables.plugin import Platform, Servable, signature


class Upper(Servable):
    signatures = {
        "serving_default": signature(
            inputs={"text": ("STRING", None)}, outputs={"upper": ("STRING", None)}
        )
    }

    def __init__(self, suffix):
        self.suffix = suffix

    def predict(self, signature, inputs):
        text = inputs["text"]
        upper = np.empty(text.shape, object)
        upper.ravel()[:] = [each.upper() + self.suffix for each in text.ravel()]
        return {"upper": upper}


class UpperPlatform(Platform):
    name = "upper"
    files = ("suffix.txt",)

    @classmethod
    def load(cls, version):
        return Upper(Path(version.path, "suffix.txt").read_bytes())
"""
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "upper-servables"
version = "1.0"

[project.entry-points."servingd.platforms"]
upper = "upper_servables:UpperPlatform"

[tool.hatch.build.targets.wheel]
packages = ["upper_servables"]
"""


@pytest.fixture
def environment(tmp_path) -> Path:
    """A Python of its own that has servingd, and a package with a servable type."""
    project = tmp_path / "project"
    (project / "upper_servables").mkdir(parents=True)
    (project / "upper_servables" / "__init__.py").write_text(PACKAGE)
    (project / "pyproject.toml").write_text(PROJECT)
    wheels, fresh = tmp_path / "wheels", tmp_path / "venv"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    subprocess.run(
        (*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", wheels, project), check=True
    )
    subprocess.run((sys.executable, "-m", "venv", "--without-pip", fresh), check=True)
    (site,) = fresh.glob("lib/python*/site-packages")
    here = Path(np.__file__).parent.parent
    import servingd

    (site / "servingd.pth").write_text(f"{Path(servingd.__file__).parent.parent}\n{here}\n")
    (wheel,) = wheels.glob("*.whl")
    subprocess.run((*pip, "install", "--no-deps", "--target", site, wheel), check=True)
    return fresh / "bin" / "python"


def test_a_package_with_a_type_is_found_and_serves(environment, tmp_path, monkeypatch, start):
    version = tmp_path / "models" / "shout" / "1"
    version.mkdir(parents=True)
    (version / "suffix.txt").write_text("!")
    monkeypatch.setattr("tests.e2e.process.sys.executable", str(environment))
    server = start(f"--model_repository={tmp_path / 'models'}").wait_until_ready()
    answer = server.predict("shout", {"text": np.array([b"hello"], object)})
    assert answer["upper"].tolist() == [b"HELLO!"]
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    connection.request("POST", "/v1/models/shout:predict", json.dumps({"instances": ["hello"]}))
    assert json.loads(connection.getresponse().read()) == {"predictions": ["HELLO!"]}
    connection.close()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--plugin=nothing_of_this_name:C", "nothing_of_this_name:C cannot be imported"),
        ("--plugin=json:JSONDecoder", "expected a subclass of servingd.servables.plugin.Platform"),
        ("--plugin=/no/such/file.py:C", "there is no file /no/such/file.py"),
    ],
)
def test_a_plugin_that_is_none_ends_the_start(start, tmp_path, flag, said):
    lookup_table(tmp_path / "models" / "table" / "1")
    server = start(f"--model_repository={tmp_path / 'models'}", flag)
    assert server.process.wait(30) != 0
    assert said in server.log.read_text()


# Python code --------------------------------------------------------------------------------------

MODEL = """
from servingd.servables.plugin import Servable, signature

from . import numbers_of_ours


class Scale(Servable):
    signatures = {{
        "serving_default": signature(
            inputs={{"x": ("FLOAT", None)}}, outputs={{"y": ("FLOAT", None)}}
        )
    }}

    def __init__(self, version):
        self.factor = {factor} * version.options.get("factor", 1)

    def predict(self, signature, inputs):
        return {{"y": inputs["x"] * self.factor + numbers_of_ours.ZERO}}


servable = Scale
"""


def write_python(version: Path, factor: float) -> None:
    version.mkdir(parents=True)
    (version / "numbers_of_ours.py").write_text("import numpy\nZERO = numpy.float32(0)\n")
    (version / "model.py").write_text(MODEL.format(factor=factor))


def test_versions_of_python_code_are_swapped_like_any(start, tmp_path):
    root = tmp_path / "models"
    write_python(root / "scale" / "1", 2)
    settings = tmp_path / "servingd.yaml"
    settings.write_text(
        f"""
model_repository: {root}
allow_python_models: true
file_system_poll_wait_seconds: 1
models:
- name: scale
  platform_options: {{arguments: {{factor: 10}}, time_limit_s: 5}}
"""
    )
    server = start(f"--servingd_config_file={settings}").wait_until_ready()
    assert server.predict("scale", X)["y"].tolist() == [20.0, 40.0]
    write_python(root / "scale" / "2", 3)
    server.wait_for("the switch", lambda: server.predict("scale", X)["y"].tolist() == [30.0, 60.0])


def test_python_code_is_not_run_unless_it_is_allowed(start, tmp_path):
    write_python(tmp_path / "models" / "scale" / "1", 2)
    server = start(
        f"--model_repository={tmp_path / 'models'}", "--max_num_load_retries=0", "--ready_when=any"
    )
    server.wait_for("the refusal", lambda: status(server, "scale")["state"] == "END")
    assert "--allow_python_models" in status(server, "scale")["status"]["error_message"]


def test_options_that_a_type_does_not_take_are_told_at_the_start(start, tmp_path):
    write_python(tmp_path / "models" / "scale" / "1", 2)
    settings = tmp_path / "servingd.yaml"
    settings.write_text(
        f"""
models:
- name: scale
  base_path: {tmp_path / "models" / "scale"}
  platform: python
  platform_options: {{time_limit_s: soon}}
"""
    )
    server = start(f"--servingd_config_file={settings}")
    assert server.process.wait(30) != 0
    assert "platform_options: time_limit_s: expected" in server.log.read_text()


STREAM = """
import asyncio
from pathlib import Path

import numpy as np

from servingd.servables.plugin import Servable, signature


class Count(Servable):
    signatures = {{
        "serving_default": signature(inputs={{"to": ("INT32", [])}}, outputs={{"n": ("INT32", [])}})
    }}

    def __init__(self, version):
        self.ended = Path(version.path).parent / "ended"

    {asynchronous}def predict(self, signature, inputs):
        try:
            for n in range(int(inputs["to"])):
                {pause}
                yield {{"n": np.int32(n)}}
                if n == 5:
                    raise RuntimeError("no more than six")
        finally:
            self.ended.touch()


servable = Count
"""


@pytest.mark.parametrize("asynchronous", [False, True], ids=["generator", "async generator"])
def test_generators_stream(start, tmp_path, asynchronous):
    version = tmp_path / "models" / "count" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(
        STREAM.format(
            asynchronous="async " if asynchronous else "",
            pause="await asyncio.sleep(0.001)" if asynchronous else "pass",
        )
    )
    server = start(
        f"--model_repository={tmp_path / 'models'}", "--allow_python_models"
    ).wait_until_ready()
    streamed = server.channel.unary_stream(
        "/servingd.PredictionStream/PredictStreamed",
        predict_pb2.PredictRequest.SerializeToString,
        predict_pb2.PredictResponse.FromString,
    )

    def parts(to: int):
        return streamed(request("count", {"to": np.int32(to)}), timeout=20)

    assert [to_array(part.outputs["n"]).item() for part in parts(4)] == [0, 1, 2, 3]
    assert server.predict("count", {"to": np.int32(4)})["n"] == 3, "Predict has the last part"
    with pytest.raises(grpc.RpcError) as caught:
        list(parts(10))
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INTERNAL,
        "RuntimeError: no more than six",
    )
    ended = tmp_path / "models" / "count" / "ended"
    ended.unlink()
    stream = parts(10)
    next(stream)
    stream.cancel()
    server.wait_for("its end", ended.exists)
