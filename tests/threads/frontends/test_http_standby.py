"""A handler that holds the HTTP loop up: who comes meanwhile is answered all the same."""

from __future__ import annotations

import threading
import time

import pytest

from servingd.frontends.http.messages import HttpReply, HttpRequest
from servingd.frontends.http.transport import HttpTransport
from tests.http_client import answer, connect, ended, get

TIMEOUT = 10


class App:
    """`/stuck` holds its thread up until it is let go; everything else is answered at once."""

    def __init__(self) -> None:
        self.go, self.stuck = threading.Event(), threading.Event()
        self.threads: list[str] = []

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        self.threads.append(threading.current_thread().name)
        if request.path == "/stuck":
            self.stuck.set()
            assert self.go.wait(TIMEOUT)
        reply.send(200, request.path.encode(), "text/plain")


@pytest.fixture
def app():
    return App()


@pytest.fixture
def transport(app):
    transport = HttpTransport(app.handle)
    transport.port = transport.bind("127.0.0.1", 0)
    transport.start()
    yield transport
    app.go.set()
    transport.stop()


def test_who_comes_while_a_call_runs_is_answered_at_once(transport, app):
    with connect(transport.port) as caller:
        caller.sendall(get("/stuck"))
        assert app.stuck.wait(TIMEOUT)
        for _ in range(3):
            started = time.monotonic()
            with connect(transport.port) as probe:
                probe.sendall(get("/livez"))
                assert answer(probe) == (200, b"/livez")
                assert ended(probe)  # who comes again is the loop's, once it has time
            assert time.monotonic() - started < TIMEOUT / 2
        assert app.threads == ["http"] + ["http-standby"] * 3
        app.go.set()
        assert answer(caller) == (200, b"/stuck")
        with connect(transport.port) as other:  # and now they are the loop's again
            other.sendall(get("/after"))
            assert answer(other) == (200, b"/after")
        assert app.threads[-1] == "http"


def test_a_loop_that_is_not_held_up_keeps_its_clients(transport, app):
    for _ in range(100):
        with connect(transport.port) as client:
            client.sendall(get("/a"))
            assert answer(client) == (200, b"/a")
    assert set(app.threads) == {"http"}


def test_a_stop_waits_for_the_loop_and_ends_who_waits_for_it(transport, app):
    with connect(transport.port) as caller:
        caller.sendall(get("/stuck"))
        assert app.stuck.wait(TIMEOUT)
        with connect(transport.port) as probe:
            assert not transport.wait_idle(time.monotonic() + 0.05)
            app.go.set()
            assert transport.wait_idle(time.monotonic() + TIMEOUT)
            transport.stop()
            assert ended(probe)
