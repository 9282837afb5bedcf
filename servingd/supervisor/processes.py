"""The worker processes: begin them, learn of their ends, and read what they leave behind."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from servingd.supervisor.deaths import Death
from servingd.supervisor.run_marks import SIZE, RunMarks

_DUMP_BYTES = 64 << 10
"""Bytes of a dead worker's stacks that are logged."""
_CURRENT = re.compile(rb"Current thread 0x([0-9a-f]+)")
_MODULE = "servingd.supervisor.worker_process"

_log = logging.getLogger(__name__)


class WorkerProcess:
    """One process, the socket to it, and the memory that outlives it: marks of runs, and stacks."""

    def __init__(self, number: int) -> None:
        """Begin the process. Raises OSError."""
        self.number = number
        self._closed = False
        self.connection, theirs = socket.socketpair()
        self._dump = os.memfd_create("servingd-stacks")
        marks = os.memfd_create("servingd-runs")
        try:
            os.ftruncate(marks, SIZE)
            self.marks = RunMarks(mmap.mmap(marks, SIZE))
            given = (theirs.fileno(), marks, self._dump)
            for descriptor in given:
                os.set_inheritable(descriptor, True)
            # -P: what lies in the working folder must not be imported.
            command = [sys.executable, "-P", "-m", _MODULE, *map(str, given)]
            self.pid = os.posix_spawn(sys.executable, command, _environment())
            os.set_inheritable(self._dump, False)
        except OSError:
            self.connection.close()
            os.close(self._dump)
            raise
        finally:
            theirs.close()
            os.close(marks)

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended.

        After `close` its number may be another process's.
        """
        if self._closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def dump(self) -> bytes:
        """Return the stacks that the process wrote when it died; empty if it wrote none."""
        return os.pread(self._dump, _DUMP_BYTES, 0)

    def crashed_thread(self) -> int | None:
        """Return the id of the thread in which a fatal signal arose; None if it is not known."""
        found = _CURRENT.search(self.dump())
        return int(found[1], 16) if found else None

    def close(self) -> None:
        """Free what belongs to the process, after its end."""
        self._closed = True
        os.close(self._dump)
        self.marks.close()


def _environment() -> dict[str, str]:
    """Return the environment for a worker: it imports the same servingd as this process."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Child(Protocol):
    """A child process."""

    pid: int


_C = TypeVar("_C", bound=Child)


class Reaper:
    """Owns the thread `reaper`: it learns of the end of every child at once, by waiting for it.

    As process 1 of a container it also reaps the children of others that have died.
    """

    def __init__(self, ended: Callable[[int, Death], None]) -> None:
        """`ended` is called on the thread, with one of our processes and how it has ended."""
        self._ended = ended
        self._changed = threading.Condition()
        self._expected: set[int] = set()  # our children; guarded by _changed
        self._stopping = False  # guarded by _changed
        self._kills = _out_of_memory_kills()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self, spawn: Callable[[], _C]) -> _C:
        """Begin a child, whose end is then told: even if it ends at once. Raises what spawn does.

        Only our own count: were an orphan's end to count, that of a worker would be missed.
        """
        with self._changed:
            child = spawn()
            self._expected.add(child.pid)
            self._changed.notify()
            return child

    def stop(self) -> None:
        """End the thread once it waits for no child."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._expected) or self._stopping)
                if not self._expected:
                    return
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                with self._changed:
                    lost, self._expected = self._expected, set()
                for pid in lost:  # whoever else has waited for them knows how they ended
                    self._ended(pid, Death())
                continue
            death = self._death(status)
            with self._changed:
                ours = pid in self._expected
                self._expected.discard(pid)
            if ours:
                self._ended(pid, death)

    def _death(self, status: int) -> Death:
        kills, self._kills = self._kills, _out_of_memory_kills()
        if os.WIFSIGNALED(status):
            return Death(os.WTERMSIG(status), 0, self._kills > kills)
        return Death(0, os.waitstatus_to_exitcode(status))


def _out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory, as far as it says."""
    for path, word in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == word:
                    return int(value)
    return 0
