"""The Dockerfile by the rules that image linters check, and what the entry point runs."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / ".ci" / "image"


def instructions() -> list[tuple[str, str]]:
    """Keyword and arguments, lines that go on put together, comments left out."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (keyword, " ".join(rest.split()))
        for keyword, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions by the name of their stage, those of the stages below it first."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for keyword, rest in instructions():
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found[name] = [*found.get(base, [("FROM", base)])]
        else:
            current.append((keyword, rest))
    return found


FINAL = ("cpu", "gpu")


def test_every_stage_has_a_name_and_the_cpu_image_is_the_last() -> None:
    froms = [rest for keyword, rest in instructions() if keyword == "FROM"]
    assert all(" AS " in rest for rest in froms)
    assert froms[-1].endswith(" AS cpu")


def test_base_images_have_a_version() -> None:
    bases = {stage[0][1] for stage in stages().values()}
    assert all(re.fullmatch(r"[a-z/]+:\d[\w.-]+", base) for base in bases)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="hadolint is there for x86 only")
def test_a_linter_of_dockerfiles_has_nothing_to_say() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("stage", FINAL)
def test_the_image_says_whether_it_is_ready(stage: str) -> None:
    (check,) = (rest for keyword, rest in stages()[stage] if keyword == "HEALTHCHECK")
    assert "'localhost', 8501" in check
    assert "'/readyz'" in check


@pytest.mark.parametrize("stage", FINAL)
def test_the_image_runs_as_somebody_without_rights(stage: str) -> None:
    users = [rest for keyword, rest in stages()[stage] if keyword == "USER"]
    assert users[-1] == "10001:10001"
    created = " ".join(rest for keyword, rest in stages()[stage] if keyword == "RUN")
    assert "groupadd --system --gid 10001 servingd" in created
    assert "useradd --system --uid 10001 --no-create-home --gid 10001" in created


@pytest.mark.parametrize("stage", FINAL)
def test_the_image_is_laid_out_as_tensorflow_servings(stage: str) -> None:
    found = stages()[stage]
    assert ("EXPOSE", "8500 8501") in found
    assert ("STOPSIGNAL", "SIGTERM") in found
    entries = [rest for keyword, rest in found if keyword == "ENTRYPOINT"]
    assert entries == ['["/usr/bin/tf_serving_entrypoint.sh"]']
    environment = " ".join(rest for keyword, rest in found if keyword == "ENV")
    assert "MODEL_NAME=model " in environment
    assert "MODEL_BASE_PATH=/models " in environment
    copied = " ".join(rest for keyword, rest in found if keyword == "COPY")
    for file in ("/usr/bin/tensorflow_model_server", "/usr/bin/tf_serving_entrypoint.sh"):
        assert file in copied


@pytest.mark.parametrize("stage", FINAL)
def test_nothing_that_only_builds_is_in_the_image(stage: str) -> None:
    copies = [rest for keyword, rest in stages()[stage] if keyword == "COPY"]
    assert copies
    assert all(rest.startswith(f"--from={stage}-files ") for rest in copies)


def test_what_linters_object_to_is_not_there() -> None:
    for keyword, rest in instructions():
        assert keyword != "ADD", "COPY does no more than it says"
        assert keyword != "MAINTAINER", "deprecated"
        assert "sudo" not in rest
        assert not (keyword == "RUN" and rest.startswith("cd "))
        assert not (
            keyword == "RUN" and "apt-get" in rest and "--no-install-recommends" not in rest
        )
        assert keyword != "WORKDIR" or rest.startswith("/")
        assert keyword not in ("CMD", "ENTRYPOINT") or rest.startswith("["), "signals would be lost"
    assert ":latest" not in (ROOT / "Dockerfile").read_text()


def test_the_image_is_built_from_what_it_needs_alone() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert "!servingd" in ignored
    assert "!tests" not in ignored


@pytest.mark.parametrize("script", ["install.sh", "entrypoint.sh"])
def test_scripts_are_posix_and_parse(script: str) -> None:
    path = IMAGE / script
    assert path.read_text().startswith("#!/bin/sh\n")
    assert path.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", path], check=True)


def test_an_unknown_kind_of_image_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [IMAGE / "install.sh", ROOT, tmp_path, "tpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected cpu or gpu, got 'tpu'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_entry_point_passes_the_environment_and_then_its_arguments(tmp_path: Path) -> None:
    program = tmp_path / "tensorflow_model_server"
    program.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    program.chmod(0o755)
    done = subprocess.run(
        [IMAGE / "entrypoint.sh", "--model_name=other", "--flag", "a b"],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "MODEL_NAME": "m x",
            "MODEL_BASE_PATH": "/models",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "--port=8500",
        "--rest_api_port=8501",
        "--model_name=m x",
        "--model_base_path=/models/m x",
        "--model_name=other",
        "--flag",
        "a b",
    ]
