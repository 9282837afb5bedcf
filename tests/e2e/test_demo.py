"""The demo: the models that `make run` makes, served, and the prediction that README.md shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import servingd
from tests import absent

pytestmark = [pytest.mark.tf, pytest.mark.e2e, pytest.mark.timeout(300)]

ROOT = Path(servingd.__file__).parents[1]


def test_the_prediction_of_the_readme(start):
    environment = {**os.environ, "PYTHONPATH": absent.SEEN}
    subprocess.run(
        [sys.executable, str(ROOT / "models" / "make_demo_models.py")],
        env=environment,
        check=True,
        timeout=240,
    )
    server = start(f"--model_repository={ROOT / 'models'}").wait_until_ready()
    assert server.states("mnist") == {1: "AVAILABLE"}
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    result = subprocess.run(
        [sys.executable, "-c", program.replace("localhost:8500", f"localhost:{server.port}")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert result.stdout == "[7] is what 7 looks like\n"
    outputs = server.predict("digit_names", {"keys": [b"7"]})
    assert outputs["values"].tolist() == [b"seven"]
