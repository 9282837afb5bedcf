"""A model of a gigabyte, an embedding table: how long its load takes, and the memory.

First beside TensorFlow's own loader, then what its processes share once it is mapped.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.measure import Row
from tests.bench.serving import settled
from tests.e2e.process import Process

ROWS, WIDTH = 2_000_000, 128
IDS = np.arange(16, dtype=np.int64).reshape(2, 8)
ROUNDS = 5
_OPTIMISED = ("--map_large_weights=off",)

_EXPORT = """
import sys
import tensorflow as tf

rows, width, reads_first = map(int, sys.argv[2:])
module = tf.Module()
module.table = tf.Variable(tf.random.uniform([rows, width], -1, 1, seed=1))
module.dense = tf.Variable(tf.random.normal([width, 16], seed=2))


def scores(ids):
    table = tf.convert_to_tensor(module.table) if reads_first else module.table
    features = tf.reduce_mean(tf.gather(table, ids), 1)
    return {"scores": tf.nn.softmax(features @ module.dense)}


spec = tf.TensorSpec([None, 8], tf.int64, name="ids")
module.f = tf.function(scores, input_signature=[spec])
tf.saved_model.save(module, sys.argv[1], {"serving_default": module.f})
"""

_LOAD = """
import sys
import time
import numpy as np
import tensorflow as tf

started = time.monotonic()
model = tf.saved_model.load(sys.argv[1])
ids = np.arange(16, dtype=np.int64).reshape(2, 8)
answer = model.signatures["serving_default"](ids=tf.constant(ids))["scores"].numpy()
taken = time.monotonic() - started
with open("/proc/self/status") as file:
    print(taken, next(line for line in file if line.startswith("VmHWM")).split()[1])
"""


def run(folder: Path) -> Iterator[Row]:
    yield from _beside_tensorflow(folder)
    yield from _mapped(folder)


def _beside_tensorflow(folder: Path) -> Iterator[Row]:
    """A load and the first answer, over TensorFlow's own loader; neither with its import."""
    version = folder / "m" / "1"
    _export(version, reads_first=False)
    _by_tensorflow(version)  # the first one reads the files from the disk
    theirs, ours = [], []
    for number in range(ROUNDS):
        theirs.append(_by_tensorflow(version))
        ours.append(_by_servingd(folder / "m", folder / str(number), "--optimize_models=off"))
    shutil.rmtree(version)
    _export(version, reads_first=True)  # as Keras 3 does; else it stays plain
    optimised = _by_servingd(folder / "m", folder / "optimised", *_OPTIMISED)
    for name, found in (("TensorFlow", theirs), ("servingd", ours), ("optimised", [optimised])):
        print(name, *(f"{seconds:.2f} s {kib >> 10} MiB" for seconds, kib in found))
    yield Row("seconds of a load and the first answer", _ratio(ours, theirs, 0), at_most=1.1)
    yield Row("peak of memory until then", _ratio(ours, theirs, 1), at_most=1.2)
    yield Row("peak once its graph is optimised", _ratio([optimised], theirs, 1), at_most=1.2)


def _mapped(folder: Path) -> Iterator[Row]:
    """Two processes on a kept graph, and each of their bytes counted once, over one without.

    What a server of a small model takes is taken off.
    """
    shutil.rmtree(folder / "m")
    _export(folder / "m" / "1", reads_first=False)
    _export(folder / "small" / "1", reads_first=False, rows=100)
    work, kept = folder / "mapped", f"--cache_dir={folder / 'kept'}"
    work.mkdir()
    with _server(folder / "m", work / "first", kept) as first:
        plain = _answered(first)
        without = _pss(first)
        settled(first, "m")
        first.predict("m", {"ids": IDS})
        swapped = _pss(first)
    with _server(folder / "small", work / "small", "--optimize_models=off") as small:
        _answered(small)
        base = _pss(small)
    with _server(folder / "m", work / "one", kept) as one:
        started = _answered(one)
        alone = [_touched(one)]
        with _server(folder / "m", work / "two", kept) as two:
            _answered(two)
            _touched(two)
            both = [_pss(one), _pss(two)]
    print(
        f"base {base} MiB; plain {plain:.2f} s {without} MiB, {swapped} once its graph is swapped"
    )
    print(f"kept: {started:.2f} s, {alone[0]} MiB, of two {both} MiB, every row looked up")
    yield Row("kept graph: seconds of a load and the first answer", started / plain, at_most=0.2)
    yield Row("memory once its graph is swapped", (swapped - base) / (without - base), at_most=0.2)
    yield Row("memory of two processes", (sum(both) - 2 * base) / (without - base), at_most=1.3)


@contextlib.contextmanager
def _server(base: Path, log: Path, *flags: str) -> Iterator[Process]:
    place = ("--model_name=m", f"--model_base_path={base}")
    server = Process(log, *place, *flags, TF_CPP_MIN_LOG_LEVEL="3")
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close()


def _answered(server: Process) -> float:
    """Seconds of the load and of the first call."""
    started = time.monotonic()
    server.predict("m", {"ids": IDS})
    taken = time.monotonic() - started
    return taken + (
        server.metric('servingd_load_seconds_sum{model="m",outcome="succeeded"}') or 0.0
    )


def _touched(server: Process) -> int:
    """Look every row up; return the MiB that the process then has."""
    for first in range(0, ROWS, 100_000):
        ids = np.arange(first, first + 100_000, dtype=np.int64).reshape(-1, 8)
        server.predict("m", {"ids": ids})
    return _pss(server)


def _pss(server: Process) -> int:
    """MiB of a process; a page that several have counts in parts."""
    lines = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib >> 10


def _export(version: Path, *, reads_first: bool, rows: int = ROWS) -> None:
    numbers = map(str, (rows, WIDTH, int(reads_first)))
    subprocess.run([sys.executable, "-c", _EXPORT, version, *numbers], check=True)


def _ratio(ours: list[tuple[float, int]], theirs: list[tuple[float, int]], which: int) -> float:
    """The least over the least: whatever else the machine does only adds."""
    return min(o[which] for o in ours) / min(t[which] for t in theirs)


def _by_tensorflow(version: Path) -> tuple[float, int]:
    """Seconds of a load and the first call, and the peak in KiB, of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, version], check=True, capture_output=True, text=True
    )
    seconds, kib = done.stdout.split()
    return float(seconds), int(kib)


def _by_servingd(base: Path, work: Path, *flags: str) -> tuple[float, int]:
    """The same of a server; the peak of one that optimises is taken once its graph is settled."""
    work.mkdir()
    with _server(base, work / "log", *flags) as server:
        taken = _answered(server)
        if flags == _OPTIMISED:
            settled(server, "m")
            assert server.metric('servingd_model_graph{model="m",state="optimised",version="1"}')
            server.predict("m", {"ids": IDS})
        status = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        (peak,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        return taken, peak
