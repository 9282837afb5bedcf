"""The worker processes: begin them, learn of their ends, and read what they leave behind."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from servingd.supervisor.processes.deaths import Death
from servingd.supervisor.processes.run_marks import SIZE, RunMarks

_DUMP_BYTES = 64 << 10
"""Bytes of a dead worker's stacks that are logged."""
_CURRENT = re.compile(rb"Current thread 0x([0-9a-f]+)")
_ORPHANS_S = 1.0
"""Seconds between two looks for orphans, as process 1."""
_LOOK_S = 0.05
"""Seconds between two looks at children, where the kernel has no descriptors of processes."""
_MODULE = "servingd.supervisor.worker.worker_process"

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
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Child(Protocol):
    """A child process."""

    pid: int


_C = TypeVar("_C", bound=Child)


class Reaper:
    """Owns the thread `reaper`: it learns of the end of each of our children at once.

    As process 1 of a container it also reaps the children of others that have died.
    """

    def __init__(self, ended: Callable[[int, Death], None], adopts: bool | None = None) -> None:
        """`ended` is called on the thread, with one of our processes and how it has ended.

        `adopts`: whether orphans are reaped; None: as process 1 alone.
        """
        self._ended = ended
        self._adopts = os.getpid() == 1 if adopts is None else adopts
        self._lock = threading.Lock()
        self._children: dict[int, int] = {}  # our children's pidfds, -1: none; guarded by _lock
        self._stopping = False  # guarded by _lock
        self._kills = _out_of_memory_kills()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self, spawn: Callable[[], _C]) -> _C:
        """Begin a child, whose end is then told: even if it ends at once. Raises what spawn does.

        Nobody else waits for it meanwhile: its number stays its own.
        """
        with self._lock:
            child = spawn()
            descriptor = _pidfd(child.pid)
            self._children[child.pid] = descriptor
            if descriptor >= 0:
                self._selector.register(descriptor, selectors.EVENT_READ)
        os.write(self._wake, b"x")
        return child

    def stop(self) -> None:
        """End the thread once it waits for no child."""
        with self._lock:
            self._stopping = True
        os.write(self._wake, b"x")

    def _run(self) -> None:
        while self._goes_on():
            for key, _ in self._selector.select(self._look_s()):
                if key.fd == self._woken:
                    os.read(self._woken, 64)
            for pid, death in self._dead():
                self._ended(pid, death)
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    def _goes_on(self) -> bool:
        with self._lock:
            return bool(self._children) or not self._stopping

    def _look_s(self) -> float | None:
        """Return the seconds until the next look at what nothing tells of; None: none is needed."""
        with self._lock:
            if -1 in self._children.values():
                return _LOOK_S
        return _ORPHANS_S if self._adopts else None

    def _dead(self) -> list[tuple[int, Death]]:
        """Reap the children that have ended."""
        dead = []
        with self._lock:
            for pid in list(self._children):
                death = self._reaped(pid)
                if death is not None:
                    self._forget(pid)
                    dead.append((pid, death))
            while self._adopts and (orphan := _orphan()):
                pid, status = orphan
                if pid in self._children:
                    self._forget(pid)
                    dead.append((pid, self._death(status)))
        return dead

    def _reaped(self, pid: int) -> Death | None:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # whoever else has waited for it knows how it has ended
            return Death()
        return self._death(status) if found else None

    def _forget(self, pid: int) -> None:
        descriptor = self._children.pop(pid)
        if descriptor >= 0:
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def _death(self, status: int) -> Death:
        kills, self._kills = self._kills, _out_of_memory_kills()
        if os.WIFSIGNALED(status):
            return Death(os.WTERMSIG(status), 0, self._kills > kills)
        return Death(0, os.waitstatus_to_exitcode(status))


def _pidfd(pid: int) -> int:
    """Return a descriptor that is readable once a child has ended; -1 where there is none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def _orphan() -> tuple[int, int] | None:
    """Reap any child that has ended; return it and its status."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory, as far as it says."""
    for path, word in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == word:
                    return int(value)
    return 0
