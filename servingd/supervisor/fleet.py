"""Carry out for several workers what `fleet_state.py` decides: begin, command and replace them.

Everything that happens is a job of one thread, `fleet`: commands of the manager, news for all
workers, messages of a worker, the end of a process, heartbeats. It waits for nothing.

News of states go to all workers in one order, and not before each open worker has confirmed the
versions that were published before. So a client that reads AVAILABLE finds the version in
whichever worker it asks.
"""

from __future__ import annotations

import itertools
import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from servingd.config.models import ModelConfig
from servingd.config.server import ServerConfig
from servingd.core.callbacks import nothing
from servingd.core.lifecycle.events import (
    EventSink,
    LoadOverdue,
    StartEstimate,
    Unloaded,
    VersionCommand,
)
from servingd.core.lifecycle.labels import Labels
from servingd.core.types import ServableId, VersionData
from servingd.errors import Internal
from servingd.servables.registry import Platforms
from servingd.supervisor.channel import Channel
from servingd.supervisor.deaths import MAX_STRIKES, Backoff, Death, Strikes
from servingd.supervisor.fleet_state import Action, FleetState, LoadAgain, Open, Report, Send
from servingd.supervisor.leftovers import Baseline, is_worth_replacing, left_behind
from servingd.supervisor.loop import Loop
from servingd.supervisor.messages import (
    EVENTS,
    WIRE_VERSION,
    Answer,
    Ask,
    Configuration,
    Drain,
    EndRuns,
    Exit,
    Expect,
    Hello,
    Idle,
    LabelsAre,
    LastMetrics,
    Leave,
    OpenPorts,
    Ping,
    Pong,
    PortsOpen,
    Preload,
    Published,
    Settings,
    Settle,
    pack_models,
)
from servingd.supervisor.processes import Reaper, WorkerProcess
from servingd.supervisor.remote_control import Questions
from servingd.supervisor.run_marks import known

_HEARTBEAT_S = 5.0
_SILENT_S = 30.0
"""Seconds without an answer after which a worker is dumped and replaced."""
_HELLO_S = 120.0
"""Seconds that a worker may take to start."""
_KILL_S = 5.0
"""Seconds that a worker may take to write its stacks before it is killed."""
_CONFIRM_S = 2.0
"""Seconds that news wait for workers to confirm what was published."""
_FIGURES_S = 1.0
"""Seconds that a worker may take to answer a question about figures."""

_HEAVY = "tensorflow"
"""The servable type that takes seconds to import."""

_log = logging.getLogger(__name__)


class Snapshot(Protocol):
    """What a worker must be told when it starts."""

    def __call__(self) -> Iterable[object]:
        """Return the messages; on the thread `fleet`."""
        ...


@dataclass(slots=True)
class Running:
    """One worker: its process, its channel, and how it is."""

    key: int
    number: int
    process: WorkerProcess
    channel: Channel
    questions: Questions
    since: float
    heard: float
    hello: bool = False
    open: bool = False
    leaving: bool = False
    resident: int = 0
    unloads: int = 0
    """Versions that it has unloaded since it opened."""
    baseline: Baseline | None = None
    """How it was before the first unload."""
    reason: str = ""
    """Why the supervisor ends it; empty: it does not."""
    on_gone: list[Callable[[], None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How a worker is, for people to read."""

    number: int
    process: int
    state: str
    seconds: float
    resident_bytes: int


class WorkerFleet:
    """The fleet of `workers` processes; see `control.DataPlane` and `runtime.manager.fleet.Fleet`.

    Its methods are called from any thread.
    """

    def __init__(
        self,
        config: ServerConfig,
        workers: int,
        platforms: Platforms,
        snapshot: Snapshot,
        asked: Callable[[Ask, Callable[[Answer], object]], None],
    ) -> None:
        """Start nothing. `asked` takes the workers' questions, on the thread `fleet`."""
        self._config = config
        self._workers = workers
        self.platforms = platforms
        self._snapshot = snapshot
        self._asked = asked
        self._loop = Loop("fleet")
        self._reaper = Reaper(lambda pid, death: self._loop.put(lambda: self._died(pid, death)))
        self._events: EventSink
        # All below: the thread `fleet` alone.
        self._state = FleetState(workers)
        self._running: dict[int, Running] = {}
        self._keys = itertools.count(1)
        self._backoff = {number: Backoff() for number in range(1, workers + 1)}
        self._strikes = Strikes()
        self._news: deque[object] = deque()
        self._held_since = 0.0
        self._settings: tuple[ModelConfig, ...] = ()
        self._labels: Labels = {}
        self._expected: tuple[str, ...] | None = None
        self._settled: dict[str, None] = {}
        self._stopping = False
        self._recycling: deque[int] = deque()  # workers that are to be replaced
        self._successors: dict[int, int] = {}  # which worker each new one is to replace
        self._drained: set[int] = set()  # workers that have yet to say that they are idle
        self._on_drained: Callable[[], None] = nothing
        self._on_empty: Callable[[], None] = nothing
        self._preloaded = False  # whether there has been a SavedModel
        self._anyone_came = False  # whether a worker has ever started
        self.restarts: Counter[str] = Counter()
        """The workers that were begun anew, by the reason."""
        self.unanswered = 0
        """Questions about figures that a worker did not answer in time."""
        self.seen: tuple[WorkerStatus, ...] = ()
        """How the workers were when one last changed. Replaced whole."""
        self.held: Callable[[], int] = int
        """Returns the bytes that all models are planned to hold, in all workers."""
        self.on_metrics: Callable[[int, bytes], None] = nothing
        self.on_gone: Callable[[int], None] = nothing
        self.on_hopeless: Callable[[], None] = nothing
        """Called if no worker can start at all."""
        self.on_quarantine: Callable[[ServableId, VersionData], None] = nothing

    # What the control plane commands --------------------------------------------------------------

    @property
    def versions(self) -> WorkerFleet:
        """Itself: it carries out the manager's commands."""
        return self

    @property
    def holds_calls(self) -> bool:
        """Return True: the workers know whether they hold calls."""
        return True

    def start(self, events: EventSink) -> None:
        """Take commands; each event about a version is put into `events`."""
        self._events = events

    def begin(self) -> None:
        """Start the workers."""
        self._reaper.start()
        self._loop.start()
        for number in range(1, self._workers + 1):
            self._loop.put(lambda number=number: self._spawn(number))  # type: ignore[misc]
        self._loop.put_after(_HEARTBEAT_S, self._beat)

    def handle(self, command: VersionCommand) -> None:
        """Let every worker carry out a command, or begin to."""

        def job() -> None:
            if isinstance(command, StartEstimate) and command.data.platform == _HEAVY:
                self._preload()
            self._carry_out(self._state.command(command))

        self._loop.put(job)

    def give_up(self, overdue: LoadOverdue) -> bool:
        """Return True: a worker has given the attempt up already."""
        return True

    def label(self, labels: Labels) -> None:
        """Replace all labels in all workers."""

        def job() -> None:
            self._labels = labels
            self._tell(LabelsAre(labels))

        self._loop.put(job)

    def configure(self, models: Iterable[ModelConfig]) -> None:
        """Replace the settings of all models."""
        wanted = tuple(models)

        def job() -> None:
            self._settings = wanted
            self._tell(Settings(pack_models(wanted)))

        self._loop.put(job)

    def expect(self, names: Collection[str]) -> None:
        """Tell which models there are, for calls that are held."""
        wanted = tuple(sorted(names))

        def job() -> None:
            self._expected = wanted
            self._settled = {name: None for name in self._settled if name in wanted}
            self._tell(Expect(wanted))

        self._loop.put(job)

    def settle(self, name: str) -> None:
        """Let the calls that are held for a model go on."""

        def job() -> None:
            if name not in self._settled:
                self._settled[name] = None
                self._tell(Settle(name))

        self._loop.put(job)

    def end_runs(self) -> None:
        """End every run of a model in every worker."""
        self._loop.put(lambda: self._tell(EndRuns()))

    def tell(self, message: object) -> None:
        """Send news of states to every worker, after what is published is confirmed."""
        self._loop.put(lambda: self._tell(message))

    def stop_loads(self, timeout_s: float) -> list[str]:
        """Return nothing: loads end with the workers."""
        return []

    # The stop -------------------------------------------------------------------------------------

    def drain(self, within_s: float) -> bool:
        """Let every worker refuse new calls and answer those in flight; return whether all did."""
        done = threading.Event()

        def job() -> None:
            self._stopping = True
            waiting = {r.key for r in self._running.values() if r.hello}
            self._drained = waiting
            self._on_drained = done.set
            for running in self._running.values():
                running.channel.send(Drain(within_s))
            if not waiting:
                done.set()

        self._loop.put(job)
        return done.wait(within_s + 1.0)

    def stop(self, timeout_s: float) -> list[str]:
        """Return nothing: workers are ended by `end`."""
        return []

    def end(self, timeout_s: float) -> None:
        """End the workers: by command, then by force."""
        ended = threading.Event()

        def job() -> None:
            self._stopping = True
            self._on_empty = ended.set
            for running in self._running.values():
                if running.hello:
                    running.channel.send(Exit())
                else:
                    running.process.signal(signal.SIGKILL)
            if not self._running:
                ended.set()

        self._loop.put(job)
        if not ended.wait(timeout_s):
            self._loop.put(self._kill_all)
            ended.wait(5.0)
        self._reaper.stop()
        self._loop.stop(2.0)

    def _kill_all(self) -> None:
        for running in self._running.values():
            running.process.signal(signal.SIGKILL)

    # What is asked of the fleet -------------------------------------------------------------------

    def gather(self, what: str, body: bytes, then: Callable[[Mapping[int, bytes]], None]) -> None:
        """Ask every worker; `then` gets what was answered within a second, by worker.

        It is called on the thread `fleet`, or that of a worker's channel.
        """
        self._loop.put(lambda: self._gather(what, body, then))

    def _gather(self, what: str, body: bytes, then: Callable[[Mapping[int, bytes]], None]) -> None:
        gathering = _Gathering({r.key for r in self._running.values() if r.hello}, then)
        for running in list(self._running.values()):
            if running.hello:
                key = running.key
                running.questions.ask(
                    what,
                    body,
                    lambda answer, key=key: gathering.take(key, answer),  # type: ignore[misc]
                )
        if gathering.waiting:
            self._loop.put_after(_FIGURES_S, lambda: self._end_gathering(gathering))
        else:
            gathering.end()

    def _end_gathering(self, gathering: _Gathering) -> None:
        if not gathering.over:
            self.unanswered += len(gathering.waiting)
            gathering.end()

    def _see(self) -> None:
        """Replace what is shown of the workers."""
        now = time.monotonic()
        self.seen = tuple(
            WorkerStatus(r.number, r.process.pid, self._phase(r), now - r.since, r.resident)
            for r in sorted(self._running.values(), key=lambda r: (r.number, r.key))
        )

    def _phase(self, running: Running) -> str:
        if not running.hello:
            return "starting"
        if running.leaving:
            return "leaving"
        return "serving" if running.open else "joining"

    # Replacing workers on purpose -----------------------------------------------------------------

    def recycle(self, only_one: bool, begun: Callable[[list[int]], None]) -> None:
        """Replace workers one after the other, each by one that serves already.

        `begun` gets their processes, on the thread `fleet`: they are gone once all is done.
        """

        def job() -> None:
            oldest = sorted(self._running.values(), key=lambda r: r.key)
            there = [r for r in oldest if r.hello and not r.leaving]
            chosen = there[:1] if only_one else there
            idle = not self._recycling
            self._recycling.extend(r.key for r in chosen if r.key not in self._recycling)
            begun([r.process.pid for r in chosen])
            if idle:
                self._recycle_next()

        self._loop.put(job)

    def _recycle_next(self) -> None:
        """Begin the worker that takes the next one's place."""
        while self._recycling:
            key = self._recycling[0]
            if key in self._running and not self._stopping:
                self._spawn(self._running[key].number, replaces=key)
                return
            self._recycling.popleft()

    def _replaced(self, old: int) -> None:
        """Let the old worker leave: the one in its place is open."""
        running = self._running.get(old)
        if running is None:
            self._recycled(old)
            return
        running.leaving = True
        self._see()
        self.restarts["recycled"] += 1
        running.on_gone.append(lambda: self._recycled(old))
        self._state.leaving(old)
        within_s = self._config.drain_timeout_s
        running.channel.send(Leave(within_s))
        _log.info("worker %d (process %d) leaves", running.number, running.process.pid)
        self._loop.put_after(within_s + 10.0, lambda: running.process.signal(signal.SIGKILL))

    def _recycled(self, key: int) -> None:
        if self._recycling and self._recycling[0] == key:
            self._recycling.popleft()
            self._recycle_next()

    # Processes: the thread `fleet` ----------------------------------------------------------------

    def _spawn(self, number: int, replaces: int | None = None) -> None:
        if self._stopping:
            return
        key = next(self._keys)
        try:
            process = WorkerProcess(number)
        except OSError as error:
            _log.error("a worker cannot be started: %s", error)
            self._loop.put_after(
                self._backoff[number].pause(time.monotonic()) or 1.0,
                lambda: self._spawn(number, replaces),
            )
            return
        channel = Channel(
            f"worker-{number}",
            process.connection,
            lambda message: self._received(key, message),
            nothing,
        )
        now = time.monotonic()
        running = Running(key, number, process, channel, Questions(channel.send), now, now)
        self._running[key] = running
        if replaces is not None:
            running.on_gone.append(lambda: self._recycled(replaces) if not running.open else None)
            self._successors[key] = replaces
        channel.start()
        channel.send(Configuration(WIRE_VERSION, self._config, number, self._workers))
        self._reaper.expect()
        self._see()
        _log.info("worker %d is process %d", number, process.pid)

    def _died(self, pid: int, death: Death) -> None:
        running = next((r for r in self._running.values() if r.process.pid == pid), None)
        if running is None:
            return  # somebody else's child
        del self._running[running.key]
        self._log_death(running, death)
        blamed = self._blamed(running, death)
        running.channel.close()
        running.questions.fail_all(Internal("the worker has died"))
        running.process.close()
        self.on_gone(running.key)
        self._carry_out(self._state.died(running.key))
        if blamed:
            self._blame(blamed, death)
        self._successors.pop(running.key, None)
        for job in running.on_gone:
            job()
        if not running.leaving and not self._stopping:
            if not self._anyone_came and death.reason == "exit":
                self.on_hopeless()
                return
            self._begin_anew(running, death)
        self._see()
        self._confirm()
        self._idle(running.key)
        if not self._running:
            self._on_empty()

    def _begin_anew(self, running: Running, death: Death) -> None:
        self.restarts[running.reason or death.reason] += 1
        if any(r.number == running.number and not r.leaving for r in self._running.values()):
            return  # it was being replaced already
        pause = self._backoff[running.number].pause(time.monotonic())
        if pause:
            _log.warning("worker %d is begun anew in %g s", running.number, pause)
        self._loop.put_after(pause, lambda: self._spawn(running.number))

    def _log_death(self, running: Running, death: Death) -> None:
        if running.leaving or self._stopping:
            _log.info("worker %d (process %d) has ended", running.number, running.process.pid)
            return
        how = f"exit status {death.status}" if death.reason == "exit" else death.reason
        _log.error("worker %d (process %d) died: %s", running.number, running.process.pid, how)
        stacks = running.process.dump()
        if stacks:
            _log.error("its stacks:\n%s", stacks.decode(errors="replace"))

    def _blamed(self, running: Running, death: Death) -> list[ServableId]:
        """Return the versions of which the worker may have died."""
        if not death.by_a_version or running.reason:
            return []
        member = self._state.members.get(running.key)
        there = list(member.has) if member else []
        ran = known(running.process.marks.running(running.process.crashed_thread()), there)
        return ran or self._state.loading(running.key)

    def _blame(self, blamed: Iterable[ServableId], death: Death) -> None:
        worst = self._strikes.count(blamed, time.monotonic())
        if worst is None:
            return
        version = self._state.versions.get(worst)
        if version is None:
            return
        error = Internal(
            f"{worst} is quarantined: {MAX_STRIKES} workers have died of it, the last one by "
            f"{death.reason}"
        )
        _log.error("%s", error)
        self.on_quarantine(worst, version.start.data)
        self._carry_out(self._state.quarantine(worst, error))

    def _beat(self) -> None:
        """Send heartbeats; replace workers that do not answer."""
        now = time.monotonic()
        for running in list(self._running.values()):
            limit = _SILENT_S if running.hello else _HELLO_S
            if now - running.heard > limit and not running.reason:
                running.reason = "silent"
                _log.error("worker %d has not answered for %g s", running.number, limit)
                running.process.signal(signal.SIGABRT)  # it writes its stacks
                self._loop.put_after(_KILL_S, lambda p=running.process: p.signal(signal.SIGKILL))  # type: ignore[misc]
            elif not running.channel.send(Ping()):
                running.reason = "silent"
                running.process.signal(signal.SIGKILL)
        self._loop.put_after(_HEARTBEAT_S, self._beat)

    # Messages -------------------------------------------------------------------------------------

    def _received(self, key: int, message: Any) -> None:
        """Take a message of a worker; on the thread of its channel."""
        running = self._running.get(key)
        if running is not None and isinstance(message, Answer):
            running.questions.answer(message)
            return
        self._loop.put(lambda: self._take(key, message))

    def _take(self, key: int, message: Any) -> None:
        running = self._running.get(key)
        if running is None:
            return
        running.heard = time.monotonic()
        if isinstance(message, Unloaded) and running.open:
            running.unloads += 1
        if type(message) in EVENTS:
            self._carry_out(self._state.event(key, message))
            self._confirm()
            return
        match message:
            case Hello():
                self._joined(running)
            case Published(servable_id):
                self._carry_out(self._state.published(key, servable_id))
                self._confirm()
            case PortsOpen():
                self._opened(running)
            case Ask():
                self._asked(message, running.channel.send)
            case _:
                self._note(running, message)

    def _note(self, running: Running, message: Any) -> None:
        """Take note of how a worker is."""
        match message:
            case Idle():
                self._idle(running.key)
            case Pong(resident):
                running.resident = resident
                self._see()
                self._recycle_if_worth_it(running)
            case LastMetrics(snapshot):
                self.on_metrics(running.key, snapshot)

    def _recycle_if_worth_it(self, running: Running) -> None:
        """Replace a worker in which unloads have left much behind; one at a time."""
        if not running.open or running.leaving:
            return
        held = self.held() // self._workers
        if running.baseline is None or not running.unloads:
            running.baseline = Baseline(running.resident, held)
            return
        share = self._config.recycle_above
        if self._recycling or not is_worth_replacing(
            running.baseline, running.resident, held, share
        ):
            return
        _log.info(
            "worker %d is replaced: unloads have left %d MiB behind",
            running.number,
            left_behind(running.baseline, running.resident, held) >> 20,
        )
        self._recycling.append(running.key)
        self._recycle_next()

    def _opened(self, running: Running) -> None:
        running.open = True
        self._see()
        _log.info("worker %d serves", running.number)
        if running.key in self._successors:
            self._replaced(self._successors.pop(running.key))

    def _idle(self, key: int) -> None:
        """Take note that a worker has answered its calls, or is gone."""
        self._drained.discard(key)
        if not self._drained:
            self._on_drained()

    def _preload(self) -> None:
        """Let all workers import TensorFlow at the same time."""
        if not self._preloaded:
            self._preloaded = True
            self._broadcast(Preload())

    def _joined(self, running: Running) -> None:
        """Tell a worker that has started everything that the others know."""
        running.hello = self._anyone_came = True
        self._see()
        send = running.channel.send
        send(Settings(pack_models(self._settings)))
        send(LabelsAre(self._labels))
        if self._preloaded:
            send(Preload())
        for message in self._snapshot():
            send(message)
        if self._expected is not None:
            send(Expect(self._expected))
        for name in self._settled:
            send(Settle(name))
        self._carry_out(self._state.joined(running.key))

    def _tell(self, message: object) -> None:
        if self._state.publishing or self._news:
            if not self._news:
                self._held_since = time.monotonic()
                self._loop.put_after(_CONFIRM_S, self._confirm)
            self._news.append(message)
        else:
            self._broadcast(message)

    def _confirm(self) -> None:
        """Send the news that have waited, if all has been confirmed or the time for it is over."""
        late = time.monotonic() - self._held_since >= _CONFIRM_S
        while self._news and (late or not self._state.publishing):
            self._broadcast(self._news.popleft())

    def _broadcast(self, message: object) -> None:
        for running in self._running.values():
            if running.hello:
                running.channel.send(message)

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(key, command):
                    self._running[key].channel.send(command)
                case Report(event):
                    self._events.put(event)
                case Open(key):
                    self._running[key].channel.send(OpenPorts())
                case LoadAgain(key, servable_id, after_s):
                    self._load_again_after(key, servable_id, after_s)

    def _load_again_after(self, key: int, servable_id: ServableId, after_s: float) -> None:
        _log.warning(
            "%s is tried again in %g s, in a worker that failed to load it", servable_id, after_s
        )
        self._loop.put_after(
            after_s, lambda: self._carry_out(self._state.load_again(key, servable_id))
        )


class _Gathering:
    """Answers of several workers to one question. Thread-safe."""

    def __init__(self, waiting: set[int], then: Callable[[Mapping[int, bytes]], None]) -> None:
        self.waiting = waiting
        self.over = False
        self._then = then
        self._lock = threading.Lock()
        self._answers: dict[int, bytes] = {}

    def take(self, key: int, answer: Answer) -> None:
        """Take a worker's answer; the last one ends the gathering."""
        with self._lock:
            self.waiting.discard(key)
            if answer.error is None:
                self._answers[key] = answer.body
            last = not self.waiting
        if last:
            self.end()

    def end(self) -> None:
        """Hand over what was answered; once."""
        with self._lock:
            if self.over:
                return
            self.over = True
        self._then(dict(self._answers))
