"""One network as a SavedModel, as a Keras file and as ONNX: calls a second, all in one server."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import ROUNDS, SECONDS, message, serving, settled

CALLS = 16
NAMES = ("saved_model", "keras", "onnx")


def run(folder: Path) -> Iterator[Row]:
    """Calls a second over those of the SavedModel; the demo's digit reader, an image a call."""
    root = _write_models(folder / "models")
    with serving(folder / "server.log", f"--model_repository={root}") as server:
        settled(server, "saved_model", "keras")
        x = np.random.default_rng(0).random((1, 28, 28, 1), np.float32)
        requests = {name: message(folder, name, {"image": x}) for name in NAMES}
        for calls, share in ((CALLS, 0.95), (1, 0.9)):
            rounds = [
                {n: load.run(server.port, requests[n], SECONDS, calls=calls).rate for n in NAMES}
                for _ in range(ROUNDS)
            ]
            for rates in rounds:
                print(calls, {name: round(rate) for name, rate in rates.items()})
            for name, least in (("keras", share), ("onnx", 0.5)):
                ratio = statistics.median(r[name] / r["saved_model"] for r in rounds)
                yield Row(f"{name} over SavedModel, {calls} calls at a time", ratio, at_least=least)


def _write_models(root: Path) -> Path:
    sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
    import keras
    import train_mnist

    keras.utils.set_random_seed(1)
    layers = train_mnist.build().layers
    model = keras.Sequential([keras.Input((28, 28, 1), name="image"), *layers])
    for name in NAMES:
        (root / name).mkdir(parents=True)
    model.export(str(root / "saved_model" / "1"), verbose=False)
    (root / "keras" / "1").mkdir()
    model.save(root / "keras" / "1" / "model.keras")
    (root / "onnx" / "1").mkdir()
    model.export(str(root / "onnx" / "1" / "model.onnx"), format="onnx", verbose=False)
    return root
