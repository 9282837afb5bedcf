"""A real servingd that has answered calls, and a Prometheus that has scraped it."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests import exports
from tests.e2e.process import Process, free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
MODELS_THAT_SERVE = "names,half_plus_two"


class Prometheus:
    """One Prometheus with our own configuration, but for the server's address and the intervals."""

    def __init__(self, folder: Path, target: str) -> None:
        self.target = target
        self._url = f"http://127.0.0.1:{free_port()}/api/v1/"
        configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(DEPLOY / "prometheus" / "alerts.yml")]
        (job,) = (j for j in configuration["scrape_configs"] if j["job_name"] == "servingd")
        job["static_configs"] = [{"targets": [target]}]
        configuration["scrape_configs"] = [job]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(configuration))
        command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address={urllib.parse.urlsplit(self._url).netloc}"]
        self._log = folder / "log"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def ask(self, what: str, **parameters: str):
        """What its HTTP API answers; urllib.error.HTTPError if the query is wrong."""
        url = f"{self._url}{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)["data"]

    def query(self, expression: str) -> list:
        """The series that an expression has now."""
        return self.ask("query", query=expression)["result"]

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self._log.read_text()
            try:
                if self.query(expression):
                    return
            except OSError:
                pass  # it does not listen yet
            time.sleep(0.1)  # the next scrape
        raise AssertionError(f"never: {expression}\n{self._log.read_text()[-2000:]}")

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """A lookup table, a SavedModel, a table that cannot be loaded, and half a SavedModel."""
    root = tmp_path_factory.mktemp("repository")
    for name, text in (("names", "1,one\n2,two\n"), ("broken", "one column\n")):
        version = root / name / "1"
        version.mkdir(parents=True)
        (version / "table.csv").write_text(text)
    exports.half_plus_two(root / "half_plus_two" / "1")
    shutil.copytree(root / "half_plus_two" / "1", root / "half_plus_two" / "2")
    index = root / "half_plus_two" / "2" / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:20])
    return root


@pytest.fixture(scope="session")
def server(repository, tmp_path_factory):
    """A server of two workers."""
    process = Process(
        tmp_path_factory.mktemp("server") / "log",
        f"--model_repository={repository}",
        f"--ready_when={MODELS_THAT_SERVE}",
        "--max_num_load_retries=0",
        "--workers=2",
    )
    try:
        yield process.wait_until_ready()
    finally:
        process.close()


def make_calls(server: Process) -> None:
    """A few good calls, and a few bad ones."""
    for model, body, status in (
        ("names", {"instances": ["1", "2"]}, 200),
        ("names", {"instances": [{"nothing": 1}]}, 400),
        ("half_plus_two", {"instances": [1.0, 2.0]}, 200),
        ("nobody_has_it", {"instances": [1.0]}, 404),
    ):
        for _ in range(4):  # connections go to either worker
            connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
            connection.request("POST", f"/v1/models/{model}:predict", json.dumps(body))
            assert connection.getresponse().status == status
            connection.close()


@pytest.fixture(scope="session")
def prometheus(server, tmp_path_factory):
    if not shutil.which("prometheus"):
        pytest.skip("prometheus is not installed (apt-get install prometheus)")
    make_calls(server)
    found = Prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{server.http_port}")
    try:
        found.wait_for('servingd_requests_total{model="half_plus_two"}')
        make_calls(server)
        found.wait_for('rate(servingd_requests_total{model="half_plus_two",code="OK"}[20s]) > 0')
        yield found
    finally:
        found.close()
