"""Clients that break HTTP's rules, or press on the server: each is answered or closed, and no
other client waits for it. Time limits are tested beside the transport (`tests/threads`)."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import threading
import time

import pytest

from tests.e2e.process import memory_mib
from tests.http_client import Answers, answer, connect, ended, get, post

pytestmark = [
    pytest.mark.tf,
    pytest.mark.e2e,
    pytest.mark.parametrize("server", ["native"], indirect=True),
]

HALF = "/v1/models/half_plus_two:predict"
BODY = b'{"instances": [1.0]}'
CHUNKED = "transfer-encoding: chunked"
UPGRADE = ("upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: AAMAAABk")


def crafted(head: str, body: bytes = b"") -> bytes:
    """A POST whose headers after Host are given as they are, line ends included."""
    return f"POST {HALF} HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode("latin-1") + body


BROKEN = {
    "two lengths": (crafted("content-length: 20\r\ncontent-length: 21\r\n", BODY), 400),
    "two equal lengths": (crafted("content-length: 20\r\ncontent-length: 20\r\n", BODY), 400),
    "two lengths in one": (crafted("content-length: 20, 20\r\n", BODY), 400),
    "a length with a sign": (crafted("content-length: +20\r\n", BODY), 400),
    "a negative length": (crafted("content-length: -1\r\n"), 400),
    "a length in hexadecimal": (crafted("content-length: 0x14\r\n", BODY), 400),
    "a length that overflows": (crafted("content-length: 18446744073709551636\r\n", BODY), 400),
    "no length": (crafted("content-length: \r\n"), 400),
    "length and chunked": (crafted(f"content-length: 20\r\n{CHUNKED}\r\n", BODY), 400),
    "chunked and length": (crafted(f"{CHUNKED}\r\ncontent-length: 20\r\n", BODY), 400),
    "chunked twice over": (crafted("transfer-encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 400),
    "chunked, then not": (crafted("transfer-encoding: chunked, identity\r\n"), 400),
    "nearly chunked": (crafted("transfer-encoding: xchunked\r\n"), 501),
    "chunked after a tab": (crafted("transfer-encoding:\x0bchunked\r\n"), 400),
    "chunked before a space": (crafted("transfer-encoding : chunked\r\n"), 400),
    "zipped and chunked": (crafted("transfer-encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "no chunk size": (crafted(f"{CHUNKED}\r\n", b"\r\nabc\r\n"), 400),
    "a chunk size that is none": (crafted(f"{CHUNKED}\r\n", b"xyz\r\n"), 400),
    "a chunk size with 0x": (crafted(f"{CHUNKED}\r\n", b"0x3\r\nabc\r\n"), 400),
    "a chunk size that overflows": (crafted(f"{CHUNKED}\r\n", b"f" * 17 + b"\r\nabc\r\n"), 400),
    "a negative chunk size": (crafted(f"{CHUNKED}\r\n", b"-1\r\nabc\r\n"), 400),
    "a chunk longer than it says": (crafted(f"{CHUNKED}\r\n", b"1\r\nabc\r\n"), 400),
    "a folded header": (crafted("h: a\r\n b\r\n"), 400),
    "a bare line feed": (b"GET /livez HTTP/1.1\nhost: x\n\n", 400),
    "a bare line feed in a header": (crafted("h: a\nb: c\r\n"), 400),
    "a bare carriage return": (crafted("h: a\rb: c\r\n"), 400),
    "NUL in a header": (crafted("h: a\0b\r\n"), 400),
    "NUL in a header's name": (crafted("h\0: a\r\n"), 400),
    "NUL in the URL": (b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "a URL beyond ASCII": (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "no Host": (b"GET /livez HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /livez HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /livez\r\n\r\n", 400),
    "HTTP/1.9": (b"GET /livez HTTP/1.9\r\nhost: x\r\n\r\n", 400),
    "a method that is none": (b"BREW /livez HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    "a long header": (get("/livez", "h: " + "x" * 70_000), 431),
    "a long header's name": (get("/livez", "x" * 70_000 + ": x"), 431),
    "many headers": (get("/livez", *[f"h{i}: x" for i in range(200)]), 431),
    "one header many times": (get("/livez", *["h: x"] * 200), 431),
    "a long URL": (get("/" + "x" * 20_000), 414),
    "an endless URL": (b"GET /" + b"x" * 3_000_000, 414),
    "a body over the limit": (crafted("content-length: 100000001\r\n"), 413),
    "the start of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400),
    "TLS": (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(190), 400),
    "zeros": (bytes(1000), 400),
    "HTTP/1.0": (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    "close": (get("/livez", "connection: close"), 200),
}


@pytest.fixture
def client(server):
    with connect(server.http_port) as connection:
        yield connection


def is_answered(server):
    with connect(server.http_port) as other:
        other.sendall(post(HALF, BODY))
        return predictions(answer(other)) == [2.5]


def test_an_offer_of_http2_is_ignored(client):
    chunked = get(HALF, *UPGRADE, CHUNKED, method="POST", body=b"14\r\n" + BODY + b"\r\n0\r\n\r\n")
    for request_ in (post(HALF, BODY, *UPGRADE), chunked, post(HALF, BODY, *UPGRADE)):
        client.sendall(request_)
        assert predictions(answer(client)) == [2.5]


def test_a_target_in_absolute_form_is_answered(client):
    client.sendall(post(f"http://models.example:8501{HALF}", BODY))
    assert predictions(answer(client)) == [2.5]


def open_files(server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def predictions(found: tuple[int, bytes]):
    status, body = found
    assert status == 200, found
    return json.loads(body)["predictions"]


@pytest.mark.parametrize("case", BROKEN)
def test_what_breaks_a_rule_is_answered_so_and_closed(server, client, case):
    request, status = BROKEN[case]
    with contextlib.suppress(ConnectionError):
        client.sendall(request)
    assert answer(client)[0] == status
    assert ended(client)
    assert is_answered(server)


@pytest.mark.parametrize("case", [c for c, (_, status) in BROKEN.items() if status != 200])
def test_no_request_is_smuggled_behind_another(client, case):
    """Whatever the first request is: a second one right behind it is not taken from its body."""
    request, status = BROKEN[case]
    with contextlib.suppress(ConnectionError):
        client.sendall(request + get("/livez"))
    answers = Answers(client)
    assert answers.next()[0] == status
    with pytest.raises((EOFError, ConnectionError)):
        answers.next()


def test_a_hundred_requests_at_once_are_answered_in_order(client):
    bodies = [json.dumps({"instances": [float(i)]}).encode() for i in range(100)]
    client.sendall(b"".join(post(HALF, body) for body in bodies))
    answers = Answers(client)
    for i in range(100):
        assert predictions(answers.next()) == [i / 2 + 2]


def test_bodies_in_chunks_heads_alone_and_leave_to_send(client):
    answers = Answers(client)
    client.sendall(get(HALF, CHUNKED, method="POST"))
    for byte in BODY:
        client.sendall(b"1;a=b\r\n%c\r\n" % byte)
    client.sendall(b"0\r\nx-trailer: y\r\n\r\n")
    assert predictions(answers.next()) == [2.5]
    client.sendall(get("/livez", method="HEAD") + get("/livez"))
    assert answers.next(head=True) == (200, b"")
    assert answers.next() == (200, b"ok\n")
    client.sendall(get(HALF, f"content-length: {len(BODY)}", "expect: 100-continue", method="POST"))
    assert answers.next()[0] == 100
    client.sendall(BODY)
    assert predictions(answers.next()) == [2.5]


def test_a_client_that_closes_its_side_gets_its_answers(client):
    client.sendall(post(HALF, BODY) * 3)
    client.shutdown(socket.SHUT_WR)
    answers = Answers(client)
    for _ in range(3):
        assert predictions(answers.next()) == [2.5]
    assert ended(client)


def test_a_body_over_the_limit_is_refused_where_it_reaches_it(server, client):
    before = memory_mib(server)
    client.sendall(get(HALF, CHUNKED, method="POST"))
    with contextlib.suppress(ConnectionError):
        for _ in range(110):
            client.sendall(b"f4240\r\n" + bytes(1_000_000) + b"\r\n")
    assert answer(client)[0] == 413
    assert is_answered(server)
    assert memory_mib(server) < before + 500


def test_bombs_are_refused_within_bounds(server):
    before = memory_mib(server)
    bomb = gzip.compress(bytes(300 << 20))
    many = gzip.compress(b"") * 400_000
    deep = gzip.compress(b'{"instances": ' + b"[" * 2_000_000)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server.http_port, timeout=60)) for _ in range(9)]
        for i, client in enumerate(clients):
            client.sendall(post(HALF, (bomb, many, deep)[i % 3], "content-encoding: gzip"))
        assert is_answered(server)
        for i, client in enumerate(clients):
            assert answer(client)[0] == (413, 400, 400)[i % 3]
    assert memory_mib(server) < before + 1000


def test_many_slow_clients_delay_nobody(server):
    """Heads, bodies and chunks that stop; a thousand connections that say nothing."""
    starts = (
        b"",
        b"GET",
        b"GET /livez HTTP/1.1\r\nhost: x\r\n",
        post(HALF, BODY)[:-1],
        get(HALF, CHUNKED, method="POST") + b"14\r\n" + BODY[:5],
    )
    before = memory_mib(server)
    with contextlib.ExitStack() as stack:
        for i in range(1000):
            client = stack.enter_context(connect(server.http_port))
            client.sendall(starts[i % len(starts)])
        for _ in range(20):
            assert is_answered(server)
        assert memory_mib(server) < before + 100
    assert is_answered(server)


def test_clients_that_never_read_delay_nobody_and_fill_no_memory(server):
    before = memory_mib(server)
    greedy = b"".join([get("/metrics"), get("/v1/models/echo/metadata"), post(HALF, BODY)]) * 5000
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connect(server.http_port, receive_buffer=4096))
            client.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                client.sendall(greedy)
        started = time.monotonic()
        for _ in range(5):
            assert is_answered(server)
        assert time.monotonic() - started < 10
        assert memory_mib(server) < before + 200


def test_a_flood_of_requests_delays_nobody(server):
    """Every one of them is answered, beside clients that ask once."""
    count = 1000
    with connect(server.http_port, timeout=60) as client:
        flood = threading.Thread(target=client.sendall, args=(get("/metrics") * count,))
        flood.start()
        answers = Answers(client)
        assert answers.next()[0] == 200
        for _ in range(10):
            assert is_answered(server)
        for _ in range(count - 1):
            assert answers.next()[0] == 200
        flood.join()


def test_clients_that_leave_at_any_byte_leave_nothing_behind(server):
    request = post(HALF, BODY, "h: x")
    before = open_files(server)
    for cut in range(len(request) + 1):
        with connect(server.http_port) as client:
            client.sendall(request[:cut])
            if cut % 2:  # a reset instead of an end
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.wait_for("the end of all", lambda: open_files(server) <= before + 5)
    assert is_answered(server)
