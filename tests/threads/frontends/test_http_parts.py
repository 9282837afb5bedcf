"""Bodies that are sent in parts over HTTP, by a real transport to clients of other makers."""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.messages import HttpReply
from servingd.frontends.http.transport import HttpTransport
from tests.http_client import Answers, connect, ended, get, received
from tests.threads.fakes import TIMEOUT

PART = b"a part\n"


class App:
    """`/parts` begins an answer, which the test goes on with; anything else is answered whole."""

    def __init__(self):
        self.bodies, self.replies, self.came = [], [], threading.Semaphore(0)
        self.woken = threading.Semaphore(0)

    def handle(self, request, reply: HttpReply):
        if request.path != "/parts":
            reply.send(200, request.path.encode(), "text/plain")
            return
        self.replies.append(reply)
        body = reply.begin(200, "text/x", (("x-own", "100 %"),), chunked=request.takes_chunks)
        body.watch(self.woken.release)
        self.bodies.append(body)
        self.came.release()

    def next(self):
        assert self.came.acquire(timeout=TIMEOUT)
        return self.bodies[-1]

    def until(self, condition):
        """Wait until something holds of which the body tells."""
        while not condition():
            assert self.woken.acquire(timeout=TIMEOUT), "nobody was woken"


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


def read_to(client, what: bytes) -> bytes:
    data = b""
    while not data.endswith(what):
        data += received(client)
    return data


def test_the_standard_client_reads_parts_as_they_come(transport, app):
    client = http.client.HTTPConnection("127.0.0.1", transport.port, timeout=TIMEOUT)
    client.request("GET", "/parts", headers={"x-request-id": "7"})
    body = app.next()
    assert body.add(PART)
    answer = client.getresponse()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/x"
    assert answer.headers["x-own"] == "100 %"
    assert answer.headers["x-request-id"] == "7"
    assert answer.headers["content-length"] is None
    assert answer.readline() == PART
    assert body.add(b"x" * 100_000)
    assert answer.read(100_000) == b"x" * 100_000
    assert body.end(b"last")
    assert answer.read() == b"last"
    client.request("GET", "/next")  # on the same connection
    assert client.getresponse().read() == b"/next"
    client.close()


def test_nothing_follows_the_end(client, app):
    client.sendall(get("/parts"))
    body = app.next()
    assert body.alive()
    assert body.end()
    assert not body.alive()
    assert not body.add(PART)
    assert not body.end(PART)
    assert app.replies[0].begin(200, "text/x") is None
    assert not app.replies[0].send(200, b"", "text/x")
    assert read_to(client, b"0\r\n\r\n").count(b"HTTP/1.1") == 1


def test_an_empty_part_is_not_the_end(client, app):
    client.sendall(get("/parts"))
    body = app.next()
    assert body.add(b"")
    assert body.end(PART)
    assert read_to(client, b"0\r\n\r\n").endswith(b"\r\n\r\n7\r\na part\n\r\n0\r\n\r\n")


def test_a_request_that_waits_behind_is_answered_afterwards(client, app):
    client.sendall(get("/parts") + get("/a") + get("/parts"))
    app.next()
    app.next()
    first, second = app.bodies
    assert second.add(b"2")
    assert first.add(b"1")
    assert second.waiting == 2, "head and part"
    first.end()
    data = read_to(client, b"1\r\n2\r\n")
    assert data.index(b"1\r\n1\r\n") < data.index(b"/a") < data.index(b"1\r\n2\r\n")
    second.end()
    read_to(client, b"0\r\n\r\n")


def test_a_client_of_http_1_0_reads_to_the_end_of_its_connection(transport, app):
    for keep_alive in (b"", b"connection: keep-alive\r\n"):
        with connect(transport.port) as client:
            client.sendall(b"GET /parts HTTP/1.0\r\n" + keep_alive + b"\r\n")
            body = app.next()
            assert body.add(PART)
            assert body.end()
            data = read_to(client, PART)
            assert b"transfer-encoding" not in data
            assert b"connection: close" in data
            assert data.endswith(b"\r\n\r\n" + PART)
            assert ended(client)


def test_a_head_alone_has_no_parts(client, app):
    client.sendall(get("/parts", method="HEAD"))
    body = app.next()
    assert not body.alive()
    assert not body.add(PART)
    client.sendall(get("/next"))
    answers = Answers(client)
    assert answers.next(head=True) == (200, b"")
    assert answers.next() == (200, b"/next")


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A key and a certificate of itself, in one file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=it"]
    command += ["-keyout", str(file), "-out", str(file.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.fixture
def encrypted(app, pem):
    """The same over TLS; `encrypted.connect` is how clients connect to it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    transport = HttpTransport(app.handle, HttpLimits(), server)
    port = transport.bind("127.0.0.1", 0)
    transport.start()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.load_verify_locations(pem.with_suffix(".crt"))
    transport.connect = lambda: trusting.wrap_socket(connect(port, receive_buffer=1 << 16))
    yield transport
    transport.stop()


def test_a_reader_that_is_slow_is_waited_for(transport, app):
    with connect(transport.port, receive_buffer=1 << 16) as client:
        reads_slowly(client, app)


def test_so_is_one_over_tls(encrypted, app):
    with encrypted.connect() as client:
        reads_slowly(client, app)


def reads_slowly(client, app):
    """What is beyond the kernel's buffers waits here, and is taken when they are read."""
    client.sendall(get("/parts"))
    body = app.next()
    sent = 0
    quiet = time.monotonic()
    while time.monotonic() - quiet < 0.3:  # until the kernel takes no more
        if body.waiting < 2:
            assert body.add(bytes(1 << 16))
            sent += 1
            quiet = time.monotonic()
        else:
            app.woken.acquire(timeout=0.01)
    assert body.waiting == 2
    assert 2 < sent < 256
    taken = 0
    while taken < (sent - 2) << 16:
        taken += len(client.recv(1 << 20))
    app.until(lambda: body.waiting == 0)
    assert body.end()
    while not received(client).endswith(b"0\r\n\r\n"):
        pass
    client.sendall(get("/next"))
    assert received(client).endswith(b"/next")


def test_one_that_leaves_over_tls_is_noticed(encrypted, app):
    with encrypted.connect() as client:
        client.sendall(get("/parts"))
        body = app.next()
        assert body.add(PART)
        read_to(client, PART + b"\r\n")
    app.until(lambda: not body.alive())


def closes(client):
    client.close()


def closes_its_sending_side(client):
    client.shutdown(socket.SHUT_WR)


def resets(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("leaves", [closes, closes_its_sending_side, resets])
def test_a_client_that_leaves_is_noticed_without_a_further_part(client, app, leaves):
    client.sendall(get("/parts"))
    body = app.next()
    assert body.add(PART)
    read_to(client, PART + b"\r\n")
    leaves(client)
    app.until(lambda: not body.alive())
    assert not body.add(PART)


def test_one_that_leaves_before_the_answer_begins(transport):
    replies, came = [], threading.Semaphore(0)

    def keep(request, reply):
        replies.append(reply)
        came.release()

    late = HttpTransport(keep, HttpLimits())
    port = late.bind("127.0.0.1", 0)
    late.start()
    try:
        with connect(port) as client:
            client.sendall(get("/"))
            assert came.acquire(timeout=TIMEOUT)
            resets(client)
        deadline = time.monotonic() + TIMEOUT
        while replies[0].alive():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        body = replies[0].begin(200, "text/x")
        assert not body.alive()
        assert not body.add(PART)
    finally:
        late.stop()


def test_what_waits_behind_the_last_answer_is_told_that_nobody_waits(client, app):
    client.sendall(get("/parts", "connection: close") + get("/parts"))
    first = app.next()
    first.end()
    read_to(client, b"0\r\n\r\n")
    if len(app.bodies) > 1:  # it was read before the first one ended
        app.until(lambda: not app.bodies[1].alive())
    assert ended(client)


@pytest.mark.parametrize(
    "transport",
    [HttpLimits(idle_s=0.2, progress_s=0.2, sweep_s=0.05)],
    ids=["quick"],
    indirect=True,
)
def test_a_body_may_pause_but_a_reader_may_not_stop(transport, app):
    with connect(transport.port) as client:
        client.sendall(get("/parts"))
        body = app.next()
        assert body.add(PART)
        read_to(client, PART + b"\r\n")
        time.sleep(0.5)  # more than an idle client is kept
        assert body.add(PART)
        read_to(client, PART + b"\r\n")
        while body.alive():  # it reads no more
            if body.waiting < 2:
                body.add(bytes(1 << 20))
            else:
                app.woken.acquire(timeout=0.01)


def test_a_stop_waits_for_the_end(transport, client, app):
    client.sendall(get("/parts"))
    body = app.next()
    transport.refuse()
    assert not transport.wait_idle(time.monotonic() + 0.05)
    assert body.end(PART)
    assert transport.wait_idle(time.monotonic() + TIMEOUT)
    assert read_to(client, b"0\r\n\r\n")
