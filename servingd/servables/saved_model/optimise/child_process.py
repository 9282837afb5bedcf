"""Run the command that optimises a graph as a child process, on processors that would be idle.

A reload under load must not be felt by the calls. So the child is in the idle scheduling class: it
makes way at once when a thread of the server wakes up. On a machine that is never idle it would get
no time at all. So one that gets little is begun anew, niced, as are all others for a while.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

from servingd.config.saved_model import NO_EXTENSIONS, Extensions
from servingd.servables.saved_model.optimise.child import Declined

_CPU_SECONDS = 600
"""Seconds of processor time that a child may take (RLIMIT_CPU)."""
_THREAD_BYTES = 16 << 20
"""Bytes per processor that count as data (RLIMIT_DATA), though they are never used: stacks."""
_MAX_S = 1800.0
"""Seconds that a child may take: it gets little of each second on a busy server."""
_LEAST_SHARE = 0.2
"""The share of one processor that a child in the idle class must get."""
_BUSY_S = 600.0
"""Seconds for which children are niced after one got less than that."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Else numpy would keep memory for a thread per processor."""

_log = logging.getLogger(__name__)


class ChildProcess:
    """Runs one child at a time. `run` is called by one thread, `kill` by any."""

    def __init__(
        self,
        extensions: Extensions = NO_EXTENSIONS,
        memory_limit: int = 0,
        window_s: float = 10.0,
        may_idle: bool = True,
        map_from_bytes: int = 0,
    ) -> None:
        """Start nothing. `memory_limit` are bytes of data; 0: by the model's size.

        What share of a processor a child gets is looked at every `window_s` seconds. Not
        `may_idle`: somebody waits for it, so it is niced at once. Variables of `map_from_bytes` or
        more that are gathered from get a file of their own, to be mapped; 0: none does.
        """
        self._extensions = extensions
        self._memory_limit = memory_limit
        self._window_s = window_s
        self._may_idle = may_idle
        self.map_from_bytes = map_from_bytes
        self._busy_until = -math.inf  # monotonic seconds; the caller's thread only
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None  # guarded by _lock

    def run(
        self,
        path: str,
        tags: tuple[str, ...],
        target: Path,
        memory: int,
        cancelled: threading.Event,
    ) -> None:
        """Optimise the SavedModel at `path` into the folder `target`, in so many bytes of memory.

        Raises Declined if the child fails, takes too long, or `cancelled` is set.
        """
        limit = self._memory_limit or memory + _THREAD_BYTES * (os.cpu_count() or 1)
        command = [
            sys.executable,
            "-m",
            "servingd.servables.saved_model.optimise.child",
            path,
            str(target),
            f"--tags={','.join(tags)}",
            f"--memory-limit-bytes={limit}",
            f"--cpu-limit-seconds={_CPU_SECONDS}",
            f"--parent={os.getpid()}",
            f"--map-from-bytes={self.map_from_bytes}",
            f"--op-libraries={','.join(self._extensions.op_libraries)}",
            f"--python-imports={','.join(self._extensions.python_imports)}",
        ]
        if self._may_idle and time.monotonic() >= self._busy_until:
            if self._run([*command, "--idle-class"], _LEAST_SHARE, cancelled):
                return
            self._busy_until = time.monotonic() + _BUSY_S
            _log.info("%s: the machine is busy; its graph is optimised all the same", path)
        self._run(command, 0.0, cancelled)

    def kill(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            if self._child is not None:
                self._child.kill()

    def _run(self, command: list[str], least_share: float, cancelled: threading.Event) -> bool:
        """Run a child to its end; return False if it gets less of a processor than that."""
        with tempfile.TemporaryFile() as output:
            with self._lock:
                if cancelled.is_set():
                    raise Declined("cancelled")
                child = self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **_ONE_THREAD},
                )
            try:
                code = self._wait(child, least_share)
            finally:
                with self._lock:
                    self._child = None
                child.kill()  # no effect on one that has ended
                child.wait()
            if code is None:
                return False
            if code != 0:
                raise Declined(
                    f"the optimiser ended with {_describe_exit(code)}: {_last_line(output)}"
                )
            return True

    def _wait(self, child: subprocess.Popen[bytes], least_share: float) -> int | None:
        """Return a child's exit code; None if it gets less of a processor than `least_share`."""
        before = 0.0
        for _ in range(int(_MAX_S / self._window_s)):
            try:
                return child.wait(self._window_s)
            except subprocess.TimeoutExpired:
                used = _cpu_seconds(child.pid)
                if used - before < least_share * self._window_s:
                    return None
                before = used
        raise Declined(f"the optimiser took more than {_MAX_S:.0f} s")


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process; infinity where the system does not tell it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _describe_exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _last_line(output: IO[bytes]) -> str:
    """Return the last line that a child wrote."""
    output.seek(max(0, output.seek(0, os.SEEK_END) - 2000))
    lines = [line for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
