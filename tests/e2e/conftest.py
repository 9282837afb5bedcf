"""Servers that tests share: one per gRPC transport, over one repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.process import Process
from tests.side_by_side import made_once

HYGIENE = ("test_http_hygiene", "test_grpc_hygiene", "test_fuzz")
"""Files about what a transport does with bytes: beside each transport, in one process."""
NATIVE_IS_ENOUGH = (
    "test_http_hygiene",
    "test_calls_that_loop_for_ever",
    *("test_doctor", "test_bench", "test_inspect_shows", "test_predict_takes_what_people"),
    *("test_kserves_own", "test_oip.py::test_a_wrong", "test_each_protocol"),
)
"""Files and tests in which it does not matter what carries gRPC, or that take long."""


def pytest_collection_modifyitems(items):
    """Run each test beside two servers: all else beside one process, and beside two workers."""
    items[:] = [item for item in items if not _is_superfluous(item.name, item.nodeid)]


def _is_superfluous(name: str, nodeid: str) -> bool:
    hygiene = any(file in nodeid for file in HYGIENE)
    native = any(word in nodeid for word in NATIVE_IS_ENOUGH)
    if "[grpcio" in name:
        return not hygiene or native
    return "[two-workers" in name and (hygiene or native)


@pytest.fixture(scope="session")
def repository(models, tmp_path_factory) -> Path:
    """A model repository with one version of each export, and a lookup table."""

    def make(root: Path) -> None:
        for export in models.iterdir():
            if export.is_dir() and export.name != "half_plus_three":
                shutil.copytree(export, root / export.name / "1")
        table = root / "digit_names" / "1"
        table.mkdir(parents=True)
        (table / "table.csv").write_text("0,zero\n1,one\n")

    return made_once(tmp_path_factory.getbasetemp(), "repository", make)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory) -> str:
    """Where servers that tests share keep the graphs of models that they share, too."""
    return str(made_once(tmp_path_factory.getbasetemp(), "graphs", lambda root: root.chmod(0o700)))


@pytest.fixture(scope="session", params=["native", "grpcio", "two-workers"])
def server(request, repository, graphs, tmp_path_factory):
    """A running server over the repository; tests leave it as they found it."""
    several = request.param == "two-workers"
    process = Process(
        tmp_path_factory.mktemp("server") / f"{request.param}.log",
        f"--model_repository={repository}",
        f"--grpc_transport={'grpcio' if several else request.param}",
        f"--workers={2 if several else 1}",
        "--max_request_bytes=100000000",
        SERVINGD_CACHE_DIR=graphs,
    )
    process.workers = 2 if several else 1
    try:
        process.wait_until_ready()
        yield process
        assert process.terminate() == 0, process.tail()
        assert "Traceback" not in process.log.read_text(), process.tail()
    finally:
        process.close()


@pytest.fixture
def start(tmp_path):
    """Start a server of one's own: `start(*flags)`."""
    started: list[Process] = []

    def begin(*flags: str, **options) -> Process:
        process = Process(tmp_path / f"server-{len(started)}.log", *flags, **options)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.close()
