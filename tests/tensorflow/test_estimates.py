"""What models are reckoned to take, against what they take: each kind in its own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tf

MB = 1 << 20


def frozen(path: Path) -> None:
    import numpy as np
    import tensorflow as tf

    tf1 = tf.compat.v1
    rng = np.random.default_rng(0)
    with tf.Graph().as_default(), tf1.Session() as session:
        x = y = tf1.placeholder(tf.float32, [None, 1024], name="x")
        for _ in range(20):
            y = tf.matmul(y, tf.constant(rng.normal(size=(1024, 1024)).astype(np.float32)))
        signature = tf1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, ["serve"], signature_def_map={"serving_default": signature}
        )
        builder.save()


def text(path: Path) -> None:
    import tensorflow as tf

    words = path.with_name("words.txt")
    words.parent.mkdir(parents=True, exist_ok=True)
    words.write_text("\n".join(f"word number {i}" for i in range(300_000)))
    lines = tf.lookup.TextFileIndex
    source = tf.lookup.TextFileInitializer(
        str(words), tf.string, lines.WHOLE_LINE, tf.int64, lines.LINE_NUMBER
    )
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(source, 0)
    module.vectors = tf.Variable(tf.random.normal([300_000, 32]))
    spec = tf.TensorSpec([None], tf.string, name="words")
    module.f = tf.function(
        lambda words: {"y": tf.gather(module.vectors, module.table.lookup(words))},
        input_signature=[spec],
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})


def embedding(path: Path) -> None:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((20,), dtype="int32"),
            layers.Embedding(200_000, 64),
            layers.GlobalAveragePooling1D(),
            layers.Dense(10),
        ]
    )
    model.export(str(path), verbose=False)


def recurrent(path: Path) -> None:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((20, 64)),
            layers.LSTM(1024, return_sequences=True),
            layers.LSTM(1024),
            layers.Dense(10),
        ]
    )
    model.export(str(path), verbose=False)


PROGRAM = """
import os, sys, threading
from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ServableId, VersionData
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.servables.tensorflow_runtime.runtime import give_memory_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

platform = SavedModelPlatform(SavedModelOptions(optimize_models="off"))

def loader(path):
    return platform.loader(ServableId("m", 1), VersionData(path, "tensorflow"))

warm = loader(sys.argv[1])
kept = [warm.load()]  # a process's first load brings in much else
before = most = resident()
over = threading.Event()

def watch():
    global most
    while not over.wait(0.005):
        most = max(most, resident())

watcher = threading.Thread(target=watch)
watcher.start()
measured = loader(sys.argv[2])
estimate = measured.estimate()
kept.append(measured.load())
over.set()
watcher.join()
give_memory_back()
steady, peak = estimate.steady, estimate.peak
print(
    steady.shared + steady.replica, resident() - before, peak.shared + peak.replica, most - before
)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("make", [frozen, text, embedding, recurrent])
def test_an_estimate_is_right_within_a_factor_of_two(models, tmp_path, make):
    path = tmp_path / "model"
    make(path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(models / "half_plus_two"), str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    steady, taken, peak, most = (int(word) / MB for word in done.stdout.split()[-4:])
    assert taken / 2 <= steady <= taken * 2, f"{steady:.0f} MiB for {taken:.0f}"
    assert most / 2 <= peak <= most * 2, f"at most {peak:.0f} MiB for {most:.0f}"
