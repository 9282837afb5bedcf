"""Load from a process of its own: raw bytes over grpcio, so that it costs little.

`python -m tests.bench.load SPEC` is that process; `SPEC` is a JSON object, and so is its answer.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

PREDICT = "/tensorflow.serving.PredictionService/Predict"
_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 60.0
_CLIENTS = 4


class Outcome:
    """What became of the calls."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.codes: dict[str, int] = answer["codes"]
        self.rate: float = answer["good"] / answer["seconds"]
        """Good answers a second; those that come when no call is made any more do not count."""
        self._ms = sorted(answer["ms"])

    def ms(self, share: float) -> float:
        """The time within which this share of the good answers came."""
        assert self._ms, self.codes
        return self._ms[min(len(self._ms) - 1, int(len(self._ms) * share))]


class Load:
    """Calls that are under way; `outcome` waits for their end."""

    def __init__(self, port: int, request: Path, seconds: float, **how: float | str) -> None:
        """`calls` at a time, or `rate` a second whatever is answered; `timeout` seconds each.

        `method` is what is called; Predict if it is left out.
        """
        spec = {"port": port, "request": str(request), "seconds": seconds, **how}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load", json.dumps(spec)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def outcome(self) -> Outcome:
        """What became of the calls, when their time is over."""
        assert self._child.stdout is not None
        with self._child as child:  # closes its pipes
            output = self._child.stdout.read()
        assert child.returncode == 0
        return Outcome(json.loads(output))

    def finish(self) -> Outcome:
        """Make no more calls, and say what became of those before."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        return self.outcome()


@contextlib.contextmanager
def beside(*args: Any, **how: float) -> Iterator[None]:
    """Load as long as the block lasts, once it has begun to be answered."""
    load = Load(*args, **how)
    try:
        time.sleep(1.0)
        yield
    finally:
        load.finish()


def run(*args: Any, **how: float | str) -> Outcome:
    """Load, and what became of it."""
    return Load(*args, **how).outcome()


def steady(port: int, request: Path, seconds: float, rate: float) -> Outcome:
    """So many calls a second, for tails: by h2load if it is there, which disturbs them less."""
    h2load = shutil.which("h2load")
    if h2load is None:
        print("h2load is not here: a client in Python takes its place, and has a tail of its own")
        return run(port, request, seconds, rate=rate)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        payload = request.read_bytes()
        body.write_bytes(b"\0" + len(payload).to_bytes(4) + payload)
        each = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", body]
        shape = [
            "-D",
            math.ceil(seconds),
            "-c",
            _CLIENTS,
            "-m",
            1000,
            "-t",
            1,
            "--rps",
            int(rate) // _CLIENTS,
        ]
        command = [h2load, *shape, *each, f"--log-file={log}", f"http://127.0.0.1:{port}{PREDICT}"]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        rows = [line.split() for line in log.read_text().splitlines()]
    ms = [int(microseconds) / 1e3 for _, status, microseconds, *_ in rows if status == "200"]
    return Outcome({"ms": ms, "codes": {"OK": len(ms)}, "good": len(ms), "seconds": seconds})


# The child ----------------------------------------------------------------------------------------


class _Caller:
    def __init__(self, spec: dict[str, Any]) -> None:
        self._payload = Path(spec["request"]).read_bytes()
        channel = grpc.insecure_channel(f"127.0.0.1:{spec['port']}")
        self._call = channel.unary_unary(spec.get("method", PREDICT))
        self._timeout = spec.get("timeout", _PATIENCE_S)
        self._seconds = spec["seconds"]
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._ms: list[float] = []
        self._codes: Counter[str] = Counter()
        self._good = 0
        self._begun = 0

    def stop(self) -> None:
        self._stopped.set()

    def closed(self, calls: int) -> None:
        """So many calls at a time: each answer is followed by the next call."""

        def again() -> None:
            if not self._stopped.is_set():
                self._send(again)

        for _ in range(calls):
            self._send(again)
        self._stopped.wait(self._seconds)

    def open(self, rate: float) -> None:
        """So many calls a second, whatever becomes of them."""
        started = time.perf_counter()
        for number in range(int(rate * self._seconds)):
            if self._stopped.wait(max(0.0, started + number / rate - time.perf_counter())):
                return
            self._send()

    def answer(self) -> dict[str, Any]:
        """Wait for the answers that are still due, and sum up."""
        with self._changed:
            self._changed.wait_for(lambda: self._codes.total() == self._begun, self._timeout + 5)
            return {"ms": self._ms, "codes": self._codes, "good": self._good}

    def _send(self, then: Any = None) -> None:
        with self._changed:
            self._begun += 1
        started = time.perf_counter()

        def done(future: Any) -> None:
            taken = time.perf_counter() - started
            with self._changed:
                self._codes[future.code().name] += 1
                if future.code() is grpc.StatusCode.OK:
                    self._ms.append(taken * 1e3)
                    self._good += not self._stopped.is_set()
                self._changed.notify()
            if then is not None:
                then()

        self._call.future(self._payload, timeout=self._timeout).add_done_callback(done)


def main() -> None:
    spec = json.loads(sys.argv[1])
    caller = _Caller(spec)
    gc.disable()  # its pauses would be taken for the server's

    def stop_when_told() -> None:
        sys.stdin.read()
        caller.stop()

    threading.Thread(target=stop_when_told, daemon=True).start()
    started = time.perf_counter()
    if "rate" in spec:
        caller.open(spec["rate"])
    else:
        caller.closed(int(spec["calls"]))
    caller.stop()
    seconds = time.perf_counter() - started
    json.dump({**caller.answer(), "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
