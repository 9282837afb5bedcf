"""Memory comes back: resident bytes stay level over many loads and unloads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tf

MEBIBYTES = 50

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ServableId, VersionData
from servingd.servables.saved_model.listener import NullListener
from servingd.servables.saved_model.platform import SavedModelPlatform

class Outcome:
    deadline = None
    def alive(self): return True
    def succeed(self, outputs): self.outputs = outputs
    def fail(self, error): raise error

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 >> 20

path, optimize_models, cache = sys.argv[1:]
states = []
threads = 1 if optimize_models == "off" else 0  # else two may be tried, if one is slow
options = SavedModelOptions(
    optimize_models=optimize_models, cache_dir=cache, intra_op_threads=threads
)
class Listener(NullListener):
    def graph_state_changed(self, servable_id, state): states.append(state)

platform = SavedModelPlatform(options, Listener())
after, loaded = [], []
for version in range(12):
    if version % 2 == 0:  # it starts on its plain graph
        for tuning in Path(cache).glob("*/tuning.json"):
            tuning.unlink()
    data = VersionData(path, "tensorflow")
    loader = platform.loader(ServableId("m", version), data)
    servable = loader.load()
    outcome = Outcome()
    x = {"x": np.ones((2, 1024), np.float32)}
    servable.run(servable.signatures["serving_default"], x, outcome)
    loaded.append(resident())
    loader.unload(servable)
    del loader, servable, outcome
    after.append(resident())
platform.stop()
print(json.dumps([loaded, after, states]))
"""


def wide(path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    columns = MEBIBYTES << 8  # of 1024 floats
    module.w = tf.Variable(tf.random.stateless_uniform([1024, columns], [1, 2]))
    module.b = tf.Variable(tf.ones([columns]))
    spec = tf.TensorSpec([None, 1024], tf.float32, name="x")
    module.f = tf.function(
        lambda x: {"y": tf.reduce_max(tf.nn.relu(x @ module.w + module.b), -1)},
        input_signature=[spec],
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "wide"
    wide(path)
    return path


@pytest.mark.parametrize("optimize_models", ["off", "wait"])
def test_twelve_loads_and_unloads_leave_nothing_behind(model, tmp_path, optimize_models):
    command = [sys.executable, "-c", PROGRAM, str(model), optimize_models, str(tmp_path / "cache")]
    child = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert child.returncode == 0, child.stderr
    loaded, after, states = json.loads(child.stdout)
    print(f"{optimize_models}: MB while loaded {loaded}, after each unload {after}")
    assert after[11] <= after[2] * 1.1
    assert loaded[11] <= loaded[2] * 1.1
    # Where nothing is to be found out about it, a load leaves one state, and its unload another.
    swapped = ["plain", "optimising", "optimised", ""]
    two = [*swapped, "optimised", ""] if optimize_models == "wait" else ["plain", ""] * 2
    assert states == two * 6
