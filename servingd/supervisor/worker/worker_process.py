"""A worker process: one data plane and its ports, commanded by the supervisor over a socket.

Started as `python -m servingd.supervisor.worker.worker_process` with three descriptors: socket,
marks and stacks. It ends with the socket: a worker does not outlive its supervisor.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from servingd.config.server import ServerConfig
from servingd.core.lifecycle.events import Event, LoadOverdue, Publish
from servingd.core.lifecycle.failures import event_of_failure
from servingd.core.lifecycle.harness import LoadPlan
from servingd.errors import ServingError, Unavailable, as_serving_error
from servingd.frontends.ports import Ports
from servingd.machine.cpus import share_with
from servingd.machine.memory import status_bytes
from servingd.observability.logs import configure_logging
from servingd.observability.metrics import Metrics
from servingd.observability.snapshots import encode as encode_snapshot
from servingd.runtime.loop import Loop
from servingd.runtime.threads import WorkerPool
from servingd.supervisor.link.channel import Channel
from servingd.supervisor.link.messages import (
    COMMANDS,
    WIRE_VERSION,
    Answer,
    Ask,
    Configuration,
    Drain,
    EndRuns,
    Exit,
    Expect,
    Facts,
    Hello,
    Idle,
    LabelsAre,
    LastMetrics,
    Leave,
    OpenPorts,
    Ping,
    PlacementsAre,
    Pong,
    PortsOpen,
    Preload,
    Published,
    Settings,
    Settle,
    encode,
    pack,
    unpack,
    unpack_models,
)
from servingd.supervisor.link.questions import Questions
from servingd.supervisor.processes.run_marks import SIZE, MarkedRuns, RunMarks
from servingd.supervisor.worker.actions import worker_actions
from servingd.supervisor.worker.remote_control import RemoteControl, RemoteProfiler
from servingd.worker import Worker

_SWITCH_INTERVAL_S = 0.0005
_STOP_S = 10.0

_log = logging.getLogger(__name__)


class WorkerEnd:
    """The worker's end of the wire: the thread `commands` carries out what is received."""

    def __init__(self, connection: socket.socket, marks: RunMarks) -> None:
        self._loop = Loop("commands")
        self._marks = marks
        self._ended = threading.Event()
        self._status = 0
        self._slow = WorkerPool("slow", 2)
        self._channel = Channel("supervisor", connection, self._received, self._orphaned)
        self._questions = Questions(self._channel.send)
        self._control: RemoteControl
        self._worker: Worker
        self._ports: Ports
        self._metrics = Metrics()
        self._metrics.show_process()
        self._overdue: dict[Event, Callable[[], None]] = {}  # the thread `commands` alone
        self._opened = False

    def run(self) -> int:
        """Carry out commands until the end; return the exit status."""
        self._loop.start()
        self._slow.start()
        self._channel.start()
        self._ended.wait()
        return self._status

    # The reader's thread --------------------------------------------------------------------------

    def _received(self, message: Any) -> None:
        match message:
            case Answer():
                self._questions.answer(message)
            case Ask():
                self._answer(message)
            case _:
                self._loop.put(lambda: self._take(message))

    def _orphaned(self) -> None:
        """End at once: the supervisor is gone, and with it what this worker ought to serve."""
        if not self._ended.is_set():
            os.write(2, b"the supervisor is gone: this worker ends\n")
        os._exit(1)

    def _answer(self, ask: Ask) -> None:
        """Answer a question of the supervisor about this worker."""
        if ask.what == "profile":
            self._profile(ask)
            return
        if ask.what == "job":
            self._job(ask)
            return
        try:
            body = self._figures(ask)
        except BaseException as error:
            self._channel.send(Answer(ask.number, error=as_serving_error(error)))
        else:
            self._channel.send(Answer(ask.number, body))

    def _job(self, ask: Ask) -> None:
        """Answer another worker's question for a job, once the job is done."""
        jobs = self._control.jobs
        if jobs is None:  # its ports are not built yet
            self._channel.send(Answer(ask.number))
        else:
            jobs.answer(ask.body, lambda body: self._channel.send(Answer(ask.number, body)))

    def _profile(self, ask: Ask) -> None:
        """Answer with a trace of this worker, once it is taken."""

        def done(outcome: Mapping[str, bytes] | ServingError) -> None:
            if isinstance(outcome, ServingError):
                self._channel.send(Answer(ask.number, error=outcome))
            else:
                self._channel.send(Answer(ask.number, outcome[""]))

        try:
            seconds, levels = unpack(ask.body)
            self._worker.platforms.profiler.profile(seconds, tuple(levels), done)
        except Exception as error:
            self._channel.send(Answer(ask.number, error=as_serving_error(error)))

    def _figures(self, ask: Ask) -> bytes:
        match ask.what:
            case "end profile":
                self._worker.platforms.profiler.terminate()
                return b""
            case "metrics":
                return encode_snapshot(self._metrics.snapshot())
            case "explain":
                return pack(dict(self._worker.explain(unpack(ask.body))))
            case "placements":
                return encode(self._placements())
        raise Unavailable(f"a worker knows nothing about {ask.what}")

    def _placements(self) -> PlacementsAre:
        placements = self._metrics.placements
        replicas = tuple((i, tuple(reports)) for i, reports in placements.all().items())
        return PlacementsAre(replicas, placements.known(), placements.in_use())

    # The thread `commands` ------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Report an event; see `EventSink`."""
        self._channel.send(event)

    def put_after(self, event: Event, delay_s: float) -> None:
        """Report an overdue load, unless it ends before."""
        self._loop.put(lambda: self._begin_deadline(event, delay_s))

    def cancel(self, event: Event) -> None:
        """Report an overdue load no more."""
        self._loop.put(lambda: self._overdue.pop(event, None) and None)

    def _begin_deadline(self, event: Event, delay_s: float) -> None:
        def due() -> None:
            if self._overdue.pop(event, None) is not due or not isinstance(event, LoadOverdue):
                return
            if self._worker.versions.give_up(event):
                self.put(event)

        self._overdue[event] = due
        self._loop.put_after(delay_s, due)

    def _take(self, message: Any) -> None:
        if isinstance(message, Ping):  # here: a thread that is stuck must not look alive
            self._channel.send(Pong(status_bytes("VmRSS")))
        elif type(message) in COMMANDS:
            self._carry_out(message)
        elif isinstance(message, Configuration):
            self._configure(message)
        elif not self._control.news(message):
            self._do(message)
        elif isinstance(message, Facts) and message.started and not gc.get_freeze_count():
            gc.freeze()  # what lives now lives long: no collection needs to look at it again

    def _configure(self, message: Configuration) -> None:
        """Build the data plane; the first message."""
        if message.wire != WIRE_VERSION:
            _log.error(
                "this worker speaks version %d of the wire, its supervisor %d: restart the server",
                WIRE_VERSION,
                message.wire,
            )
            self._end(1)
            return
        config = message.config
        configure_logging(config.log_format, config.log_level, message.number)
        share_with(message.workers)
        try:
            self._build(message.config, message.number)
        except BaseException as error:
            _log.error("the worker cannot start: %s", error)
            self._end(1)
            return
        self._channel.send(Hello(WIRE_VERSION))

    def _build(self, config: ServerConfig, number: int) -> None:
        control = self._control = RemoteControl(config.ready_when, self._questions)
        self._worker = worker = Worker(
            config,
            self._metrics,
            control.states,
            lambda servable_id: MarkedRuns(self._marks, servable_id),
            f".worker-{number}",
        )
        if worker.profiler is not None:
            worker.profiler = RemoteProfiler(self._questions)
        # What is planned, the supervisor shows: it would count once for each worker.
        self._metrics.placements.watch(LoadPlan, worker.platforms.devices)
        control.states.subscribe(self._metrics.on_state)
        control.needs = worker.platforms.parts.needs_by_model
        self._ports = Ports(
            config,
            self._metrics,
            worker,
            control,
            control,
            actions=worker_actions(self._questions),
            shared=control,
        )
        worker.start()
        worker.versions.start(self)

    def _carry_out(self, command: Any) -> None:
        """Carry out a command about a version; a failure becomes the event that is waited for."""
        try:
            self._worker.versions.handle(command)
        except BaseException as error:
            _log.exception("the worker failed to carry out %s", command)
            event = event_of_failure(command, error)
            if event is not None:
                self.put(event)
            return
        if isinstance(command, Publish):
            self._channel.send(Published(command.id))

    def _do(self, message: Any) -> None:
        worker = self._worker
        match message:
            case Settings(models):
                known = unpack_models(models)
                self._metrics.configure([model.name for model in known])
                worker.configure(known)
            case LabelsAre(labels):
                worker.versions.label(labels)
            case Expect(names):
                worker.expect(names)
            case Settle(name):
                worker.settle(name)
            case EndRuns():
                worker.end_runs()
            case _:
                self._do_slowly(message)

    def _do_slowly(self, message: Any) -> None:
        """Do what takes a while, on the pool `slow`, or with the ports."""
        match message:
            case OpenPorts():
                self._open()
            case Preload():
                self._slow.submit(self._preload)
            case Leave(within_s):
                self._slow.submit(lambda: self._leave(within_s))
            case Drain(within_s):
                self._slow.submit(lambda: self._drain(within_s))
            case Exit():
                self._slow.submit(self._exit)

    def _preload(self) -> None:
        """Import TensorFlow before the first load asks for it."""
        self._worker.platforms.devices.usable()

    def _open(self) -> None:
        try:
            self._ports.start()
        except OSError as error:
            _log.error("%s", error)
            self._end(1)
            return
        self._opened = True
        self._channel.send(PortsOpen())

    # The pool `slow` ------------------------------------------------------------------------------

    def _leave(self, within_s: float) -> None:
        """Send clients to the other workers, answer what is in flight, and end."""
        deadline = time.monotonic() + within_s
        if self._opened:
            self._ports.leave(deadline)
        self._drain(max(0.0, deadline - time.monotonic()))
        self._exit()

    def _drain(self, within_s: float) -> None:
        self._worker.first_calls.stop()
        if self._opened:
            self._ports.drain(time.monotonic() + within_s)
        self._channel.send(Idle())

    def _exit(self) -> None:
        self._worker.end_runs()
        if self._opened:
            self._ports.stop()
        self._worker.stop()
        self._channel.send(LastMetrics(encode_snapshot(self._metrics.snapshot())))
        self._end(0)

    def _end(self, status: int) -> None:
        self._status = status
        self._ended.set()
        self._channel.finish(_STOP_S)


def main(arguments: list[str]) -> int:
    """Run a worker on the given descriptors."""
    connection, marks, stacks = map(int, arguments)
    faulthandler.enable(os.fdopen(stacks, "wb", 0))
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The supervisor gets them as well, where a terminal sends them to all.
        signal.signal(number, signal.SIG_IGN)
    _die_with_the_supervisor()
    configure_logging()
    end = WorkerEnd(socket.socket(fileno=connection), RunMarks(mmap.mmap(marks, SIZE)))
    status = end.run()
    logging.shutdown()
    os._exit(status)


def _die_with_the_supervisor() -> None:
    """Let the kernel kill this process when its parent dies, even if no thread can run."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
