"""Carry out for several workers what `state.py` decides, and blame what they die of.

Everything that happens is a job of one thread, `fleet`: commands of the manager, news for all
workers, messages of a worker, the end of a process, heartbeats. It waits for nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
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
from servingd.runtime.loop import Loop
from servingd.servables.registry import Platforms
from servingd.supervisor.fleet.gathering import Gathering, Then
from servingd.supervisor.fleet.news import News, NewsListener
from servingd.supervisor.fleet.records import Action, LoadAgain, Open, Report, Send
from servingd.supervisor.fleet.state import FleetState
from servingd.supervisor.link.messages import (
    EVENTS,
    Ask,
    Drain,
    EndRuns,
    Exit,
    Hello,
    Idle,
    LastMetrics,
    OpenPorts,
    Pong,
    PortsOpen,
    Published,
)
from servingd.supervisor.processes.crew import Crew
from servingd.supervisor.processes.deaths import MAX_STRIKES, Death, Strikes
from servingd.supervisor.processes.process import WorkerProcess
from servingd.supervisor.processes.run_marks import known
from servingd.supervisor.processes.worker_handle import WorkerHandle

_FIGURES_S = 1.0
"""Seconds that a worker may take to answer a question about figures."""
_KILLED_S = 5.0
"""Seconds that killed workers may take to end."""

_HEAVY = "tensorflow"
"""The servable type that takes seconds to import."""

_log = logging.getLogger(__name__)


class FleetListener(NewsListener, Protocol):
    """Who hears of the fleet, and answers its workers; on the thread `fleet`."""

    def asked(self, ask: Ask, reply: Callable[[object], object]) -> None:
        """Answer a worker's question, now or later, by passing an `Answer` to `reply`."""
        ...

    def held(self) -> int:
        """Return the bytes that all models are planned to hold, in all workers."""
        ...

    def metrics_came(self, worker: int, snapshot: bytes) -> None:
        """Take the last metrics of a worker that ends."""
        ...

    def gone(self, worker: int) -> None:
        """Take note of a worker's end."""
        ...

    def quarantined(self, servable_id: ServableId, data: VersionData) -> None:
        """Take note that workers die of a version."""
        ...

    def hopeless(self) -> None:
        """Take note that no worker can start at all."""
        ...


class WorkerFleet:
    """The fleet of `workers` processes; see `control.DataPlane` and `runtime.manager.fleet.Fleet`.

    Its public methods are called from any thread, but for those of `CrewListener`.
    """

    def __init__(
        self,
        config: ServerConfig,
        workers: int,
        platforms: Platforms,
        listener: FleetListener,
        start_process: Callable[[int], WorkerProcess] = WorkerProcess,
    ) -> None:
        """Start nothing. `start_process` begins the process of a worker with a number."""
        self.platforms = platforms
        self._workers = workers
        self._listener = listener
        self._loop = Loop("fleet")
        self.crew = Crew(config, workers, self._loop, self, start_process)
        self._events: EventSink
        # All below: the thread `fleet` alone.
        self._state = FleetState(workers)
        self._strikes = Strikes()
        self._news = News(self.crew, self._loop, lambda: self._state.publishing, listener)
        self._drained: set[int] = set()  # workers that have yet to say that they are idle
        self._on_drained: Callable[[], None] = nothing
        self._on_empty: Callable[[], None] = nothing
        self.unanswered = 0
        """Questions about figures that a worker did not answer in time; read by others."""

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
        self._loop.start()
        self._loop.put(self.crew.begin)

    def handle(self, command: VersionCommand) -> None:
        """Let every worker carry out a command, or begin to."""

        def job() -> None:
            if isinstance(command, StartEstimate) and command.data.platform == _HEAVY:
                self._news.preload()
            self._carry_out(self._state.command(command))

        self._loop.put(job)

    def give_up(self, overdue: LoadOverdue) -> bool:
        """Return True: a worker has given the attempt up already."""
        return True

    def label(self, labels: Labels) -> None:
        """Replace all labels in all workers."""
        self._loop.put(lambda: self._news.label(labels))

    def configure(self, models: Iterable[ModelConfig]) -> None:
        """Replace the settings of all models."""
        wanted = tuple(models)
        self._loop.put(lambda: self._news.configure(wanted))

    def expect(self, names: Collection[str]) -> None:
        """Tell which models there are, for calls that are held."""
        wanted = tuple(sorted(names))
        self._loop.put(lambda: self._news.expect(wanted))

    def settle(self, name: str) -> None:
        """Let the calls that are held for a model go on."""
        self._loop.put(lambda: self._news.settle(name))

    def end_runs(self) -> None:
        """End every run of a model in every worker."""
        self._loop.put(lambda: self._news.tell(EndRuns()))

    def tell(self, message: object) -> None:
        """Send news of states to every worker, after what is published is confirmed."""
        self._loop.put(lambda: self._news.tell(message))

    def stop_loads(self, timeout_s: float) -> list[str]:
        """Return nothing: loads end with the workers."""
        return []

    # The stop -------------------------------------------------------------------------------------

    def drain(self, within_s: float) -> bool:
        """Let every worker refuse new calls and answer those in flight; return whether all did."""
        done = threading.Event()

        def job() -> None:
            self.crew.stopping = True
            self._drained = {worker.key for worker in self.crew}
            self._on_drained = done.set
            self._news.broadcast(Drain(within_s))
            if not self._drained:
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
            self.crew.stopping = True
            self._on_empty = ended.set
            self._news.broadcast(Exit())
            self.crew.kill(starting_only=True)
            if not self.crew:
                ended.set()

        self._loop.put(job)
        if not ended.wait(timeout_s):
            self._loop.put(self.crew.kill)
            ended.wait(_KILLED_S)
        self.crew.end()
        self._loop.stop(2.0)

    # What is asked of the fleet -------------------------------------------------------------------

    def gather(self, what: str, body: bytes, then: Then, within_s: float = _FIGURES_S) -> None:
        """Ask every worker; `then` gets what was answered in time, by worker.

        It is called on the thread `fleet`, or that of a worker's channel.
        """
        self._loop.put(lambda: self._gather(what, body, then, within_s))

    def _gather(self, what: str, body: bytes, then: Then, within_s: float) -> None:
        there = list(self.crew)
        gathering = Gathering({worker.key for worker in there}, then)
        for worker in there:
            worker.questions.ask(
                what,
                body,
                lambda answer, key=worker.key: gathering.take(key, answer),  # type: ignore[misc]
            )
        if there:
            self._loop.put_after(within_s, lambda: self._end(gathering))
        else:
            gathering.end()

    def _end(self, gathering: Gathering) -> None:
        self.unanswered += gathering.end()

    def recycle(self, only_one: bool, begun: Callable[[list[int]], None]) -> None:
        """Replace workers; `begun` gets their processes, on the thread `fleet`. See `Crew`."""
        self._loop.put(lambda: begun(self.crew.recycle(only_one)))

    # What the crew tells: the thread `fleet` ------------------------------------------------------

    def taken(self, worker: WorkerHandle, message: Any) -> None:
        """Take a message of a worker; see `CrewListener`."""
        if isinstance(message, Unloaded) and worker.open:
            worker.unloads += 1
        if type(message) in EVENTS:
            self._carry_out(self._state.event(worker.key, message))
            self._news.confirm()
            return
        match message:
            case Hello():
                self.crew.note_hello(worker)
                self._news.greet(worker)
                self._carry_out(self._state.joined(worker.key))
            case Published(servable_id):
                self._carry_out(self._state.published(worker.key, servable_id))
                self._news.confirm()
            case PortsOpen():
                self.crew.note_open(worker)
            case Ask():
                self._listener.asked(message, worker.channel.send)
            case _:
                self._note(worker, message)

    def _note(self, worker: WorkerHandle, message: Any) -> None:
        """Take note of how a worker is."""
        match message:
            case Idle():
                self._idle(worker.key)
            case Pong(resident):
                held = self._listener.held() // self._workers
                self.crew.note_resident(worker, resident, held)
            case LastMetrics(snapshot):
                self._listener.metrics_came(worker.key, snapshot)

    def _idle(self, key: int) -> None:
        """Take note that a worker has answered its calls, or is gone."""
        self._drained.discard(key)
        if not self._drained:
            self._on_drained()

    def leaving(self, worker: WorkerHandle) -> None:
        """Wait no more for what a worker loads; see `CrewListener`."""
        self._carry_out(self._state.leaving(worker.key))

    def died(self, worker: WorkerHandle, death: Death) -> None:
        """Have the others do what it has left; see `CrewListener`."""
        blamed = self._blamed(worker, death)
        self._listener.gone(worker.key)
        self._carry_out(self._state.died(worker.key))
        if blamed:
            self._blame(blamed, death)
        self._news.confirm()
        self._idle(worker.key)
        if not self.crew:
            self._on_empty()

    def hopeless(self) -> None:
        """See `CrewListener`."""
        self._listener.hopeless()

    def _blamed(self, worker: WorkerHandle, death: Death) -> list[ServableId]:
        """Return the versions of which a worker may have died."""
        if not death.by_a_version or worker.reason:
            return []
        member, process = self._state.members.get(worker.key), worker.process
        loading = self._state.loading(worker.key)
        there = [*(member.has if member else ()), *loading]
        ran = known(process.marks.running(process.crashed_thread()), there)
        return list(dict.fromkeys(ran)) or loading

    def _blame(self, blamed: Iterable[ServableId], death: Death) -> None:
        worst = self._strikes.count(blamed, time.monotonic())
        if worst is None:
            return
        version = self._state.versions.get(worst)
        if version is None:
            return
        error = Internal(
            f"{worst} is quarantined: {MAX_STRIKES} workers have died of it, the last one by "
            f"{death}"
        )
        _log.error("%s", error)
        self._listener.quarantined(worst, version.start.data)
        self._carry_out(self._state.quarantine(worst, error))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(key, command):
                    self.crew[key].channel.send(command)
                case Report(event):
                    self._events.put(event)
                case Open(key):
                    self.crew[key].channel.send(OpenPorts())
                case LoadAgain(key, servable_id, after_s):
                    self._load_again_after(key, servable_id, after_s)

    def _load_again_after(self, key: int, servable_id: ServableId, after_s: float) -> None:
        _log.warning(
            "%s is tried again in %g s, in a worker that failed to load it", servable_id, after_s
        )
        self._loop.put_after(
            after_s, lambda: self._carry_out(self._state.load_again(key, servable_id))
        )
