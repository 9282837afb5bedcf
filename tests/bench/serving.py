"""What benchmarks of a whole server share: its process, its models, and requests for them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.e2e.process import Process, request

SECONDS = float(os.environ.get("SERVINGD_BENCH_SECONDS", "10"))
"""How long one measurement takes."""
ROUNDS = int(os.environ.get("SERVINGD_BENCH_ROUNDS", "5"))
"""How often it is repeated; the median counts."""

WIDTH = 2048


@contextlib.contextmanager
def serving(log: Path, *flags: str) -> Iterator[Process]:
    """A server, ready."""
    process = Process(log, *flags)
    try:
        yield process.wait_until_ready()
    finally:
        process.close()


def settled(server: Process, *models: str) -> None:
    """Wait until nothing is improved any more in the background."""
    for model in models:
        server.wait_for(f"the graph of {model}", lambda model=model: _is_settled(server, model))


def _is_settled(server: Process, model: str) -> bool:
    graphs = [
        line
        for line in server.get("/metrics")[1].splitlines()
        if line.startswith(f'servingd_model_graph{{model="{model}"')
    ]
    return len(graphs) == 1 and ("optimised" in graphs[0] or "declined" in graphs[0])


def message(folder: Path, model: str, inputs: dict) -> Path:
    """A file with a request's bytes."""
    file = folder / f"{model}.request"
    file.write_bytes(request(model, inputs).SerializeToString())
    return file


def slow(folder: Path, server: Process, model: str, seconds: float) -> Path:
    """A request that an export `slow` takes so long for, alone."""
    n = 20_000
    for _ in range(4):
        inputs = {"n": np.int32(n)}
        server.predict(model, inputs)
        taken = min(_seconds(server, model, inputs) for _ in range(5))
        n = max(1, int(n * seconds / taken))
    return message(folder, model, {"n": np.int32(n)})


def _seconds(server: Process, model: str, inputs: dict) -> float:
    started = time.perf_counter()
    server.predict(model, inputs)
    return time.perf_counter() - started


def wide(path: Path) -> None:
    """A model whose weights are dear to read: many rows cost little more than one."""
    import keras

    layers = keras.layers
    keras.Sequential(
        [
            keras.Input((WIDTH,), name="x"),
            layers.Dense(WIDTH, activation="relu"),
            layers.Dense(10),
        ]
    ).export(str(path), verbose=False)


def wide_request(folder: Path, server: Process, model: str) -> Path:
    """A request of one row for it."""
    return message(folder, model, {input_of(server, model): np.ones((1, WIDTH), np.float32)})


def compiled(path: Path) -> None:
    """A model that is compiled anew for every shape that comes: its first runs are very slow."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(tf.random.normal([1024, 1024], seed=1) * 0.03)

    def layers(x):
        for _ in range(6):
            x = tf.nn.relu(x @ module.weights)
        return {"y": x}

    spec = tf.TensorSpec([None, 1024], tf.float32, name="x")
    module.f = tf.function(layers, input_signature=[spec], jit_compile=True)
    tf.saved_model.save(module, str(path), {"serving_default": module.f})


def convolutional(path: Path) -> None:
    """A small convolutional network over pictures of 28 x 28."""
    import keras

    layers = keras.layers
    keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPool2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    ).export(str(path), verbose=False)


def picture(folder: Path, server: Process, model: str) -> Path:
    """A request with one picture."""
    image = np.random.default_rng(0).random((1, 28, 28, 1), np.float32)
    return message(folder, model, {input_of(server, model): image})


def input_of(server: Process, model: str) -> str:
    """The name of the one input of a model's default signature."""
    from tensorflow_serving.apis import get_model_metadata_pb2

    signatures = get_model_metadata_pb2.SignatureDefMap()
    server.metadata(model).metadata["signature_def"].Unpack(signatures)
    (name,) = signatures.signature_def["serving_default"].inputs
    return name


def repository(folder: Path, **models: object) -> Path:
    """A model repository: by name, what writes version 1."""
    for name, export in models.items():
        export(folder / name / "1")
    return folder
