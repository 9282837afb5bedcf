"""A server inside another program: no port is open."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading

import pytest

import servingd
from servingd.errors import DeadlineExceeded, InvalidConfig, NotFound, ServingError
from tests.e2e.process import lookup_table

pytestmark = [pytest.mark.tf, pytest.mark.e2e]


def test_models_are_served_and_swapped_without_a_port(tmp_path, monkeypatch):
    def no_port(*arguments, **options):
        raise AssertionError("a port is opened")

    monkeypatch.setattr(socket.socket, "bind", no_port)
    lookup_table(tmp_path / "m" / "1", "one")
    flags = {"model_repository": str(tmp_path), "file_system_poll_wait_seconds": 1}
    with servingd.Server(**flags, cache_dir=str(tmp_path / "_cache")) as server:
        server.wait_until_ready(30)
        assert server.states() == {"m": {1: "AVAILABLE"}}
        assert server.predict("m", {"keys": ["1"]})["values"].tolist() == [b"one"]
        assert server.predict("m", {"keys": [b"1"]}, outputs=["values"], version=1).keys() == {
            "values"
        }
        answers: set[bytes] = set()
        stopped = threading.Event()

        def call() -> None:
            while not stopped.is_set():
                answers.update(server.predict("m", {"keys": ["1"]})["values"].tolist())

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        lookup_table(tmp_path / "m" / "2", "two")
        for _ in range(600):
            if b"two" in answers:
                break
            stopped.wait(0.05)
        stopped.set()
        for caller in callers:
            caller.join(10)
        assert answers == {b"one", b"two"}
        with pytest.raises(NotFound, match="nobody"):
            server.predict("nobody", {})
        with pytest.raises(ServingError, match="input size does not match"):
            server.predict("m", {})
    assert server.states()["m"][2] == "END"


def test_a_saved_model_in_a_program_of_its_own(repository, tmp_path):
    shutil.copytree(repository / "half_plus_two", tmp_path / "m" / "half_plus_two")
    code = (
        "import servingd\n"
        f"with servingd.Server(model_repository='{tmp_path}/m', cache_dir='{tmp_path}/c') as s:\n"
        "    s.wait_until_ready(60)\n"
        "    print(s.predict('half_plus_two', {'x': [1, 2]})['y'].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "[2.5, 3.0]\n"


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(InvalidConfig, match="did you mean model_repository"):
        servingd.Server(model_repositry="/m")
    with (
        servingd.Server(model_base_path=f"{tmp_path}/nothing") as server,
        pytest.raises(DeadlineExceeded, match="not available: default"),
    ):
        server.wait_until_ready(0.2)
    with pytest.raises(AttributeError):
        servingd.nothing  # noqa: B018
