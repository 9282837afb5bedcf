"""What the first request costs after a new version has taken over."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.bench.measure import Row
from tests.bench.serving import (
    ROUNDS,
    compiled,
    convolutional,
    input_of,
    repository,
    serving,
    settled,
)
from tests.e2e.process import Process, request
from tests.exports import copy_version

ROWS = 5
"""No size that a load would try by itself."""
PAUSE_S = 0.05
"""Between two calls. Without it, the usual call would find in the caches what no first one can."""
CALLS = 40


class Switch(NamedTuple):
    """Seconds around one switch."""

    usual: float
    """The median of the old version's answers."""
    first: float
    """The new version's first."""


def run(folder: Path) -> Iterator[Row]:
    """The first answer of a new version, over the median of the old one's, and over unwarmed."""
    root = repository(folder / "models", convolutional=convolutional, compiled=compiled)
    pictures = np.random.default_rng(0).random((ROWS, 28, 28, 1), np.float32)
    rows = np.ones((ROWS, 1024), np.float32)
    switches = _switches(folder, root / "convolutional", pictures)
    yield Row(
        "the first request after a switch, over the median",
        statistics.median(s.first / s.usual for s in switches),
        at_most=2.0,
    )
    warmed, cold = (
        statistics.median(s.first for s in _switches(folder, root / "compiled", rows, flag))
        for flag in ("--self_warm_up=true", "--self_warm_up=false")
    )
    yield Row(
        "the same of a model that compiles for each shape, warmed over not warmed",
        warmed / cold,
        at_most=0.5,
    )


def _switches(folder: Path, base: Path, array: np.ndarray, *flags: str) -> list[Switch]:
    flags = ("--model_name=m", f"--model_base_path={base}", *flags)
    found = []
    with serving(folder / "server.log", *flags) as server:
        settled(server, "m")
        message = request("m", {input_of(server, "m"): array})
        newest = max(int(version.name) for version in base.iterdir())
        for version in range(newest + 1, newest + 1 + 2 * ROUNDS):
            found.append(_switch(server, message, base, version))
            usual, first = (seconds * 1e3 for seconds in found[-1])
            print(f"median {usual:.2f} ms, first after the switch {first:.2f} ms")
    return found


def _switch(server: Process, message: object, base: Path, version: int) -> Switch:
    times: list[float] = []
    publisher = threading.Thread(
        target=copy_version, args=(base / str(version - 1), base / str(version))
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        started = time.perf_counter()
        answer = server.prediction.Predict(message, 30)
        taken = time.perf_counter() - started
        if answer.model_spec.version.value == version:
            publisher.join()
            shutil.rmtree(base / str(version - 1))
            settled(server, "m")
            return Switch(statistics.median(times), taken)
        times.append(taken)
        if len(times) == CALLS:
            publisher.start()
        time.sleep(PAUSE_S)
    raise AssertionError(f"version {version} did not answer\n{server.tail()}")
