"""A handler that blocks the native transport's first thread: who comes meanwhile is answered."""

from __future__ import annotations

import threading
import time

import grpc
import pytest

from servingd.frontends.grpc.native import NativeTransport, unusable_because
from servingd.runtime.batching.inline_runs import InlineRuns

TIMEOUT = 10

pytestmark = pytest.mark.skipif(bool(unusable_because()), reason="needs pygrpc-native")


class App:
    """`/s/stuck` holds its thread up until it is let go; `/s/quick` is answered at once."""

    def __init__(self) -> None:
        self.go, self.stuck = threading.Event(), threading.Event()
        self.threads: list[str] = []
        self.seen: list[bytes] = []

    def on_stuck(self, payload, reply) -> None:
        self.stuck.set()
        assert self.go.wait(TIMEOUT)
        reply.send(payload)

    def on_slow(self, payload, reply) -> None:
        """Block now and then, longer than the second thread looks away."""
        if int(payload) % 100 == 50:
            time.sleep(0.1)
        self.seen.append(bytes(payload))
        self.threads.append(threading.current_thread().name)
        reply.send(payload)

    def on_quick(self, payload, reply) -> None:
        self.threads.append(threading.current_thread().name)
        reply.send(payload)


@pytest.fixture
def app():
    return App()


@pytest.fixture
def transport(app):
    handlers = {"/s/stuck": app.on_stuck, "/s/quick": app.on_quick, "/s/slow": app.on_slow}
    transport = NativeTransport("127.0.0.1:0", handlers, "")
    transport.port = transport.bind()
    transport.start()
    yield transport
    app.go.set()
    transport.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("drain-")]


@pytest.fixture
def call(transport):
    with grpc.insecure_channel(f"127.0.0.1:{transport.port}") as channel:
        grpc.channel_ready_future(channel).result(TIMEOUT)

        def begin(method, payload=b"x"):
            return channel.unary_unary(f"/s/{method}").future(payload, timeout=TIMEOUT)

        yield begin


def test_who_comes_while_a_call_blocks_is_answered_at_once(app, call):
    assert call("quick").result() == b"x"
    stuck = call("stuck")
    assert app.stuck.wait(TIMEOUT)
    for _ in range(20):
        started = time.monotonic()
        assert call("quick").result() == b"x"
        assert time.monotonic() - started < TIMEOUT / 2
    assert app.threads == ["drain-0"] + ["drain-1"] * 20
    app.go.set()
    assert stuck.result() == b"x"
    deadline = time.monotonic() + TIMEOUT
    while app.threads[-1] != "drain-0" and time.monotonic() < deadline:
        assert call("quick").result() == b"x"
    assert app.threads[-1] == "drain-0"


def test_calls_that_came_together_with_the_one_that_blocks_are_answered(app, call):
    """They may be in one batch with it, before or behind it."""
    calls = [call("stuck" if i == 40 else "quick", b"%d" % i) for i in range(120)]
    for i, each in enumerate(calls):
        if i != 40:
            assert each.result() == b"%d" % i
    assert not calls[40].done()
    app.go.set()
    assert calls[40].result() == b"40"


def test_each_of_many_calls_is_answered_once_however_often_the_first_thread_blocks(app, call):
    """Two threads take from one batch; none is lost, none is answered twice."""
    calls = [call("slow", b"%d" % i) for i in range(400)]
    assert [each.result() for each in calls] == [b"%d" % i for i in range(400)]
    assert sorted(app.seen) == sorted(b"%d" % i for i in range(400))
    assert {"drain-0", "drain-1"} <= set(app.threads)


def test_an_inline_run_is_stuck_only_after_a_while():
    runs = InlineRuns()
    assert not runs.one_is_stuck()
    runs[1] = time.perf_counter()
    runs[2] = time.perf_counter() - 0.05
    assert runs.one_is_stuck()
    del runs[2]
    runs[1] = time.perf_counter() + 10
    assert not runs.one_is_stuck()
