"""A servable that yields, called by grpcio on both transports and over HTTP: the whole way."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time

import grpc
import numpy as np
import pytest

from servingd.errors import Code, DeadlineExceeded, InvalidArgument, Unavailable
from servingd.frontends.call import CallContext
from servingd.frontends.grpc.transport import GrpcFrontend, GrpcOptions
from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.transport import HttpTransport
from servingd.frontends.tfs.rest.api import RestApi, RestOptions
from servingd.frontends.tfs.rpc.methods import RpcMethods
from servingd.frontends.tfs.rpc.predict_streamed import PredictStreamedCall
from servingd.observability.requests import RequestMetrics
from servingd.runtime.jobs import JobStore
from servingd.runtime.threads import WorkerPool
from servingd.wire import protos
from servingd.wire.tensors.decoding import decode
from tests.http_client import connect, post, received
from tests.threads.fakes import TIMEOUT
from tests.threads.streams import Generator, Serving

METHOD = "/servingd.PredictionStream/PredictStreamed"
EVENTS = "accept: text/event-stream"
LINES = "accept: application/x-ndjson"


class Stack:
    """A model `m` that yields, behind all transports that there are."""

    def __init__(self, transport):
        self.serving = Serving(most=4)
        self.model = self.serving.publish(Generator())
        self.metrics = RequestMetrics()
        context = CallContext(self.serving.map, self.metrics, lambda name: False)
        methods = RpcMethods(context, None, None, None, None, 1 << 30, JobStore(1 << 20, 60))
        self.grpc = GrpcFrontend(
            GrpcOptions(port=free_port(), transport=transport),
            methods.table(),
            {},
            stream_table=methods.stream_table(),
        )
        self.workers = WorkerPool("rest", 1)
        self.workers.start()
        rest = RestApi(
            context, None, self.workers, RestOptions(timeout_s=1.0), JobStore(1 << 20, 60)
        )
        self.http = HttpTransport(rest.handle, HttpLimits(sweep_s=0.05))
        port = self.grpc.bind()
        self.http_port = self.http.bind("127.0.0.1", 0)
        self.grpc.start()
        self.http.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.call = self.channel.unary_stream(
            METHOD,
            protos.PredictRequest.SerializeToString,
            protos.PredictResponse.FromString,
        )

    def close(self):
        self.model.may_step.set()
        self.channel.close()
        self.http.stop()
        self.grpc.stop()
        self.workers.stop(1.0)

    def rest(self, body=b'{"instances": [1.0]}', *headers):
        client = connect(self.http_port)
        client.sendall(post("/v1/models/m:predict", body, *headers))
        return client

    def until(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, self.counted
            time.sleep(0.001)

    @property
    def counted(self):
        return {(k.method, k.code): h.count for k, h in self.metrics.histograms() if h.count}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(params=["native", "grpcio"])
def stack(request):
    stack = Stack(request.param)
    yield stack
    stack.close()


def ask(name="m", signature="", outputs=(), value=1.0):
    request = protos.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    request.inputs["x"].dtype = 1
    request.inputs["x"].float_val.append(value)
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.output_filter.extend(outputs)
    return request


def value(part):
    return decode(part.outputs["y"], "y").tolist()


def fails_at(number, error):
    def body(at):
        if at == number:
            raise error

    return body


# gRPC -------------------------------------------------------------------------------------------


def test_parts_arrive_and_the_call_is_counted_once(stack):
    stack.model.end_at = 3
    parts = list(stack.call(ask(outputs=["y"]), timeout=TIMEOUT))
    assert [value(part) for part in parts] == [[1.0], [2.0], [3.0]]
    assert parts[0].model_spec.name == "m"
    assert parts[0].model_spec.version.value == 1
    stack.until(lambda: stack.counted == {("PredictStreamed", Code.OK): 1})
    assert stack.metrics.parts() == [("m", 3)]
    assert stack.model.closed_streams == 1


def test_a_signature_that_does_not_yield_is_one_part(stack):
    assert [value(p) for p in stack.call(ask(signature="whole"), timeout=TIMEOUT)] == [[1.0]]


def test_a_part_is_there_before_the_next_one_is_made(stack):
    gate = threading.Semaphore(0)
    stack.model.body = lambda number: gate.acquire(timeout=TIMEOUT)
    parts = stack.call(ask(), timeout=TIMEOUT)
    for number in range(1, 4):
        gate.release()
        assert value(next(parts)) == [float(number)]
    parts.cancel()
    gate.release(10)


@pytest.mark.parametrize("how", ["cancels", "hangs up"])
def test_a_client_that_leaves_stops_the_generator_within_one_step(stack, how):
    gate = threading.Semaphore(0)
    stack.model.body = lambda number: gate.acquire(timeout=TIMEOUT)
    parts = stack.call(ask(), timeout=TIMEOUT)
    gate.release()
    next(parts)
    stack.until(lambda: stack.model.steps == 1)
    if how == "cancels":
        parts.cancel()
    else:
        stack.channel.close()
    # The step under way ends: it is the last one.
    stack.until(lambda: stack.serving.open.count("m") == 1)
    time.sleep(0.2)  # the transport hears of it
    gate.release(10)
    stack.until(lambda: stack.model.closed_streams == 1)
    assert stack.model.steps <= 2
    stack.until(lambda: stack.counted == {("PredictStreamed", Code.CANCELLED): 1})
    assert stack.serving.open.count("m") == 0


def test_a_reader_that_stops_makes_the_generator_wait(stack):
    big = {"y": np.zeros(1 << 18, np.float32)}

    def stream(signature, inputs):
        while True:
            stack.model.steps += 1
            yield big

    stack.model.stream = stream
    parts = stack.call(ask(), timeout=TIMEOUT)
    next(parts)
    made = -1
    while made != stack.model.steps:  # until it makes no more
        made = stack.model.steps
        time.sleep(0.3)
    assert made < 64, "MiB: what the kernel and the client take"
    for _ in range(2 * made):
        next(parts)
    assert stack.model.steps > made
    parts.cancel()


def test_an_error_comes_after_the_parts(stack):
    stack.model.body = fails_at(2, InvalidArgument("no third part"))
    parts = stack.call(ask(), timeout=TIMEOUT)
    assert [value(next(parts)), value(next(parts))] == [[1.0], [2.0]]
    with pytest.raises(grpc.RpcError) as error:
        next(parts)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == "no third part"
    stack.until(lambda: stack.counted == {("PredictStreamed", Code.INVALID_ARGUMENT): 1})


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ask(name="nobody"), grpc.StatusCode.NOT_FOUND),
        (ask(signature="nothing"), grpc.StatusCode.FAILED_PRECONDITION),
        (ask(outputs=["z"]), grpc.StatusCode.INVALID_ARGUMENT),
        (protos.PredictRequest(), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_is_wrong_is_told_before_any_part(stack, request_, code):
    with pytest.raises(grpc.RpcError) as error:
        list(stack.call(request_, timeout=TIMEOUT))
    assert error.value.code() is code
    assert stack.model.steps == 0
    assert stack.serving.open.count("m") == 0


def test_the_deadline_ends_a_generator_that_hangs_at_its_next_step(stack):
    stack.model.may_step.clear()
    with pytest.raises(grpc.RpcError) as error:
        list(stack.call(ask(), timeout=0.2))
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    stack.model.may_step.set()
    stack.until(lambda: stack.model.closed_streams == 1)
    assert stack.model.steps == 1
    stack.until(lambda: stack.counted == {("PredictStreamed", Code.DEADLINE_EXCEEDED): 1})


def test_too_many_streams_are_refused_with_a_hint(stack):
    held = [stack.call(ask(), timeout=TIMEOUT) for _ in range(4)]
    for call in held:
        next(call)
    with pytest.raises(grpc.RpcError) as error:
        list(stack.call(ask(), timeout=TIMEOUT))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.value.trailing_metadata())["retry-after-ms"] == "1000"
    for call in held:
        call.cancel()


def test_a_stop_waits_for_streams_and_then_ends_them(stack):
    gate = threading.Semaphore(0)
    stack.model.body = lambda number: gate.acquire(timeout=TIMEOUT)
    parts = stack.call(ask(), timeout=TIMEOUT)
    gate.release()
    next(parts)
    stack.grpc.refuse()
    assert not stack.grpc.wait_idle(time.monotonic() + 0.05)
    assert stack.serving.open.end_all(Unavailable("server is shutting down")) == 1
    with pytest.raises(grpc.RpcError) as error:
        next(parts)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error.value.details() == "server is shutting down"
    assert stack.grpc.wait_idle(time.monotonic() + TIMEOUT)
    gate.release(10)


class Gone:
    """A reply whose client has left."""

    deadline = None

    def request_id(self):
        return ""

    def fail(self, code, message, retry_after_s=None):
        return False


def test_a_step_that_is_dropped_after_its_client_has_left_counts_as_cancelled():
    metrics = RequestMetrics()
    call = PredictStreamedCall(Gone(), CallContext(None, metrics, lambda name: False))
    call.fail(DeadlineExceeded("Deadline Exceeded"))
    call.close()
    assert [(k.code, h.count) for k, h in metrics.histograms()] == [(Code.CANCELLED, 1)]


# HTTP: what carries gRPC makes no difference ----------------------------------------------------


@pytest.fixture
def web():
    stack = Stack("native")
    yield stack
    stack.close()


def documents(web, *headers, body=b'{"instances": [1.0]}', verb="predict"):
    connection = http.client.HTTPConnection("127.0.0.1", web.http_port, timeout=TIMEOUT)
    with contextlib.closing(connection) as client:
        client.request("POST", f"/v1/models/m:{verb}", body, dict(h.split(": ") for h in headers))
        answer = client.getresponse()
        return answer, answer.read()


def test_lines_and_events(web):
    web.model.end_at = 2
    answer, body = documents(web, LINES)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in body.splitlines()] == [
        {"predictions": [1.0]},
        {"predictions": [2.0]},
    ]
    answer, body = documents(web, EVENTS, body=b'{"inputs": {"x": [1.0]}}')
    assert answer.headers["content-type"] == "text/event-stream"
    assert body == b'data: {"outputs": [1.0]}\n\ndata: {"outputs": [2.0]}\n\n'
    web.until(lambda: web.counted == {("predict_streamed", Code.OK): 2})
    assert web.metrics.parts() == [("m", 4)]


def test_without_parts_there_is_an_empty_body(web):
    web.model.end_at = 0
    answer, body = documents(web, LINES)
    assert (answer.status, body) == (200, b"")


@pytest.mark.parametrize("accept", [(), ("accept: */*",), ("accept: application/json",)])
def test_who_asks_for_no_parts_gets_the_whole_answer(web, accept):
    with web.rest(b'{"instances": [1.0]}', *accept) as client:
        assert received(client) == (
            b"HTTP/1.1 200 OK\r\ncontent-length: 33\r\ncontent-type: application/json\r\n\r\n"
            b'{\n    "predictions": [1.0\n    ]\n}'
        )


def test_an_error_before_the_first_part_is_an_ordinary_one(web):
    web.model.body = fails_at(0, InvalidArgument("nothing"))
    answer, body = documents(web, LINES)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(body) == {"error": "nothing"}
    answer, body = documents(web, EVENTS, body=b"{")
    assert answer.status == 400


@pytest.mark.parametrize(
    ("accept", "last"),
    [
        (LINES, b'{"predictions": [1.0]}\n{"error": "enough"}\n'),
        (EVENTS, b'data: {"predictions": [1.0]}\n\nevent: error\ndata: {"error": "enough"}\n\n'),
    ],
)
def test_an_error_after_that_is_the_last_part(web, accept, last):
    web.model.body = fails_at(1, InvalidArgument("enough"))
    answer, body = documents(web, accept)
    assert (answer.status, body) == (200, last)
    web.until(lambda: web.counted == {("predict_streamed", Code.INVALID_ARGUMENT): 1})


@pytest.mark.parametrize("parts", [0, 1])
def test_the_time_out_holds_for_the_whole_answer(web, parts):
    hang = threading.Event()
    web.model.body = lambda number: number >= parts and hang.wait(TIMEOUT)
    answer, body = documents(web, LINES)
    assert answer.status == (200 if parts else 504)
    last = json.loads(body.splitlines()[-1] if parts else body)
    assert last == {"error": "Timed out waiting for notification"}
    hang.set()
    web.until(lambda: web.model.closed_streams == 1)
    web.until(lambda: web.counted == {("predict_streamed", DeadlineExceeded.code): 1})


def test_a_client_that_closes_stops_the_generator_within_one_step(web):
    gate = threading.Semaphore(0)
    web.model.body = lambda number: gate.acquire(timeout=TIMEOUT)
    with web.rest(b'{"instances": [1.0]}', LINES) as client:
        gate.release()
        assert b"1.0" in received(client)
    time.sleep(0.1)  # the transport hears of it
    gate.release(10)
    web.until(lambda: web.model.closed_streams == 1)
    assert web.model.steps <= 2
    web.until(lambda: web.counted == {("predict_streamed", Code.CANCELLED): 1})


def test_a_stop_ends_http_streams_with_an_error(web):
    web.model.end_at = None
    gate = threading.Semaphore(0)
    web.model.body = lambda number: gate.acquire(timeout=TIMEOUT)
    with web.rest(b'{"instances": [1.0]}', LINES) as client:
        gate.release()
        assert b"1.0" in received(client)
        web.http.refuse()
        assert not web.http.wait_idle(time.monotonic() + 0.05)
        web.serving.open.end_all(Unavailable("server is shutting down"))
        assert b'{"error": "server is shutting down"}\n' in received(client)
        assert web.http.wait_idle(time.monotonic() + TIMEOUT)
        gate.release(10)


@pytest.mark.parametrize(
    ("verb", "more"), [("classify", ()), ("predict", ("content-type: application/x-protobuf",))]
)
def test_classify_and_bodies_of_protobuf_are_never_answered_in_parts(web, verb, more):
    answer, _ = documents(web, EVENTS, *more, body=b"", verb=verb)
    assert answer.status == 400
    assert set(web.counted) == {(verb, Code.INVALID_ARGUMENT)}
