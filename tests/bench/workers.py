"""What a second worker costs: CPU of a call, latency alone, and the time to start.

Two cores cannot show what many workers gain, since the client needs one of them. The cost of a call
can be shown anywhere.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests import exports
from tests.bench.load import Load
from tests.bench.measure import Row
from tests.bench.serving import ROUNDS, SECONDS, message, repository, serving, settled
from tests.e2e.process import Process

_TICKS = os.sysconf("SC_CLK_TCK")


def run(folder: Path) -> Iterator[Row]:
    """Two workers over one, in alternating windows; both servers run all the time."""
    root = repository(folder / "models", tiny=exports.half_plus_two)
    flags = (f"--model_repository={root}",)
    with (
        serving(folder / "one.log", *flags) as one,
        serving(folder / "two.log", *flags, "--workers=2") as two,
    ):
        for server in (one, two):
            settled(server, "tiny")
        request = message(folder, "tiny", {"x": np.float32([1, 2, 5])})
        for calls, what, limit in ((64, "64 calls in flight", 1.15), (1, "one call", 1.15)):
            rounds = [
                (_measured(two, request, calls), _measured(one, request, calls))
                for _ in range(ROUNDS)
            ]
            cpu = statistics.median(a[0] / b[0] for a, b in rounds)
            latency = statistics.median(a[1] / b[1] for a, b in rounds)
            (of_two, _), (of_one, _) = rounds[-1]
            print(f"{what}: CPU {of_two * 1e6:.0f} us with two, {of_one * 1e6:.0f} us with one")
            yield Row(f"{what}: CPU of one, two workers over one", cpu, at_most=limit)
            if calls == 1:
                yield Row(f"{what}: latency, two workers over one", latency, at_most=1.1)
    started = [(_start_s(folder, flags, 4), _start_s(folder, flags, 1)) for _ in range(3)]
    print("seconds to start: " + ", ".join(f"{a:.1f} against {b:.1f}" for a, b in started))
    cores = len(os.sched_getaffinity(0))
    fair = 1.5 * max(1, 4 / cores)  # each imports TensorFlow, which takes a core
    ratio = statistics.median(a / b for a, b in started)
    yield Row(f"start of 4 workers over one's, {cores} cores", ratio, at_most=fair)


def _measured(server: Process, request: Path, calls: int) -> tuple[float, float]:
    """Return the CPU seconds of one call, and the median latency in milliseconds."""
    before = _cpu_s(server.process.pid)
    outcome = Load(server.port, request, SECONDS / 5, calls=calls).outcome()
    spent = _cpu_s(server.process.pid) - before
    assert set(outcome.codes) == {"OK"}, outcome.codes
    return spent / outcome.codes["OK"], outcome.ms(0.5)


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of the children that it has."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    own = (int(fields[11]) + int(fields[12])) / _TICKS
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return own + sum(_cpu_s(int(child)) for file in children for child in file.read_text().split())


def _start_s(folder: Path, flags: tuple[str, ...], workers: int) -> float:
    """Return the seconds from the start until every worker serves."""
    began = time.monotonic()
    with serving(folder / f"start-{workers}.log", *flags, f"--workers={workers}") as server:
        if workers > 1:
            series = 'servingd_workers{state="serving"}'
            server.wait_for("all workers", lambda: server.metric(series) == workers)
        return time.monotonic() - began
