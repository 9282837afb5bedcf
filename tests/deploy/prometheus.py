"""A Prometheus that scrapes one server."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

from tests.deploy.kit import DEPLOY
from tests.e2e.process import free_port


class Prometheus:
    """One Prometheus with our own configuration, but for the server's address and the intervals."""

    def __init__(self, folder: Path, target: str) -> None:
        self.target = target
        self._url = f"http://127.0.0.1:{free_port()}/api/v1/"
        configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "2s", "evaluation_interval": "1s"}
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
