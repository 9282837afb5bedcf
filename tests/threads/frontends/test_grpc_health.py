"""What health checks are told, and when."""

import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servingd.core.readiness import Readiness
from servingd.frontends.grpc.grpcio import GrpcioTransport
from servingd.frontends.grpc_health import Health
from servingd.wire.protos import POOL
from tests.threads.fakes import TIMEOUT

M = frozenset({"m"})
NOT_YET = Readiness(configured=M)
UP = Readiness(configured=M, available=M)
STOPPING = Readiness(configured=M, stopping=True)


class Board:
    """Where health is told."""

    def __init__(self):
        self.said = {}
        self.told = 0
        self.health = Health(self)

    def set_health(self, service, serving):
        self.told += 1
        self.said[service] = serving

    def forget_health(self, service):
        del self.said[service]


@pytest.fixture
def board():
    return Board()


def test_health_follows_what_is_seen_and_tells_changes_only(board):
    board.health.update(lambda: NOT_YET)
    services = {"tensorflow.serving.ModelService": True, "ModelService": True}
    predictions = ("", "tensorflow.serving.PredictionService", "PredictionService", "m")
    assert board.said == services | dict.fromkeys(predictions, False)
    board.health.update(lambda: UP)
    assert board.said == services | dict.fromkeys(predictions, True)
    told = board.told
    board.health.update(lambda: UP)
    assert board.told == told
    board.health.update(lambda: STOPPING)
    assert not any(board.said.values())
    board.health.update(Readiness)
    assert "m" not in board.said


def test_who_looked_before_a_change_does_not_undo_what_it_changed(board):
    has_looked, may_go_on = threading.Event(), threading.Event()

    def look():
        has_looked.set()
        assert may_go_on.wait(TIMEOUT)
        return NOT_YET

    late = threading.Thread(target=board.health.update, args=(look,))
    late.start()
    assert has_looked.wait(TIMEOUT)
    board.health.update(lambda: UP)
    may_go_on.set()
    late.join(TIMEOUT)
    assert board.said["m"] is board.said[""] is True


# The end of a server, over grpcio ---------------------------------------------------------------

METHOD = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture
def transport():
    """A transport whose calls are kept in `transport.calls`."""
    calls, came = [], threading.Semaphore(0)

    def keep(payload, reply):
        calls.append(reply)
        came.release()

    transport = GrpcioTransport(
        ["127.0.0.1:0"], {METHOD: keep}, pool=POOL, max_request_bytes=1 << 20
    )
    transport.calls, transport.came = calls, came
    port = transport.bind()
    transport.start()
    transport.set_health("", True)
    transport.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield transport
    transport.channel.close()
    transport.stop()


def watch(transport):
    """The stream of a client that watches health; it has heard that all is well."""
    stub = health_pb2_grpc.HealthStub(transport.channel)
    stream = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=TIMEOUT)
    assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
    return stream


def test_a_watch_of_health_holds_up_no_stop_and_is_told_until_the_end(transport):
    stream = watch(transport)
    transport.set_health("", False)
    transport.refuse()
    began = time.monotonic()
    assert transport.wait_idle(began + TIMEOUT)
    assert next(stream).status == health_pb2.HealthCheckResponse.NOT_SERVING
    transport.stop()
    assert time.monotonic() - began < TIMEOUT / 2
    with pytest.raises(grpc.RpcError):
        next(stream)


def test_a_call_in_flight_is_waited_for_and_a_new_one_is_refused(transport):
    predict = transport.channel.unary_unary(METHOD)
    first = predict.future(b"", timeout=TIMEOUT)
    assert transport.came.acquire(timeout=TIMEOUT)
    transport.refuse()
    with pytest.raises(grpc.RpcError) as refused:
        predict(b"", timeout=TIMEOUT)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "server is shutting down"
    assert not transport.wait_idle(time.monotonic() + 0.05)
    transport.calls[0].send(b"x")
    assert transport.wait_idle(time.monotonic() + TIMEOUT)
    transport.stop()
    assert first.result() == b"x"
