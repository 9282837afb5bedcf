"""The worker processes: begin them, hear from them, replace those that die, hang or are old.

Used by the thread `fleet` alone; `seen` and `restarts` are read by others.
"""

from __future__ import annotations

import itertools
import logging
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from servingd.config.server import ServerConfig
from servingd.core.callbacks import nothing
from servingd.errors import Unavailable
from servingd.runtime.loop import Loop
from servingd.supervisor.link.channel import Channel
from servingd.supervisor.link.messages import (
    WIRE_VERSION,
    Answer,
    Configuration,
    Leave,
    Ping,
)
from servingd.supervisor.link.questions import Questions
from servingd.supervisor.processes.deaths import Backoff, Death
from servingd.supervisor.processes.leftovers import Baseline, is_worth_replacing, left_behind
from servingd.supervisor.processes.process import Reaper, WorkerProcess
from servingd.supervisor.processes.worker_handle import WorkerHandle, WorkerStatus

_HEARTBEAT_S = 5.0
_SILENT_S = 30.0
"""Seconds without an answer after which a worker is dumped and replaced."""
_HELLO_S = 120.0
"""Seconds that a worker may take to start."""
_KILL_S = 5.0
"""Seconds that a worker may take to write its stacks before it is killed."""
_RECYCLE_S = 600.0
"""Seconds that a worker may take to load what the one that it replaces serves."""
_LEAVE_S = 10.0
"""Seconds beyond the time for calls in flight that a worker may take to leave."""

_log = logging.getLogger(__name__)


class CrewListener(Protocol):
    """Who hears of the workers; on the thread `fleet`."""

    def taken(self, worker: WorkerHandle, message: Any) -> None:
        """Take a message of a worker."""
        ...

    def leaving(self, worker: WorkerHandle) -> None:
        """Take note that a worker is told to leave."""
        ...

    def died(self, worker: WorkerHandle, death: Death) -> None:
        """Take note of the end of a worker, before another one takes its place."""
        ...

    def hopeless(self) -> None:
        """Take note that no worker can start at all."""
        ...


class Crew:
    """Owns the processes and the thread `reaper`."""

    def __init__(
        self,
        config: ServerConfig,
        workers: int,
        loop: Loop,
        listener: CrewListener,
        start_process: Callable[[int], WorkerProcess] = WorkerProcess,
    ) -> None:
        """Start nothing. `start_process` begins the process of a worker with a number."""
        self._start_process = start_process
        self._config = config
        self._size = workers
        self._loop = loop
        self._listener = listener
        self._reaper = Reaper(lambda pid, death: loop.put(lambda: self._died(pid, death)))
        self._handles: dict[int, WorkerHandle] = {}
        self._keys = itertools.count(1)
        self._backoff = {number: Backoff() for number in range(1, workers + 1)}
        self._recycling: deque[int] = deque()  # workers that are to be replaced
        self._anyone_came = False  # whether a worker has ever started
        self.stopping = False
        """Whether no worker is begun any more."""
        self.restarts: Counter[str] = Counter()
        """The workers that were replaced, by the reason."""
        self.seen: tuple[WorkerStatus, ...] = ()
        """How the workers were when one last changed. Replaced whole."""

    def __iter__(self) -> Iterator[WorkerHandle]:
        """Return the workers that have started."""
        return iter([worker for worker in self._handles.values() if worker.hello])

    def __len__(self) -> int:
        return len(self._handles)

    def __getitem__(self, key: int) -> WorkerHandle:
        return self._handles[key]

    def begin(self) -> None:
        """Start the workers."""
        self._reaper.start()
        for number in range(1, self._size + 1):
            self._spawn(number)
        self._loop.put_after(_HEARTBEAT_S, self._beat)

    def end(self) -> None:
        """Wait for no process any more, once all have ended."""
        self._reaper.stop()

    def kill(self, *, starting_only: bool = False) -> None:
        """Kill the workers, or those that cannot be commanded."""
        for worker in self._handles.values():
            if not (starting_only and worker.hello):
                worker.process.signal(signal.SIGKILL)

    def note_hello(self, worker: WorkerHandle) -> None:
        """Take note that a worker has started."""
        worker.hello = self._anyone_came = True
        self._see()

    def note_open(self, worker: WorkerHandle) -> None:
        """Take note that a worker's ports are open; the one that it replaces leaves."""
        worker.open = True
        self._see()
        _log.info("worker %d serves", worker.number)
        if worker.replaces is not None:
            self._leave(worker.replaces)
            worker.replaces = None

    def note_resident(self, worker: WorkerHandle, resident: int, held: int) -> None:
        """Take note of a worker's memory; replace it if unloads have left much behind.

        `held` are the bytes that its models hold.
        """
        worker.resident = resident
        self._see()
        if not worker.open or worker.leaving:
            return
        if worker.baseline is None or not worker.unloads:
            worker.baseline = Baseline(resident, held)
            return
        share = self._config.recycle_above
        if self._recycling or not is_worth_replacing(worker.baseline, resident, held, share):
            return
        left = left_behind(worker.baseline, resident, held) >> 20
        _log.info("worker %d is replaced: unloads have left %d MiB behind", worker.number, left)
        self._recycling.append(worker.key)
        self._recycle_next()

    def recycle(self, only_one: bool) -> list[int]:
        """Replace workers one after the other, each by one that serves already.

        Returns their processes: they are gone once all is done.
        """
        there = [w for _, w in sorted(self._handles.items()) if w.hello and not w.leaving]
        chosen = there[:1] if only_one else there
        idle = not self._recycling
        self._recycling.extend(w.key for w in chosen if w.key not in self._recycling)
        if idle:
            self._recycle_next()
        return [worker.process.pid for worker in chosen]

    def _recycle_next(self) -> None:
        """Begin the worker that takes the next one's place."""
        while self._recycling:
            key = self._recycling[0]
            if key in self._handles and not self.stopping:
                self._begin_successor(key)
                return
            self._recycling.popleft()

    def _begin_successor(self, key: int) -> None:
        self._spawn(self._handles[key].number, replaces=key)
        self._loop.put_after(_RECYCLE_S, lambda: self._give_up_recycling(key))

    def _give_up_recycling(self, key: int) -> None:
        """End a worker that has not opened in time; the one that it was to replace stays."""
        for worker in self._handles.values():
            if worker.replaces == key:
                _log.error("worker %d has not opened within %g s", worker.number, _RECYCLE_S)
                worker.reason = "silent"
                worker.process.signal(signal.SIGKILL)

    def _leave(self, key: int) -> None:
        """Let a worker leave: the one in its place is open."""
        worker = self._handles.get(key)
        if worker is None:
            self._end_recycling(key)
            return
        worker.leaving = True
        self.restarts["recycled"] += 1
        self._see()
        self._listener.leaving(worker)
        within_s = self._config.drain_timeout_s
        worker.channel.send(Leave(within_s))
        _log.info("worker %d (process %d) leaves", worker.number, worker.process.pid)
        self._loop.put_after(within_s + _LEAVE_S, lambda: worker.process.signal(signal.SIGKILL))

    def _end_recycling(self, key: int) -> None:
        if self._recycling and self._recycling[0] == key:
            self._recycling.popleft()
            self._recycle_next()

    # Lives ----------------------------------------------------------------------------------------

    def _spawn(self, number: int, replaces: int | None = None) -> None:
        if self.stopping:
            return
        key, now = next(self._keys), time.monotonic()
        try:
            process = self._reaper.begin(lambda: self._start_process(number))
        except OSError as error:
            _log.error("a worker cannot be started: %s", error)
            pause = self._backoff[number].pause(now) or 1.0
            self._loop.put_after(pause, lambda: self._spawn(number, replaces))
            return
        channel = Channel(
            f"worker-{number}", process.connection, lambda m: self._received(worker, m), nothing
        )
        worker = WorkerHandle(key, number, process, channel, Questions(channel.send), now, now)
        worker.replaces = replaces
        self._handles[key] = worker
        channel.start()
        channel.send(Configuration(WIRE_VERSION, self._config, number, self._size))
        self._see()
        _log.info("worker %d is process %d", number, process.pid)

    def _received(self, worker: WorkerHandle, message: Any) -> None:
        """Take a message of a worker; on the thread of its channel."""
        if isinstance(message, Answer):
            worker.questions.answer(message)
        else:
            self._loop.put(lambda: self._take(worker, message))

    def _take(self, worker: WorkerHandle, message: Any) -> None:
        if worker.key in self._handles:
            worker.heard = time.monotonic()
            self._listener.taken(worker, message)

    def _died(self, pid: int, death: Death) -> None:
        worker = next((w for w in self._handles.values() if w.process.pid == pid), None)
        if worker is None:
            return  # somebody else's child
        del self._handles[worker.key]
        self._log_death(worker, death)
        worker.channel.close()
        worker.questions.fail_all(Unavailable("the worker has died"))
        self._see()
        self._listener.died(worker, death)
        worker.process.close()
        self._end_recycling(worker.key)
        if worker.replaces is not None:  # it has not come to its end: the old one stays
            self._end_recycling(worker.replaces)
        elif not worker.leaving and not self.stopping:
            self._begin_anew(worker, death)

    def _begin_anew(self, worker: WorkerHandle, death: Death) -> None:
        if not self._anyone_came and death.reason == "exit":
            self._listener.hopeless()
            return
        self.restarts[worker.reason or death.reason] += 1
        if any(w.number == worker.number for w in self._handles.values()):
            return  # it was being replaced already
        pause = self._backoff[worker.number].pause(time.monotonic())
        if pause:
            _log.warning("worker %d is begun anew in %g s", worker.number, pause)
        self._loop.put_after(pause, lambda: self._spawn(worker.number))

    def _log_death(self, worker: WorkerHandle, death: Death) -> None:
        if worker.leaving or self.stopping:
            _log.info("worker %d (process %d) has ended", worker.number, worker.process.pid)
            return
        _log.error("worker %d (process %d) died: %s", worker.number, worker.process.pid, death)
        stacks = worker.process.dump()
        if stacks:
            _log.error("its stacks:\n%s", stacks.decode(errors="replace"))

    def _beat(self) -> None:
        """Send heartbeats; replace workers that do not answer."""
        now = time.monotonic()
        for worker in self._handles.values():
            # One that has not said Hello may answer heartbeats, and hang nevertheless.
            limit, since = _HELLO_S, worker.since
            if worker.hello:
                limit, since = _SILENT_S, worker.heard
            if worker.reason:
                continue
            if now - since > limit:
                _log.error("worker %d has not answered for %g s", worker.number, limit)
                self._replace_silent(worker)
            elif not worker.channel.send(Ping()):
                _log.error("worker %d reads no messages", worker.number)
                self._replace_silent(worker)
        self._loop.put_after(_HEARTBEAT_S, self._beat)

    def _replace_silent(self, worker: WorkerHandle) -> None:
        worker.reason = "silent"
        worker.process.signal(signal.SIGABRT)  # it writes its stacks
        self._loop.put_after(_KILL_S, lambda: worker.process.signal(signal.SIGKILL))

    def _see(self) -> None:
        """Replace what is shown of the workers."""
        now = time.monotonic()
        order = sorted(self._handles.values(), key=lambda w: (w.number, w.key))
        self.seen = tuple(worker.status(now) for worker in order)
