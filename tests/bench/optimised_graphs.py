"""What turning variables into constants gains, on a small convolutional network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from servingd.servables.saved_model.files.meta_graph import Initialiser, read_meta_graph
from servingd.servables.saved_model.session.opening import open_optimised, open_plain
from servingd.servables.saved_model.session.options import ONE_THREAD
from tests.bench.measure import Row, ratio


def run(folder: Path) -> Iterator[Row]:
    """Calls a second of the optimised graph over the plain one, one thread each."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    source, target = folder / "cnn", folder / "optimised"
    model.export(str(source), verbose=False)
    target.mkdir()
    subprocess.run(
        [sys.executable, "-m", "servingd.servables.saved_model.optimise.child", source, target],
        check=True,
    )
    report = json.loads((target / "report.json").read_text())
    meta_graph = read_meta_graph(str(source), ("serve",))
    safe_to_run = dict.fromkeys(meta_graph.signatures, True)
    plain = open_plain(str(source), ("serve",), ONE_THREAD, meta_graph, safe_to_run)
    optimised = open_optimised(
        str(target / "graph.pb"),
        str(source),
        Initialiser(report["initialiser"], report["assets"]),
        ONE_THREAD,
        meta_graph.signatures,
    )
    x = {"x": np.random.default_rng(0).random((1, 28, 28, 1), np.float32)}
    slow, fast = plain.calls["serving_default"], optimised.calls["serving_default"]
    yield Row(
        "a convolutional network, optimised over plain",
        ratio(lambda: slow.run(x), lambda: fast.run(x), 500),
        at_least=1.1,
    )
