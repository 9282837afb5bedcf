"""One of two processes leaves the port that they share: its clients go to the other, unharmed."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time

import grpc
import pytest

from servingd.frontends.grpc.native import unusable_because
from servingd.frontends.http.transport import HttpTransport
from tests.threads.frontends.neighbour import LARGE, Neighbour

TIMEOUT = 10
NATIVE = pytest.mark.skipif(bool(unusable_because()), reason="needs pygrpc-native")
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)


class Caller:
    """Calls in a loop on a thread of its own, until it is stopped."""

    def __init__(self, ask) -> None:
        self._ask = ask
        self._ended = threading.Event()
        self.answered: list[str] = []
        self.failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.answered.append(self._ask())
            except Exception as error:  # counted, not raised
                self.failures.append(error)

    def wait_for(self, goal: int) -> None:
        """Wait until so many calls were answered."""
        deadline = time.monotonic() + TIMEOUT
        while len(self.answered) < goal:
            assert time.monotonic() < deadline, self.failures[:3]
            time.sleep(0.002)


class Callers(list):
    """Several at once."""

    def __init__(self, stack: contextlib.ExitStack, ask, number: int) -> None:
        super().__init__(stack.enter_context(Caller(ask)) for _ in range(number))

    def failures(self):
        return [error for caller in self for error in caller.failures]

    def wait_for(self, calls: int) -> None:
        """Wait until each has been answered so many times more."""
        goals = [len(caller.answered) + calls for caller in self]
        for caller, goal in zip(self, goals, strict=True):
            caller.wait_for(goal)


def grpc_asker(channel, payload: bytes):
    call = channel.unary_unary("/s/call")

    def ask() -> str:
        name, _, body = call(payload, timeout=TIMEOUT).partition(b" ")
        expected = payload
        if payload.startswith(b"large"):
            expected = (payload * (LARGE // len(payload) + 1))[:LARGE]
        assert body == expected
        return name.decode()

    return ask


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


def neighbour(stack, port: int = 0) -> Neighbour:
    process = Neighbour("grpc", port)
    stack.callback(process.end)
    return process


@NATIVE
@pytest.mark.parametrize("payload", [b"small", b"slow", b"large"])
def test_clients_of_grpc_lose_no_call_and_go_to_the_other(stack, payload):
    old = neighbour(stack)
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{old.port}", OPTIONS))
    callers = Callers(stack, grpc_asker(channel, payload), 8)
    callers.wait_for(2)
    new = neighbour(stack, old.port)
    old.begin_to_leave()
    assert old.left() == 0
    callers.wait_for(2)
    assert not callers.failures()
    assert all(caller.answered[0] == old.name for caller in callers)
    assert all(caller.answered[-1] == new.name for caller in callers)


@NATIVE
def test_a_frame_is_not_torn_by_the_farewell_though_no_core_is_free(stack):
    """Large responses fill the kernel's buffers: a frame is then written in parts."""
    busy = threading.Event()
    stack.callback(busy.set)
    old = neighbour(stack)
    callers = []
    for _ in range(3):
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{old.port}", OPTIONS))
        callers += Callers(stack, grpc_asker(channel, b"large"), 3)
    for caller in callers:
        caller.wait_for(1)
    new = neighbour(stack, old.port)
    for _ in range(2):
        threading.Thread(target=lambda: [None for _ in iter(busy.is_set, True)]).start()
    old.begin_to_leave()
    assert old.left() == 0
    busy.set()
    for caller in callers:
        caller.wait_for(len(caller.answered) + 2)
        assert not caller.failures
        assert caller.answered[-1] == new.name


# HTTP: both transports in this process


class Http:
    def __init__(self, name: str, port: int = 0) -> None:
        self.go = threading.Event()
        self.asked = threading.Event()
        self._name = name
        self.transport = HttpTransport(self._handle, name=name)
        self.port = self.transport.bind("127.0.0.1", port, shared=True)
        self.transport.start()

    def _handle(self, request, reply) -> None:
        body = f"{self._name} ".encode()
        if request.path == "/large":
            body += b"x" * LARGE
        if request.path == "/later":
            self.asked.set()
            threading.Thread(target=self._later, args=(reply, body)).start()
        else:
            reply.send(200, body, "text/plain")

    def _later(self, reply, body) -> None:
        assert self.go.wait(TIMEOUT)
        reply.send(200, body, "text/plain")


def http_asker(client, path="/"):
    def ask() -> str:
        try:
            client.request("GET", path)
            response = client.getresponse()
            name, _, body = response.read().partition(b" ")
        except BaseException:
            client.close()
            raise
        assert len(body) == (LARGE if path == "/large" else 0)
        return name.decode()

    return ask


def http_transport(stack, name: str, port: int = 0) -> Http:
    http_transport = Http(name, port)
    stack.callback(http_transport.transport.stop)
    stack.callback(http_transport.go.set)
    return http_transport


def client_of(stack, port: int) -> http.client.HTTPConnection:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    stack.callback(client.close)
    return client


def wait_without_clients(http_transport: Http) -> None:
    deadline = time.monotonic() + TIMEOUT
    while http_transport.transport.connections():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("path", ["/", "/large"])
def test_clients_of_http_that_stay_connected_lose_no_request(stack, path):
    old = http_transport(stack, "old")
    askers = [http_asker(client_of(stack, old.port), path) for _ in range(4)]
    callers = [stack.enter_context(Caller(ask)) for ask in askers]
    for caller in callers:
        caller.wait_for(2)
    http_transport(stack, "new", old.port)
    old.transport.leave()
    for caller in callers:
        caller.wait_for(len(caller.answered) + 3)
        assert not caller.failures
        assert (caller.answered[0], caller.answered[-1]) == ("old", "new")
    wait_without_clients(old)


def test_an_idle_client_of_http_is_sent_away(stack):
    old = http_transport(stack, "old")
    ask = http_asker(client_of(stack, old.port))
    assert ask() == "old"
    http_transport(stack, "new", old.port)
    old.transport.leave()
    wait_without_clients(old)


def test_a_request_under_way_is_answered_before_the_client_is_sent_away(stack):
    old = http_transport(stack, "old")
    later = stack.enter_context(Caller(http_asker(client_of(stack, old.port), "/later")))
    assert old.asked.wait(TIMEOUT)
    new = http_transport(stack, "new", old.port)
    new.go.set()
    old.transport.leave()
    assert not old.transport.wait_idle(time.monotonic() + 0.1)
    old.go.set()
    later.wait_for(2)
    assert not later.failures
    assert later.answered[0] == "old"
    assert later.answered[-1] == "new"
    wait_without_clients(old)


def test_clients_that_wait_to_be_accepted_are_answered(stack):
    old = http_transport(stack, "old")
    clients = [client_of(stack, old.port) for _ in range(20)]
    for client in clients:
        client.connect()
    old.transport.leave()
    assert [http_asker(client)() for client in clients] == ["old"] * 20
    wait_without_clients(old)
