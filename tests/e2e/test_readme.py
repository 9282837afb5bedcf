"""README is short, and names what it has to; what it shows is run by `tests/docs`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import servingd
from servingd.config.flags.parser import FLAGS

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

ROOT = Path(servingd.__file__).parents[1]
PREDICT = (sys.executable, "-m", "servingd", "predict")
README = (ROOT / "README.md").read_text()
LINES = 150


def test_the_prediction_from_the_shell_tells_what_went_wrong(server):
    result = subprocess.run(
        [*PREDICT, "nobody", "{}", f"--server=grpc://localhost:{server.port}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == "Error: NOT_FOUND: Servable not found for request: Latest(nobody)\n"


def test_the_changelog_is_of_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "servingd" / "CHANGELOG.md").read_text(), re.M)[1]
    assert newest == servingd.__version__


def test_make_run_and_make_test_stand_first():
    assert re.findall(r"```\n(make \w+)\n```", README)[:2] == ["make run", "make test"]


def test_it_is_short():
    assert len(README.splitlines()) <= LINES


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/startupz", "/readyz"])
def test_the_probes_that_the_reference_names(server, path):
    assert path in (ROOT / "docs" / "guides" / "reference" / "routes.md").read_text()
    assert server.get(path) == (200, "ok\n")


def test_the_flags_that_it_names_are_there():
    of_bench = {"compare", "plot", "server"}
    named = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", README))
    assert named - of_bench <= FLAGS.keys()


@pytest.mark.parametrize("name", re.findall(r"`([a-z_]+)` \|$", README, re.M))
def test_the_benchmarks_that_it_names_are_there(name):
    assert (ROOT / "tests" / "bench" / f"{name}.py").exists()
