"""The image's files, made by its own script in a scratch folder, and the server that they make.

Without capabilities, and where this machine lets us, with a root file system that is read-only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.process import free_port

pytestmark = [pytest.mark.tf, pytest.mark.e2e, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image(models, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("image")
    subprocess.run([ROOT / ".ci" / "image" / "install.sh", ROOT, root, "cpu"], check=True)
    shutil.copytree(models / "half_plus_two", root / "models" / "m" / "1")
    return root


def may_remount() -> bool:
    """Whether we may have a file system of our own here."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    attempt = "mount --make-rprivate / && mount -o remount,ro,bind /"
    done = subprocess.run(["unshare", "-m", "sh", "-c", attempt], capture_output=True, check=False)
    return done.returncode == 0


READ_ONLY = """
mount --make-rprivate / && mount -o remount,ro,bind / || exit 99
exec setpriv --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.mark.parametrize("read_only", [False, True])
def test_the_entry_point_serves_a_model_from_the_image(image, tmp_path, read_only):
    if read_only and not may_remount():
        pytest.skip("this machine gives us no file system of our own to make read-only")
    port = free_port()
    command = [image / "usr/bin/tf_serving_entrypoint.sh", "--port=0"]
    command += [f"--grpc_socket_path=/dev/shm/servingd-{port}", f"--rest_api_port={port}"]
    if read_only:
        command = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", *command]
    environment = {
        "PATH": f"{image}/usr/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "MODEL_NAME": "m",
        "MODEL_BASE_PATH": f"{image}/models",
        "SERVINGD_CACHE_DIR": f"{image}/var/cache/servingd",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        assert answer(process, port, log) == b'{\n    "predictions": [2.5, 3.0\n    ]\n}'
        process.send_signal(signal.SIGTERM)  # the shell has been replaced: it reaches the server
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    text = log.read_text()
    assert "Exporting HTTP/REST API" in text  # what scripts wait for
    assert ("Read-only file system" in text) == read_only
    assert "Traceback" not in text


def answer(process, port, log) -> bytes:
    """What the server says to one call, as soon as it answers."""
    url = f"http://127.0.0.1:{port}/v1/models/m:predict"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, b'{"instances": [1.0, 2.0]}', timeout=10) as reply:
                return reply.read()
        except OSError:  # not there yet, or not ready
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_the_image_is_small_and_owned_as_it_should_be(image):
    assert not list(image.glob("opt/servingd/lib/*/site-packages/tensorflow/include"))
    assert not list(image.glob("opt/servingd/lib/*/site-packages/hypothesis"))
    assert (image / "var/cache/servingd").stat().st_mode & 0o777 == 0o700
    assert (image / "models").is_dir()
    program = (image / "usr/bin/tensorflow_model_server").resolve()
    assert os.access(program, os.X_OK)
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("TensorFlow ModelServer: servingd ")
    assert "TensorFlow Library: 2." in done.stdout
