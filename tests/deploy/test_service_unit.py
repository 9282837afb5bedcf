"""The systemd unit by systemd's own check, and what it says about stopping."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from tests.deploy.command_lines import FOR_THE_REST, configuration, stop_takes
from tests.deploy.kit import DEPLOY

UNIT = DEPLOY / "systemd" / "servingd.service"


def settings() -> dict[str, str]:
    """The unit's settings; of one that is there several times the last."""
    lines = (line for line in UNIT.read_text().splitlines() if not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines if "=" in line)


needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed (systemd)"
)


@needs_systemd
def test_systemd_understands_it(tmp_path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/servingd/bin/servingd", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_it_is_hardened(tmp_path) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", UNIT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-500:]


def test_systemd_waits_until_the_server_has_drained() -> None:
    program, serve, *flags = shlex.split(settings()["ExecStart"])
    assert (program, serve) == ("/opt/servingd/bin/servingd", "serve")
    assert int(settings()["TimeoutStopSec"]) >= stop_takes(configuration(flags)) + FOR_THE_REST


def test_it_reloads_and_may_open_many_files() -> None:
    assert settings()["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(settings()["LimitNOFILE"]) >= 65536
    assert settings()["User"] == settings()["Group"] == "servingd"
