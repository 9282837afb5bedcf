"""What reloads of a larger model cost a small one under steady load."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import (
    ROUNDS,
    SECONDS,
    convolutional,
    picture,
    repository,
    serving,
    settled,
)
from tests.e2e.process import Process

RATE = 200.0
WINDOW_S = max(20.0, SECONDS)
"""Long enough for three whole loads."""
_SCHEMA_VERSION_1 = b"\x08\x01"
"""A field of `tensorflow.SavedModel` that may be said again and again."""
EACH_S = 5.0
"""A new version comes so often, or when the last one is loaded."""


def run(folder: Path) -> Iterator[Row]:
    """The small model's p99 beside reloads, over the quiet one: of the same files, and of others.

    Others are optimised by a child each time, which does not get ready before the next one comes.
    """
    root = repository(folder / "models", small=convolutional, large=_resnet)
    with serving(folder / "server.log", f"--model_repository={root}") as server:
        settled(server, "small", "large")
        request = picture(folder, server, "small")
        load.steady(server.port, request, 3.0, RATE)
        for other, most in ((False, 1.5), (True, 1.5)):
            which = "other weights each time" if other else "the same files"
            ratios = []
            for _ in range(ROUNDS):
                quiet = load.steady(server.port, request, WINDOW_S, RATE).ms(0.99)
                with _reloads(server, root / "large", other) as loads:
                    busy = load.steady(server.port, request, WINDOW_S, RATE).ms(0.99)
                ratios.append(busy / quiet)
                print(
                    f"{which}: p99 quiet {quiet:.2f} ms, beside {len(loads)} whole loads of up to "
                    f"{max(loads, default=0.0):.1f} s {busy:.2f} ms"
                )
                settled(server, "large")
            yield Row(
                f"a small model's p99 beside reloads of ResNet-50, {which}, over the quiet one",
                statistics.median(ratios),
                at_most=most,
            )


def _resnet(path: Path) -> None:
    import keras
    import tensorflow as tf

    module, net = tf.Module(), keras.applications.ResNet50(weights=None)
    module.weights = [variable.value for variable in net.variables]  # `export` writes them twice
    spec = tf.TensorSpec([None, 224, 224, 3], tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": net(x, training=False)}, input_signature=[spec])
    tf.saved_model.save(module, str(path), {"serving_default": module.f})


@contextmanager
def _reloads(server: Process, base: Path, other: bool) -> Iterator[list[float]]:
    """New versions of a model, one after the other, as long as the block lasts; seconds of each."""
    over, loads = threading.Event(), []

    def work() -> None:
        while not over.is_set():
            newest = max(int(folder.name) for folder in base.iterdir() if folder.name.isdigit())
            started = time.monotonic()
            copied = shutil.copytree(base / str(newest), base / ".copied")
            if other:  # the same model for TensorFlow, another one for whoever compares files
                with (copied / "saved_model.pb").open("ab") as file:
                    file.write(_SCHEMA_VERSION_1)
            copied.rename(base / str(newest + 1))
            while not _is_there(server, newest + 1) and time.monotonic() < started + 60:
                over.wait(0.1)
            if not over.is_set():
                loads.append(time.monotonic() - started)
            shutil.rmtree(base / str(newest))
            over.wait(max(0.0, EACH_S - (time.monotonic() - started)))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield loads
    finally:
        over.set()
        thread.join()


def _is_there(server: Process, version: int) -> bool:
    return server.states("large").get(version) == "AVAILABLE"
