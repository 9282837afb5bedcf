"""How many system calls a Predict call costs the server, and which of its threads it wakes.

Needs `strace`. `python -m tests.bench.system_calls COMMAND...` is the server under test: COMMAND
is what would start it otherwise.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests import exports
from tests.bench import load
from tests.bench.measure import Row
from tests.bench.serving import SECONDS, message, repository, settled, wide, wide_request
from tests.e2e.process import Process

AT_ONCE = 32
LIMITS = {"inline REST": 3, "inline gRPC": 7, f"batched, {AT_ONCE} calls in flight": 4}
_NOISE = 0.05
"""Per call; less comes from what goes on beside the calls: polls, sweeps, and new connections."""
_NAMED_EVERY_S = 5.0

Calls = Callable[[float], int]
"""Calls for so many seconds; returns how many there were."""


def run(folder: Path) -> Iterator[Row]:
    """System calls per call in steady state, over what they may be."""
    if shutil.which("strace") is None:
        print("system_calls: skipped, since strace is not here (Debian: apt-get install strace)")
        return
    root = repository(folder / "models", tiny=exports.half_plus_two, wide=wide)
    table = Table("call", "system calls", "wakes", title="Of one call, in steady state")
    with _serving(folder / "server.log", f"--model_repository={root}") as server:
        settled(server, "tiny", "wide")
        tiny = message(folder, "tiny", {"x": np.float32([1, 2, 5])})
        many = wide_request(folder, server, "wide")
        kinds: list[Calls] = [
            lambda seconds: _rest(server.http_port, seconds),
            lambda seconds: _grpc(server.port, tiny, seconds, 1),
            lambda seconds: _grpc(server.port, many, seconds, AT_ONCE),
        ]
        for (what, limit), calls in zip(LIMITS.items(), kinds, strict=True):
            calls(SECONDS / 5)  # until what calls cost is known
            woken = _woken(server, calls)
            counts = _system_calls(server, calls, folder / "strace")
            table.add_row(what, _listed(counts), _listed(woken))
            total = sum(counts.values())
            yield Row(f"{what}: system calls of one, over {limit}", total / limit, at_most=1.0)
    Console().print(table)


def _serving(log: Path, *flags: str) -> contextlib.AbstractContextManager[Process]:
    """A server whose threads have their names for the kernel too, ready."""
    command = (sys.executable, "-m", "tests.bench.system_calls")
    return contextlib.closing(Process(log, *flags, prefix=command).wait_until_ready())


def _rest(port: int, seconds: float) -> int:
    """One call at a time on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"instances": [1.0, 2.0, 5.0]})
    end, count = time.monotonic() + seconds, 0
    with contextlib.closing(connection):
        while time.monotonic() < end:
            connection.request("POST", "/v1/models/tiny:predict", body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == http.HTTPStatus.OK
            count += 1
    return count


def _grpc(port: int, request: Path, seconds: float, at_once: int) -> int:
    codes = load.run(port, request, seconds, calls=at_once).codes
    assert set(codes) == {"OK"}, codes
    return codes["OK"]


def _woken(server: Process, calls: Calls) -> dict[str, float]:
    """By thread, how often one call wakes it: how often it waited for something."""
    before = _waits(server)
    count = calls(SECONDS / 2)
    return {name: (n - before[name]) / count for name, n in _waits(server).items()}


def _waits(server: Process) -> Counter[str]:
    """How often each thread has waited since it began."""
    waits: Counter[str] = Counter()
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        waits[status["Name"]] += int(status["voluntary_ctxt_switches"])
    return waits


def _system_calls(server: Process, calls: Calls, summary: Path) -> dict[str, float]:
    """By name, the system calls of one call, on all threads."""
    pid = str(server.process.pid)
    trace = ["strace", "-c", "-f", "-U", "name,calls", "-o", str(summary), "-p", pid]
    with subprocess.Popen(trace, stderr=subprocess.PIPE, text=True) as strace:
        try:
            assert strace.stderr is not None
            attached = strace.stderr.readline()  # it says so once it has attached
            assert "attached" in attached, attached
            count = calls(SECONDS / 2)
        finally:
            strace.send_signal(signal.SIGINT)
    rows = (line.split() for line in summary.read_text().splitlines()[2:])
    calls_of = {row[0]: row[1] for row in rows if len(row) == 2 and row[1].isdigit()}
    return {name: int(n) / count for name, n in calls_of.items() if name != "total"}


def _listed(per_call: dict[str, float]) -> str:
    """The sum, and what makes it up."""
    sizes = sorted(per_call.items(), key=lambda item: -item[1])
    parts = "\n".join(f"  {name} {n:.2f}" for name, n in sizes if n >= _NOISE)
    return f"{sum(per_call.values()):.2f}\n{parts}"


# The server ---------------------------------------------------------------------------------------


def _name_threads() -> None:
    """Tell the kernel the names of Python's threads, of which it keeps 15 characters."""
    while True:
        for thread in threading.enumerate():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                task = Path(f"/proc/self/task/{thread.native_id}")
                (task / "comm").write_text(thread.name[:15])
        time.sleep(_NAMED_EVERY_S)


def main() -> int:
    from servingd.cli.main import main as servingd

    threading.Thread(target=_name_threads, name="names", daemon=True).start()
    return servingd(sys.argv[sys.argv.index("servingd") + 1 :])


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
