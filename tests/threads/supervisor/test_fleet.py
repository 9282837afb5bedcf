"""The fleet's thread with real child processes that are nothing but a pid, and played workers."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from collections import defaultdict

import pytest

from servingd.config.server import ServerConfig
from servingd.core.lifecycle.events import LoadSucceeded, Publish, StartLoad
from servingd.core.types import ServableId, VersionData
from servingd.supervisor.fleet.fleet import WorkerFleet
from servingd.supervisor.link.channel import Channel
from servingd.supervisor.link.messages import (
    WIRE_VERSION,
    Answer,
    Ask,
    Configuration,
    Drain,
    Exit,
    Hello,
    Idle,
    Leave,
    OpenPorts,
    PortsOpen,
    Published,
    Settings,
    Settle,
)
from tests.threads.fakes import TIMEOUT

A = ServableId("a", 1)
LOAD = StartLoad(A, VersionData("/a/1", "fake"))


class NoMarks:
    def running(self, thread=None):
        return frozenset()


class Played:
    """A worker: a process that sleeps, and a thread that answers as a worker would."""

    marks = NoMarks()

    def __init__(self, number: int, says_hello: bool = True) -> None:
        self.number = number
        self.pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        self.connection, theirs = socket.socketpair()
        self.seen: list[object] = []
        self.opens = threading.Event()
        self.opens.set()
        self.left = threading.Event()
        self._says_hello = says_hello
        self._closed = False
        self.channel = Channel("played", theirs, self._take, lambda: None)
        self.channel.start()

    def _take(self, message) -> None:
        self.seen.append(message)
        send = self.channel.send
        match message:
            case Configuration() if self._says_hello:
                send(Hello(WIRE_VERSION))
            case OpenPorts():
                assert self.opens.wait(TIMEOUT)
                send(PortsOpen())
            case StartLoad(servable_id):
                send(LoadSucceeded(servable_id))
            case Publish(servable_id):
                send(Published(servable_id))
            case Drain():
                send(Idle())
            case Ask(number):
                send(Answer(number, str(self.pid).encode()))
            case Leave() | Exit():
                self.left.set()
                os.kill(self.pid, signal.SIGKILL)

    def signal(self, number: int) -> None:
        if not self._closed:
            os.kill(self.pid, number)

    def die(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def dump(self) -> bytes:
        return b""

    def crashed_thread(self) -> None:
        return None

    def close(self) -> None:
        self._closed = True
        self.channel.close()


class Listens:
    """Whoever hears of the fleet: it has nothing to say."""

    def __init__(self) -> None:
        self.no_hope = threading.Event()

    def snapshot(self):
        return []

    def told(self, message) -> None:
        pass

    def asked(self, ask, reply) -> None:
        pass

    def held(self) -> int:
        return 0

    def metrics_came(self, worker, snapshot) -> None:
        pass

    def gone(self, worker) -> None:
        pass

    def quarantined(self, servable_id, data) -> None:
        pass

    def hopeless(self) -> None:
        self.no_hope.set()


class Server:
    """A fleet and the workers that it has begun."""

    def __init__(self, workers: int, **how) -> None:
        self.begun: list[Played] = []
        self.how = defaultdict(dict, how.pop("each", {}))  # by order of their begin
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        config = ServerConfig(model_repository="/m", workers=str(workers), drain_timeout_s=5.0)
        self.fleet = WorkerFleet(config, workers, None, Listens(), self._start)
        self.fleet.start(self.events)
        self.fleet.begin()

    def _start(self, number: int) -> Played:
        played = Played(number, **self.how[len(self.begun)])
        self.begun.append(played)
        return played

    def wait(self, true) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not true():
            assert time.monotonic() < deadline, (self.states(), [p.seen for p in self.begun])
            time.sleep(0.002)

    def states(self):
        return [worker.state for worker in self.fleet.crew.seen]

    def wait_serving(self, number: int) -> None:
        self.wait(lambda: self.states() == ["serving"] * number)

    def processes(self):
        return {worker.process for worker in self.fleet.crew.seen}

    def recycle(self, only_one=False):
        begun: queue.SimpleQueue = queue.SimpleQueue()
        self.fleet.recycle(only_one, begun.put)
        return begun.get(timeout=TIMEOUT)


@pytest.fixture
def serve():
    servers = []

    def serve(workers, **how):
        servers.append(Server(workers, **how))
        return servers[-1]

    yield serve
    for server in servers:
        server.fleet.end(TIMEOUT)
        assert not server.states()
        server.fleet.crew._reaper._thread.join(TIMEOUT)
        for played in server.begun:
            for thread in played.channel._threads:
                thread.join(TIMEOUT)
        assert not [t for t in threading.enumerate() if t.name in ("fleet", "reaper")]


def test_each_worker_is_begun_and_opens(serve):
    server = serve(2)
    server.wait_serving(2)
    assert [worker.number for worker in server.fleet.crew.seen] == [1, 2]


def test_a_dead_worker_is_replaced_and_gets_what_is_served(serve):
    server = serve(2)
    server.wait_serving(2)
    server.fleet.handle(LOAD)
    assert isinstance(server.events.get(timeout=TIMEOUT), LoadSucceeded)
    server.fleet.handle(Publish(A))
    server.begun[0].die()
    server.wait(lambda: len(server.begun) == 3)
    server.wait_serving(2)
    seen = server.begun[2].seen
    assert seen.index(Publish(A)) < seen.index(OpenPorts())
    assert server.fleet.crew.restarts == {"SIGKILL": 1}


def test_settings_are_told_before_a_load_though_news_are_held(serve):
    server = serve(1)
    server.wait_serving(1)
    server.fleet.handle(LOAD)
    server.fleet.handle(Publish(A))
    server.fleet.settle("held")
    server.fleet.configure([])
    server.fleet.handle(StartLoad(ServableId("b", 1), VersionData("/b/1", "fake")))
    server.wait(lambda: Settle("held") in server.begun[0].seen)
    seen = server.begun[0].seen
    load = next(i for i, m in enumerate(seen) if isinstance(m, StartLoad) and m.id.name == "b")
    assert [m for m in seen[:load] if isinstance(m, Settings)][1:]


def test_all_are_recycled_one_after_the_other(serve):
    server = serve(2)
    server.wait_serving(2)
    before = server.processes()
    assert set(server.recycle()) == before
    server.wait(lambda: server.states() == ["serving"] * 2 and not server.processes() & before)
    assert server.fleet.crew.restarts == {"recycled": 2}


def test_one_is_recycled(serve):
    server = serve(2)
    server.wait_serving(2)
    [chosen] = server.recycle(only_one=True)
    server.wait(lambda: server.states() == ["serving"] * 2 and chosen not in server.processes())
    assert server.begun[1].pid in server.processes()


def test_two_recycles_at_once_end(serve):
    server = serve(2)
    server.wait_serving(2)
    before = server.processes()
    server.recycle()
    server.recycle()
    server.wait(lambda: not server.processes() & before)
    server.wait_serving(2)


def test_a_worker_that_dies_while_its_successor_starts_is_replaced_by_it(serve):
    server = serve(1, each={1: {"says_hello": False}})
    server.wait_serving(1)
    server.recycle()
    server.wait(lambda: len(server.begun) == 2)
    server.begun[0].die()
    server.begun[1].channel.send(Hello(WIRE_VERSION))
    server.wait(lambda: server.processes() == {server.begun[1].pid})
    server.wait_serving(1)
    server.recycle()
    server.wait(lambda: len(server.begun) == 3)


def test_a_successor_that_never_starts_leaves_the_old_one_and_the_next_is_recycled(serve):
    server = serve(2, each={2: {"says_hello": False}})
    server.wait_serving(2)
    server.recycle()
    server.wait(lambda: len(server.begun) == 3)
    server.begun[2].die()
    server.wait(lambda: len(server.begun) == 4)
    server.wait_serving(2)
    server.wait(server.begun[1].left.is_set)
    assert not server.begun[0].left.is_set()


def test_it_can_be_stopped_while_workers_start(serve):
    server = serve(2, each={0: {"says_hello": False}, 1: {"says_hello": False}})
    server.wait(lambda: len(server.begun) == 2)
    assert server.fleet.drain(0.1)
    assert len(server.begun) == 2


def test_figures_are_gathered_from_all_that_answer(serve):
    server = serve(2, each={1: {"says_hello": False}})
    server.wait(lambda: sorted(server.states()) == ["serving", "starting"])
    found: queue.SimpleQueue = queue.SimpleQueue()
    server.fleet.gather("metrics", b"", lambda answers, error: found.put(answers))
    assert list(found.get(timeout=TIMEOUT).values()) == [str(server.begun[0].pid).encode()]


def test_a_drain_does_not_wait_for_a_worker_that_died(serve):
    server = serve(2)
    server.wait_serving(2)
    server.begun[0].die()
    assert server.fleet.drain(TIMEOUT)
