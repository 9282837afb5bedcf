"""From a Keras model to a served one, as `models/build_to_serve.py` shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import servingd
from tests import absent

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

SCRIPT = Path(servingd.__file__).parents[1] / "models" / "build_to_serve.py"


def test_a_model_is_built_trained_saved_and_served_without_another_step(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--epochs=1", f"--folder={tmp_path}"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(SCRIPT.parents[1]), absent.SEEN)),
            "SERVINGD_CACHE_DIR": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested, saved, served = done.stdout.splitlines()
    accuracy = float(re.fullmatch(r"test accuracy ([0-9.]+)%", tested)[1])
    assert accuracy > 75, "one epoch; all twenty reach 99"
    version = tmp_path / "models" / "mnist" / "1"
    assert saved == f"saved {version / 'model.keras'}"
    pattern = r"served accuracy ([0-9.]+)%; the probabilities differ by (\S+) at most"
    same, difference = re.fullmatch(pattern, served).groups()
    assert float(same) == accuracy
    assert float(difference) < 1e-4
    assert sorted(p.name for p in version.iterdir()) == ["model.keras"]
