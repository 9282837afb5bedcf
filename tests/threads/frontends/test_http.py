"""The HTTP transport on the wire, with raw sockets: order, limits, and nobody delays others."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.messages import HttpReply, HttpRequest
from servingd.frontends.http.transport import HttpTransport
from tests.http_client import Answers, answer, connect, ended, get, post, received

LIMITS = HttpLimits(
    max_body_bytes=1000,
    max_head_bytes=2000,
    max_headers=10,
    max_url_bytes=200,
    max_pipelined=4,
    max_connections=50,
    head_s=0.5,
    progress_s=0.5,
    idle_s=1.0,
    sweep_s=0.1,
)


class App:
    """Echoes; `/later` is answered by another thread when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen: list[HttpRequest] = []

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        self.seen.append(request)
        body = f"{request.method} {request.path} ".encode() + request.body
        if request.path == "/later":
            threading.Thread(target=self._later, args=(reply, body)).start()
        elif request.path == "/fault":
            raise RuntimeError("a fault of ours")
        elif request.path == "/here":
            self._later(reply, body)  # on the loop's thread
        else:
            reply.send(200, body, "text/plain")
            reply.send(500, b"a second answer", "text/plain")

    def _later(self, reply: HttpReply, body: bytes) -> None:
        assert self.go.wait(10)
        reply.send(200, body, "text/plain")


@pytest.fixture
def app():
    return App()


@pytest.fixture
def transport(app):
    transport = HttpTransport(app.handle, LIMITS)
    transport.port = transport.bind("127.0.0.1", 0)
    transport.start()
    yield transport
    transport.stop()


@pytest.fixture
def client(transport):
    with connect(transport.port) as connection:
        yield connection


def test_a_request_and_the_next_on_one_connection(client):
    for path in ("/a", "/b"):
        client.sendall(get(path))
        assert answer(client) == (200, f"GET {path} ".encode())


def test_a_body_in_pieces_and_in_chunks(client):
    client.sendall(get("/", "content-length: 6", method="POST", body=b"abc"))
    client.sendall(b"def")
    assert answer(client) == (200, b"POST / abcdef")
    client.sendall(get("/", "transfer-encoding: chunked", method="POST", body=b"3\r\nabc\r\n"))
    client.sendall(b"2\r\nde\r\n0\r\n\r\n")
    assert answer(client) == (200, b"POST / abcde")


def test_pipelined_answers_keep_the_order_of_their_requests(client, app):
    client.sendall(get("/later") + get("/b"))
    app.go.set()
    data = b""
    while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(b"/b "):
        data += received(client)
    assert data.index(b"/later") < data.index(b"/b ")


def test_only_so_many_requests_are_taken_ahead(client, app):
    client.sendall(get("/later") + b"".join(get(f"/{i}") for i in range(20)))
    app.go.set()
    data = b""
    while data.count(b"HTTP/1.1 200") < 21 or not data.endswith(b"/19 "):
        data += received(client)
    assert len(app.seen) == 21


def test_head_has_no_body(client):
    client.sendall(get("/", method="HEAD") + get("/next"))
    data = b""
    while not data.endswith(b"GET /next "):
        data += received(client)
    assert b"HEAD / " not in data


def test_expect_is_answered(client):
    client.sendall(get("/", "content-length: 3", "expect: 100-continue", method="POST"))
    assert received(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"abc")
    assert answer(client) == (200, b"POST / abc")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/", "content-length: 1001", method="POST"), 413),
        (get("/", "transfer-encoding: chunked", method="POST", body=b"3e9\r\n" + b"x" * 1001), 413),
        (get("/" + "x" * 300), 414),
        (get("/", *[f"h{i}: x" for i in range(20)]), 431),
        (get("/", "h: " + "x" * 5000), 431),
        (b"garbage\r\n\r\n", 400),
        (get("/", "content-length: 3", "content-length: 4", method="POST"), 400),
        (get("/", "content-length: 3", "transfer-encoding: chunked", method="POST"), 400),
        (get("/", "content-length: -1", method="POST"), 400),
        (get("/", "h: a\r\n b"), 400),
        (get("/", "h: a\0b"), 400),
    ],
)
def test_what_breaks_a_rule_is_answered_and_closed(client, request_, status):
    client.sendall(request_)
    assert answer(client)[0] == status
    assert ended(client)


def test_a_fault_of_ours_is_answered_and_the_client_goes_on(client):
    client.sendall(get("/fault") + get("/b"))
    data = b""
    while not data.endswith(b"GET /b "):
        data += received(client)
    assert data.startswith(b"HTTP/1.1 500")


H2C = ("upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: AAMAAABk")


def test_offers_of_another_protocol_are_ignored(client):
    """Java's default client and `curl --http2` make them with every first request."""
    told = Answers(client)
    for _ in range(3):  # the second time the head is known
        client.sendall(get("/", "upgrade: websocket", "connection: upgrade"))
        assert told.next() == (200, b"GET / ")
        client.sendall(post("/a", b"abc", *H2C))
        assert told.next() == (200, b"POST /a abc")
        chunks = b"3\r\nabc\r\n0\r\n\r\n"
        client.sendall(get("/b", *H2C, "transfer-encoding: chunked", method="POST", body=chunks))
        assert told.next() == (200, b"POST /b abc")


@pytest.mark.parametrize("cut", [1, 40, 120, 133])
def test_an_offer_may_come_in_pieces_and_with_others(client, cut):
    whole = post("/a", b"abc", *H2C) + post("/b", b"de", *H2C) + get("/c")
    client.sendall(whole[:cut])
    time.sleep(0.05)  # so that it is parsed by itself
    client.sendall(whole[cut:])
    told = Answers(client)
    answers = [told.next() for _ in range(3)]
    assert answers == [(200, b"POST /a abc"), (200, b"POST /b de"), (200, b"GET /c ")]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://example.com:8501/v1/models/m", "/v1/models/m"),
        ("HTTP://example.com/a?b", "/a"),
        ("https://[::1]:80/a", "/a"),
        ("http://example.com", "/"),
        ("http://example.com?b", "/"),
        ("/http://example.com/a", "/http://example.com/a"),
    ],
)
def test_a_target_may_name_scheme_and_host(client, target, path):
    client.sendall(get(target))
    assert answer(client) == (200, f"GET {path} ".encode())


@pytest.mark.parametrize("start", [b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\nh"])
def test_headers_that_never_end_are_given_up(client, start):
    client.sendall(start)
    status, _ = answer(client)
    assert status == 408
    assert ended(client)


def test_headers_that_trickle_are_given_up(client):
    """A byte now and then buys no more time."""
    started = time.monotonic()
    client.settimeout(0.1)
    data = b""
    while time.monotonic() < started + 8:
        try:
            client.sendall(b"G" if not data else b"")
            data += client.recv(1000)
            if data:
                break
        except TimeoutError:
            continue
    assert data.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400"))


def test_a_body_that_stops_is_given_up(client):
    client.sendall(get("/", "content-length: 10", method="POST", body=b"abc"))
    assert answer(client)[0] == 408
    assert ended(client)


def test_silence_between_requests_ends(client):
    client.sendall(get())
    assert answer(client)[0] == 200
    assert ended(client)


def test_one_connection_too_many_is_closed(transport):
    address = ("127.0.0.1", transport.port)
    crowd = [socket.create_connection(address, timeout=10) for _ in range(50)]
    try:
        crowd[-1].sendall(get())
        assert answer(crowd[-1])[0] == 200
        with socket.create_connection(address, timeout=10) as late:
            assert ended(late)
        crowd.pop().close()
        for _ in range(100):  # the server sees the close a moment later
            with socket.create_connection(address, timeout=10) as next_one:
                next_one.sendall(get())
                try:
                    assert answer(next_one)[0] == 200
                    return
                except (EOFError, ConnectionResetError):
                    continue
        pytest.fail("the place of a closed connection is not given to another")
    finally:
        for connection in crowd:
            connection.close()


def test_a_slow_answer_delays_no_other_connection(client, transport, app):
    client.sendall(get("/later"))
    with socket.create_connection(("127.0.0.1", transport.port), timeout=10) as other:
        other.sendall(get("/b"))
        assert answer(other) == (200, b"GET /b ")
    app.go.set()
    assert answer(client) == (200, b"GET /later ")


def test_a_client_that_closes_its_side_still_gets_its_answer(client, app):
    client.sendall(get("/later"))
    client.shutdown(socket.SHUT_WR)
    app.go.set()
    assert answer(client) == (200, b"GET /later ")
    assert ended(client)


def test_a_busy_port_is_named(transport, app):
    other = HttpTransport(app.handle)
    with pytest.raises(OSError, match=f"the HTTP port {transport.port} cannot be used"):
        other.bind("127.0.0.1", transport.port)
    other.stop()


def test_draining_answers_what_is_there_and_closes(client, transport, app):
    client.sendall(get("/later"))
    while not app.seen:
        time.sleep(0.001)
    transport.refuse()
    assert not transport.wait_idle(time.monotonic() + 0.05)
    app.go.set()
    assert answer(client) == (200, b"GET /later ")
    assert transport.wait_idle(time.monotonic() + 5)


def test_draining_beside_a_handler_that_holds_the_loop_up_ends_in_time(client, transport, app):
    client.sendall(get("/here"))
    while not app.seen:
        time.sleep(0.001)
    assert not transport.wait_idle(time.monotonic() + 0.05)
    app.go.set()
    assert answer(client) == (200, b"GET /here ")
    assert transport.wait_idle(time.monotonic() + 5)
    transport.stop()
    assert transport.wait_idle(time.monotonic() + 5)


def test_a_request_id_comes_back_with_its_answer(transport, client):
    both = get("/a", "x-request-id: one, 1") + get("/b") + get("/c", "X-Request-Id: two")
    client.sendall(both)
    data = b""
    while data.count(b"HTTP/1.1 200") < 3 or not data.endswith(b"GET /c "):
        data += client.recv(10_000)
    first, second, third = data.split(b"HTTP/1.1 200")[1:]
    assert b"\r\nx-request-id: one, 1\r\n\r\nGET /a " in first
    assert b"x-request-id" not in second
    assert b"\r\nx-request-id: two\r\n\r\nGET /c " in third
