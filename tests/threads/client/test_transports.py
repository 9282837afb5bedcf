"""What carries calls, against servers that fail as they are told to: connections, hints, ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import http.server
import itertools
import json
import os
import resource
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from servingd.client import Client, Retry
from servingd.client.address import find_address, parse_address
from servingd.client.calls import Call, Send
from servingd.client.grpc.api import METADATA
from servingd.client.rest import aio_transport
from servingd.client.rest.transport import RestTransport
from servingd.client.settings import Settings
from servingd.core.types import DataType
from servingd.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from servingd.wire import protos
from servingd.wire.json.status import encode_metadata
from servingd.wire.tensors.encoding import encode
from tests.client_kinds import KINDS, Awaited, open_client
from tests.threads.fakes import TIMEOUT

X = {"x": np.float32([1])}
QUICK = Retry(first_s=0.001)
CLOSED = "the client is closed"


def signatures():
    found = protos.SignatureDefMap()
    one = found.signature_def["serving_default"]
    for infos, name in ((one.inputs, "x"), (one.outputs, "y")):
        infos[name].dtype = DataType.FLOAT
        infos[name].tensor_shape.dim.add(size=-1)
    return found


class Script:
    """How a server answers: failures first, then what is right; and what it has seen."""

    def __init__(self):
        self.failures = []  # (code, text, seconds to wait or None), or a function that is called
        self.headers = []
        self.connections = set()
        self.cancelled = threading.Event()
        self.go_on = threading.Event()
        self.parts = 2  # of a stream; None: without end
        self.encodings = []
        self.is_cut_off = False  # whether a body ends before its end

    def next_failure(self):
        return self.failures.pop(0) if self.failures else None


class FakeGrpc(grpc.GenericRpcHandler):
    """A gRPC server of one model."""

    def __init__(self, script):
        self.script = script
        self.server = grpc.server(ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        if details.method == METADATA:
            return grpc.unary_unary_rpc_method_handler(self.metadata)
        if details.method.endswith("Streamed"):
            return grpc.unary_stream_rpc_method_handler(self.stream)
        return grpc.unary_unary_rpc_method_handler(self.predict)

    def metadata(self, payload, context):
        found = protos.GetModelMetadataResponse()
        found.metadata["signature_def"].value = signatures().SerializeToString()
        return found.SerializeToString()

    def predict(self, payload, context):
        self.note(context)
        answer = protos.PredictResponse()
        answer.outputs["y"].MergeFromString(encode(np.float32([2]), DataType.FLOAT))
        return answer.SerializeToString()

    def stream(self, payload, context):
        self.note(context)
        context.add_callback(self.script.cancelled.set)
        count = itertools.count() if self.script.parts is None else range(self.script.parts)
        for number in count:
            if not context.is_active():
                return
            answer = protos.PredictResponse()
            tensor = encode(np.float32([number]), DataType.FLOAT)
            answer.outputs["y"].MergeFromString(tensor)
            yield answer.SerializeToString()
        self.fail(context, self.script.next_failure())

    def note(self, context):
        self.script.connections.add(context.peer())
        self.script.headers.append(dict(context.invocation_metadata()))
        self.fail(context, self.script.next_failure())

    def fail(self, context, failure):
        if callable(failure):
            failure()
        elif failure is not None:
            code, text, hint = failure
            if hint is not None:
                context.set_trailing_metadata((("retry-after-ms", str(int(hint * 1000))),))
            context.abort(grpc.StatusCode[code], text)

    def close(self):
        self.script.go_on.set()
        self.server.stop(None).wait()


STATUSES = {"UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 429, "NOT_FOUND": 404}


class FakeHttp(http.server.ThreadingHTTPServer):
    """A REST server of the same model."""

    daemon_threads = False

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.port = self.server_address[1]
        self.sockets = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def hang_up(self):
        """End all connections."""
        for connection in self.sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, address):
        self.script.cancelled.set()

    def close(self):
        self.script.go_on.set()
        self.shutdown()
        self.thread.join()
        self.hang_up()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.sockets.append(self.connection)

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        assert self.path == "/prefix/v1/models/m/metadata"
        self.reply(200, encode_metadata("m", 1, signatures()))

    def do_POST(self):
        script = self.server.script
        body = self.rfile.read(int(self.headers["content-length"]))
        script.encodings.append(self.headers["content-encoding"])
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        assert "inputs" in json.loads(body)
        script.connections.add(self.client_address)
        script.headers.append({k.lower(): v for k, v in self.headers.items()})
        failure = script.next_failure()
        if callable(failure):
            failure()
            failure = None
        if failure is not None:
            code, text, hint = failure
            headers = {} if hint is None else {"retry-after": str(hint)}
            self.reply(STATUSES[code], json.dumps({"error": text}).encode(), **headers)
        elif "ndjson" in self.headers.get("accept", ""):
            self.stream()
        else:
            self.reply(200, b'{"outputs": [2]}')

    def reply(self, status, body, **headers):
        if "gzip" in self.headers.get("accept-encoding", ""):
            body, headers["content-encoding"] = gzip.compress(body), "gzip"
        request_id = self.headers.get("x-request-id")
        self.send_response(status)
        for name, value in (*headers.items(), ("x-request-id", request_id)):
            if value:
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        cut = self.server.script.is_cut_off
        self.close_connection = cut
        self.wfile.write(body[: len(body) // 2] if cut else body)

    def stream(self):
        script = self.server.script
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        count = itertools.count() if script.parts is None else range(script.parts)
        for number in count:
            self.chunk(b'{"outputs": [%d]}\n' % number)
        failure = script.next_failure()
        if failure is None:
            self.chunk(b"")
        elif callable(failure):
            failure()
        else:
            self.chunk(json.dumps({"error": failure[1]}).encode() + b"\n")
            self.chunk(b"")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def fake_grpc(script):
    with contextlib.closing(FakeGrpc(script)) as server:
        yield server


@pytest.fixture
def fake_http(script):
    with contextlib.closing(FakeHttp(script)) as server:
        yield server


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def connect(kind, fake_grpc, fake_http):
    """Open a client of either server: `connect(**options)`."""
    with contextlib.ExitStack() as stack:

        def begin(**options):
            options = {"retry": QUICK, "timeout_s": TIMEOUT, **options}
            if kind.startswith("grpc"):
                client = open_client(kind, fake_grpc.port, 0, **options)
            else:
                address = f"http://127.0.0.1:{fake_http.port}/prefix"
                client = (Awaited if kind.endswith("async") else Client)(address, **options)
            return stack.enter_context(client)

        yield begin


BUSY = ("UNAVAILABLE", "busy", None)


def test_calls_are_tried_again_until_they_succeed(connect, script):
    script.failures = [BUSY, BUSY]
    assert connect().predict("m", X)["y"].tolist() == [2]
    assert len(script.headers) == 3
    script.failures = [BUSY] * 3
    with pytest.raises(Unavailable, match=r"^busy$"):
        connect().predict("m", X)
    script.failures = [("NOT_FOUND", "nobody", None)]
    with pytest.raises(NotFound, match=r"^nobody$"):
        connect().predict("m", X)


def test_hints_come_with_the_error(connect, script):
    script.failures = [("RESOURCE_EXHAUSTED", "full", 7)]
    with pytest.raises(ResourceExhausted, match="full") as error:
        connect(retry=Retry(attempts=1)).predict("m", X)
    assert error.value.retry_after_s == 7
    script.failures = [("RESOURCE_EXHAUSTED", "full", 7)]
    with pytest.raises(ResourceExhausted):  # it would be past the deadline
        connect().predict("m", X, timeout_s=5)
    script.failures = [("RESOURCE_EXHAUSTED", "full", 0)]
    assert connect().predict("m", X)["y"].tolist() == [2]


def test_a_deadline_holds_for_an_answer_that_does_not_come(connect, script):
    script.failures = [script.go_on.wait]
    with pytest.raises(DeadlineExceeded):
        connect().predict("m", X, timeout_s=0.1)


def test_connections_are_used_again(connect, script):
    client = connect()
    for _ in range(20):
        client.predict("m", X)
    assert len(script.connections) == 1


def test_connections_of_a_pool_are_used_in_turns(connect, script):
    client = connect(connections=3)
    for _ in range(12):
        client.predict("m", X)
    assert len(script.connections) == 3


def test_headers_arrive(connect, script):
    client = connect(token=lambda: "secret", headers={"X-Own": "1"}, priority="low")
    client.predict("m", X, request_id="17")
    (headers,) = script.headers
    assert (
        headers.items()
        >= {
            "authorization": "Bearer secret",
            "x-own": "1",
            "x-servingd-priority": "low",
            "x-request-id": "17",
        }.items()
    )


def test_compressed_both_ways(connect, script, kind):
    client = connect(compression="gzip")
    assert client.predict("m", {"x": np.zeros(2000, np.float32)})["y"].tolist() == [2]
    if kind.startswith("rest"):
        assert script.encodings == ["gzip"]
        client.predict("m", X)
        assert script.encodings[-1] is None  # not worth it


def test_streams_are_tried_again_before_their_first_part(connect, script):
    script.failures = [BUSY, BUSY]
    assert [part["y"].item() for part in connect().stream("m", X)] == [0, 1]
    assert len(script.headers) == 3


def test_a_stream_that_fails_later_ends_with_the_error(connect, script, kind):
    script.failures = [None, BUSY]
    parts = connect().stream("m", X)
    assert [next(parts)["y"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(Exception, match="busy") as error:
        next(parts)
    assert error.value.code.name == ("UNAVAILABLE" if kind.startswith("grpc") else "UNKNOWN")
    assert len(script.headers) == 1


def test_a_stream_without_parts_is_empty(connect, script):
    script.parts = 0
    assert list(connect().stream("m", X)) == []


def test_closing_a_stream_cancels_it(connect, script):
    script.parts = None
    parts = connect().stream("m", X)
    assert [next(parts)["y"].item() for _ in range(3)] == [0, 1, 2]
    parts.close()
    assert script.cancelled.wait(TIMEOUT)


def test_a_deadline_is_of_the_whole_stream(connect, script):
    script.parts = None
    with pytest.raises(DeadlineExceeded):
        for _ in connect().stream("m", X, timeout_s=0.2):
            pass


def test_a_client_that_is_closed_says_so(connect):
    client = connect()
    client.predict("m", X)
    client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        client.predict("m", X)


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_closing_a_client_ends_its_calls(connect, script):
    client, entered = connect(), threading.Event()
    script.failures = [lambda: entered.set() or script.go_on.wait(TIMEOUT)]
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.predict, "m", X)
        assert entered.wait(TIMEOUT)
        client.close()
        with pytest.raises((FailedPrecondition, Cancelled)):
            call.result(TIMEOUT)


def test_what_no_header_can_hold(connect):
    with pytest.raises(InvalidArgument, match="request_id: expected printable ASCII"):
        connect().predict("m", X, request_id="two\nlines")


def test_calls_at_a_time(connect, script, kind):
    client = connect()
    if kind.endswith("async"):

        async def ask():
            return await asyncio.gather(*(client.client.predict("m", X) for _ in range(30)))

        answers = client.loop.run_until_complete(ask())
    else:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: client.predict("m", X), range(30)))
    assert [answer["y"].item() for answer in answers] == [2] * 30


# ---- what HTTP alone can go through


@pytest.fixture
def rest(fake_http):
    with Client(f"http://127.0.0.1:{fake_http.port}/prefix", retry=Retry(attempts=1)) as client:
        yield client


def test_connections_that_ended_meanwhile_are_replaced(rest, fake_http, script):
    for ended in (False, True):
        rest.predict("m", X)
        if not ended:
            fake_http.hang_up()
    assert len(script.connections) == 2


def test_an_answer_that_is_cut_off_is_none(rest, fake_http, script):
    rest.metadata("m")
    script.is_cut_off = True
    with pytest.raises(Unavailable, match="broke"):
        rest.predict("m", X)


def test_a_stream_that_is_cut_off_is_an_error(rest, fake_http, script):
    script.failures = [None, fake_http.hang_up]
    with pytest.raises(Unavailable, match="broke"):
        list(rest.stream("m", X))


def test_a_request_id_comes_with_an_error(rest, script):
    script.failures = [("NOT_FOUND", "nobody", None)]
    with pytest.raises(NotFound) as error:
        rest.predict("m", X, request_id="17")
    assert error.value.request_id == "17"


@pytest.fixture
def high_descriptors():
    """Let whatever is opened next have a descriptor that `select` cannot take."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] < 1024:
        taken.append(os.dup(taken[0]))
    yield
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("high_descriptors")
def test_connections_are_used_again_whatever_their_descriptors(rest, fake_http, script):
    for _ in range(3):
        rest.predict("m", X)
    assert len(script.connections) == 1
    fake_http.hang_up()
    rest.predict("m", X)
    assert len(script.connections) == 2


@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_time_that_the_kernel_has_run_out_of_is_not_the_callers(timeout_s):
    transport = RestTransport(parse_address("http://a:1"), Settings())
    command = Send(Call("/", b""), (), timeout_s)
    lost = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    failure = transport.failure(lost, command)
    assert isinstance(failure, Unavailable)
    assert "the connection to a:1 broke: [Errno 110] Connection timed out" in str(failure)


def test_the_callers_time():
    transport = RestTransport(parse_address("http://a:1"), Settings())
    failure = transport.failure(TimeoutError("timed out"), Send(Call("/", b""), (), 5.0))
    assert isinstance(failure, DeadlineExceeded)
    assert str(failure) == "a:1 did not answer within 5 s"


# ---- asyncio alone


@pytest.mark.parametrize("kind", ["grpc-async", "rest-async"])
def test_a_call_that_is_cancelled_is_broken_off(connect, script):
    client = connect()
    client.predict("m", X)  # all is learned and connected
    entered = threading.Event()
    script.failures = [lambda: entered.set() or script.go_on.wait(TIMEOUT)]

    async def ask():
        task = asyncio.create_task(client.client.predict("m", X))
        assert await asyncio.to_thread(entered.wait, TIMEOUT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    client.loop.run_until_complete(ask())
    script.go_on.set()
    assert client.predict("m", X)["y"].tolist() == [2]  # others go on


@pytest.mark.parametrize("kind", ["grpc-async", "rest-async"])
def test_a_client_belongs_to_one_event_loop(connect):
    client = connect()
    client.predict("m", X)
    with pytest.raises(FailedPrecondition, match="another event loop: make one in each"):
        asyncio.run(client.client.predict("m", X))


@pytest.fixture
def one_thread(connect, script, monkeypatch):
    """A client of REST within asyncio that has one thread, and has learned all."""
    monkeypatch.setattr(aio_transport, "_MOST_THREADS", 1)
    client = connect(retry=Retry(attempts=1))
    client.predict("m", X)
    return client


async def while_busy(client, script, then):
    """Await `then()` while a call has the one thread; return that call's outcome."""
    entered = threading.Event()
    script.failures = [lambda: entered.set() or script.go_on.wait(TIMEOUT)]
    first = asyncio.create_task(client.client.predict("m", X))
    assert await asyncio.to_thread(entered.wait, TIMEOUT)
    await then()
    script.go_on.set()
    return (await asyncio.gather(first, return_exceptions=True))[0]


@pytest.mark.parametrize("kind", ["rest-async"])
def test_a_deadline_holds_while_a_call_waits_for_a_thread(one_thread, script):
    async def ask():
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.\d+ s"):
            await one_thread.client.predict("m", X, timeout_s=0.1)
        assert not script.go_on.is_set()

    first = one_thread.loop.run_until_complete(while_busy(one_thread, script, ask))
    assert first["y"].tolist() == [2]
    assert one_thread.predict("m", X)["y"].tolist() == [2]
    assert len(script.headers) == 3  # what was late was never sent


@pytest.mark.parametrize("kind", ["rest-async"])
def test_a_call_that_is_cancelled_while_it_waits_for_a_thread(one_thread, script):
    async def ask():
        waits = asyncio.create_task(one_thread.client.predict("m", X))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

    one_thread.loop.run_until_complete(while_busy(one_thread, script, ask))
    assert one_thread.predict("m", X)["y"].tolist() == [2]
    assert len(script.headers) == 3


@pytest.mark.parametrize("kind", ["rest-async"])
def test_closing_a_client_ends_calls_that_wait_for_a_thread(one_thread, script):
    async def close():
        # Many: the first call ends at once, and its thread may take some of these.
        waits = [asyncio.create_task(one_thread.client.predict("m", X)) for _ in range(30)]
        await asyncio.sleep(0)
        await one_thread.client.close()
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert {repr(each) for each in outcomes} == {repr(FailedPrecondition(CLOSED))}

    first = one_thread.loop.run_until_complete(while_busy(one_thread, script, close))
    assert repr(first) == repr(FailedPrecondition(CLOSED))


@pytest.mark.parametrize("kind", ["rest-async"])
def test_closing_a_client_ends_its_streams(connect, script):
    script.parts = None
    client = connect()
    parts = client.stream("m", X)
    next(parts)
    client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        next(parts)


# ---- which protocol a port speaks


def test_a_port_is_asked_what_it_speaks(fake_grpc, fake_http):
    for server, scheme in ((fake_grpc, "grpc"), (fake_http, "http")):
        address = find_address(f"127.0.0.1:{server.port}")
        assert address == f"{scheme}://127.0.0.1:{server.port}"
        assert find_address("127.0.0.1", default_port=server.port) == address


def test_a_port_at_which_nobody_listens_or_answers(fake_grpc):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match=r"nobody listens at .* Is the server running?"):
            find_address(place)
        silent.listen()
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.1 s"):
            find_address(place, timeout_s=0.1)


def test_the_other_port_is_told(fake_grpc, fake_http):
    once = Retry(attempts=1)
    with (
        Client(f"http://127.0.0.1:{fake_grpc.port}", retry=once) as client,
        pytest.raises(Unavailable, match="is it the gRPC port"),
    ):
        client.predict("m", X)
    with (
        Client(f"127.0.0.1:{fake_http.port}", retry=once) as client,
        pytest.raises(Unavailable, match=r"is it one of REST \(http://"),
    ):
        client.predict("m", X)
