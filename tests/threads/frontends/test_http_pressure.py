"""Clients that press on the HTTP transport: each is held within its limits, and delays nobody."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.messages import HttpReply, HttpRequest
from servingd.frontends.http.transport import HttpTransport
from tests.http_client import Answers, answer, connect, ended, get, post

BIG = 1 << 20
QUICK = HttpLimits(head_s=0.4, progress_s=0.4, idle_s=0.8, sweep_s=0.1, max_body_bytes=4 << 20)


class App:
    """Echoes the length of what it gets; `/big` answers a megabyte, `/later` when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen: list[HttpRequest] = []

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        self.seen.append(request)
        if request.path == "/later":
            threading.Thread(target=self._later, args=(reply,)).start()
        elif request.path == "/big":
            reply.send(200, bytes(BIG), "text/plain")
        else:
            reply.send(200, f"{request.path} {len(request.body)}".encode(), "text/plain")

    def _later(self, reply: HttpReply) -> None:
        assert self.go.wait(10)
        reply.send(200, b"later", "text/plain")


@pytest.fixture
def app():
    return App()


@pytest.fixture(params=[HttpLimits()], ids=["usual"])
def transport(request, app):
    transport = HttpTransport(app.handle, request.param)
    transport.port = transport.bind("127.0.0.1", 0)
    transport.start()
    yield transport
    transport.stop()


@pytest.fixture
def client(transport):
    with connect(transport.port) as connection:
        yield connection


quick = pytest.mark.parametrize("transport", [QUICK], ids=["quick"], indirect=True)


def is_answered(transport):
    with connect(transport.port) as other:
        other.sendall(get("/other"))
        return answer(other) == (200, b"/other 0")


def until_seen(app, count):
    while len(app.seen) < count:
        time.sleep(0.001)


def trickle(client, data: bytes, pause: float, seconds: float) -> bool:
    """Send pieces until the server ends it; whether it did."""
    end = time.monotonic() + seconds
    client.settimeout(pause)
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < end:
            client.sendall(data)
            with contextlib.suppress(TimeoutError):
                if not client.recv(100_000):
                    return True
        return False
    return True


@quick
def test_a_client_that_never_reads_is_read_no_more_and_ends(transport, app):
    with connect(transport.port, receive_buffer=4096) as greedy:
        greedy.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            greedy.sendall(get("/big") * 20_000)
        assert is_answered(transport)
        assert len(app.seen) < 200
        deadline = time.monotonic() + 10
        while transport.connections() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not transport.connections()
        assert len(app.seen) < 200


@quick
def test_a_client_that_reads_slowly_is_not_cut_off(transport):
    with connect(transport.port, receive_buffer=4096) as slow:
        slow.sendall(get("/big") * 20)
        answers, start = Answers(slow), time.monotonic()
        for _ in range(20):
            assert answers.next() == (200, bytes(BIG))
            time.sleep(0.05)
        assert time.monotonic() - start > 2 * QUICK.progress_s


@quick
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"\r\n"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"h: x\r\n"),
        (get("/", "content-length: 1000000", method="POST"), b"x"),
        (get("/", "transfer-encoding: chunked", method="POST"), b"1\r\nx\r\n"),
        (get("/", "transfer-encoding: chunked", method="POST", body=b"1;"), b"x"),
        (get("/", "transfer-encoding: chunked", method="POST", body=b"0\r\n"), b"h: x\r\n"),
    ],
    ids=["empty lines", "headers", "a body", "chunks", "a chunk's extension", "trailers"],
)
def test_what_trickles_in_buys_no_time(client, start, piece):
    client.sendall(start)
    assert trickle(client, piece, 0.05, 8)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /" + b"x" * 16000, b"x" * 1000),
        (b"GET / HTTP/1.1\r\nh: ", b"x" * 1000),
        (b"GET / HTTP/1.1\r\n", b"h: x\r\n"),
        (get("/", "transfer-encoding: chunked", method="POST", body=b"1;"), b"x" * 1000),
        (get("/", "transfer-encoding: chunked", method="POST", body=b"0\r\nh:"), b"x" * 1000),
        (get("/", "transfer-encoding: chunked", method="POST", body=b"0\r\n"), b"h: x\r\n"),
    ],
    ids=["URL", "header", "headers", "a chunk's extension", "trailer", "trailers"],
)
def test_what_has_no_end_is_refused(client, start, piece):
    """All at once: no time limit is needed."""
    with contextlib.suppress(ConnectionError):
        client.sendall(start + piece * 3000)
    status, _ = answer(client)
    assert status in (414, 431)


def test_thousands_of_requests_at_once_are_answered_in_order_and_delay_nobody(client, transport):
    count = 20_000
    sender = threading.Thread(
        target=client.sendall, args=(b"".join(get(f"/{i}") for i in range(count)),)
    )
    sender.start()
    answers = Answers(client)
    for i in range(count):
        assert answers.next() == (200, f"/{i} 0".encode())
        if i % 4000 == 0:
            assert is_answered(transport)
    sender.join()


def test_clients_that_come_while_the_loop_is_busy_wait_to_be_let_in(transport):
    """None is turned away, to knock again a second later."""
    go = threading.Event()
    transport._loop.loop.call_soon_threadsafe(go.wait)
    with contextlib.ExitStack() as stack:
        stack.callback(go.set)
        clients = [stack.enter_context(connect(transport.port)) for _ in range(1000)]
        go.set()
        for client in clients:
            client.sendall(get("/a"))
        for client in clients:
            assert answer(client) == (200, b"/a 0")


def test_a_body_may_come_with_the_end_of_its_headers(client):
    body = bytes(200_000)
    request = post("/a", body)
    client.sendall(request[:30])
    time.sleep(0.05)  # so that the server sees two pieces
    client.sendall(request[30:])
    assert answer(client) == (200, b"/a 200000")


@pytest.mark.parametrize("size", [1, 2000, 5000, 300_000])
def test_bodies_and_requests_follow_each_other(client, size):
    chunk = b"%x\r\n" % size + b"\r" * size + b"\r\n0\r\n\r\n"
    chunked = get("/c", "transfer-encoding: chunked", method="POST", body=chunk)
    both = post("/a", b"\r\n\r\n" * size) + get("/b") + chunked
    sender = threading.Thread(target=client.sendall, args=(both * 10,))
    sender.start()
    answers = Answers(client)
    for _ in range(10):
        assert answers.next() == (200, f"/a {4 * size}".encode())
        assert answers.next() == (200, b"/b 0")
        assert answers.next() == (200, f"/c {size}".encode())
    sender.join()


def test_a_body_in_a_million_pieces_is_one_body(client):
    pieces = b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"
    client.sendall(get("/a", "transfer-encoding: chunked", method="POST", body=pieces))
    assert answer(client) == (200, b"/a 200000")


def test_trailers_are_no_headers(client, app):
    tail = b"1\r\nx\r\n0\r\ncontent-encoding: gzip\r\n\r\n"
    client.sendall(get("/a", "transfer-encoding: chunked", method="POST", body=tail))
    assert answer(client) == (200, b"/a 1")
    assert "content-encoding" not in app.seen[0].headers


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (get("/", *["h: x"] * 200), 431),
        (get("/", "transfer-encoding: gzip, chunked", method="POST", body=b"0\r\n\r\n"), 501),
    ],
)
def test_a_request_is_whole_and_not_more(client, request_, status):
    client.sendall(request_)
    assert answer(client)[0] == status
    assert ended(client)


def test_a_refusal_reaches_a_client_that_still_sends(client):
    client.sendall(get("/", f"content-length: {1 << 30}", method="POST"))
    for _ in range(200):  # a megabyte each; a reset would break this
        client.sendall(bytes(BIG))
    assert answer(client)[0] == 413


def test_a_client_that_closes_its_side_gets_all_answers_and_the_end(client, app):
    client.sendall(get("/later") + get("/b"))
    client.shutdown(1)
    until_seen(app, 2)
    time.sleep(0.05)  # so that the server sees the end before it answers
    app.go.set()
    answers = Answers(client)
    assert answers.next() == (200, b"later")
    assert answers.next() == (200, b"/b 0")
    assert ended(client)


def test_a_tunnel_is_not_made_and_ends_the_connection_after_all_answers(client, app):
    client.sendall(get("/later") + get("/b", method="CONNECT").replace(b" /b ", b" b:80 "))
    until_seen(app, 2)
    app.go.set()
    answers = Answers(client)
    assert answers.next() == (200, b"later")
    assert answers.next() == (200, b"b:80 0")
    assert ended(client)


def test_a_fault_in_what_expires_ends_no_time_limit(transport, client, app):
    def fault() -> None:
        raise RuntimeError("a fault of ours")

    client.sendall(get("/later"))
    until_seen(app, 1)
    connection = next(iter(transport._loop._connections))
    connection._replies[0].expire, connection._replies[0].deadline = fault, 0.0
    while connection._replies[0].deadline == 0.0:
        time.sleep(0.01)
    with connect(transport.port) as other:
        other.sendall(get("/later"))
        until_seen(app, 2)
        answered = threading.Event()
        (later,) = (c for c in transport._loop._connections if c is not connection)
        later._replies[0].expire, later._replies[0].deadline = answered.set, 0.0
        assert answered.wait(5)
        app.go.set()
        assert answer(other) == (200, b"later")
