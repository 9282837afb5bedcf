"""The compose file by Compose's own check, and by what it is for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from servingd import __version__
from tests.deploy.command_lines import FOR_THE_REST, configuration, stop_takes
from tests.deploy.kit import DEPLOY

FILE = DEPLOY / "compose.yml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES = COMPOSE["services"]


def compose() -> list[str] | None:
    """The command that is Compose, if this machine has it; neither form needs a daemon here."""
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def test_compose_understands_it() -> None:
    command = compose()
    if command is None:
        pytest.skip("Compose is not installed (apt-get install docker-compose)")
    done = subprocess.run(
        [*command, "-f", FILE, "config", "-q"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_little_and_says_whether_it_is_well(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_mounts_is_there(name: str) -> None:
    for mount in SERVICES[name]["volumes"]:
        source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", mount).split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / source).exists(), mount
            assert mount.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


def test_compose_waits_until_the_server_has_drained() -> None:
    server = SERVICES["servingd"]
    config = configuration(server["command"])
    assert int(server["stop_grace_period"].removesuffix("s")) >= stop_takes(config) + FOR_THE_REST
    assert (config.port, config.rest_api_port) == (8500, 8501)
    assert server["image"] == f"servingd:{__version__}"


def test_the_parts_find_each_other() -> None:
    def read(path: str):
        return yaml.safe_load((DEPLOY / path).read_text())

    targets = {
        target
        for job in read("prometheus/prometheus.yml")["scrape_configs"]
        for one in job["static_configs"]
        for target in one["targets"]
    }
    assert targets == {"servingd:8501", "localhost:9090"}
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("grafana/provisioning/dashboards/servingd.yml")["providers"]
    dashboards = {
        Path(mount.split(":")[1]).parent
        for mount in SERVICES["grafana"]["volumes"]
        if mount.split(":")[0].endswith(".json")
    }
    assert dashboards == {Path(provider["options"]["path"])}
