"""Clients that break gRPC's rules, or press on the server, on both transports: each is answered or
closed, and calls beside it and after it work."""

from __future__ import annotations

import contextlib
import gzip
import struct

import grpc
import numpy as np
import pytest

from tests import http2
from tests.e2e.fuzzing import field
from tests.e2e.process import UNLIMITED, memory_mib, request
from tests.http2 import Client, frame, message
from tests.http_client import connect, ended, get

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

PREDICT = "/tensorflow.serving.PredictionService/Predict"
X = np.float32([1, 2])
GZIP = ("grpc-encoding", "gzip")


@pytest.fixture(autouse=True)
def others_are_served(server):
    """Calls work before and after each test, on an old connection and on a new one."""
    assert works(server)
    before = memory_mib(server)
    yield
    assert works(server)
    assert works_anew(server)
    assert memory_mib(server) < before + 400


def works(server):
    return server.predict("half_plus_two", {"x": X}, timeout=20)["y"].tolist() == [2.5, 3.0]


def works_anew(server):
    with Client(server.port) as client:
        stream = client.open(PREDICT)
        client.data(stream, message(payload()))
        return client.ends(stream) == "answered"


def payload(x=X) -> bytes:
    return request("half_plus_two", {"x": x}).SerializeToString()


def announced_and_not_sent(client):
    client.data(client.open(PREDICT), struct.pack(">BI", 0, 2**32 - 1), end=True)


def announced_a_hundred_times(client):
    for _ in range(90):
        client.data(client.open(PREDICT), struct.pack(">BI", 0, 2**32 - 1), end=False)


def cut_off(client):
    client.data(client.open(PREDICT), message(payload())[:-5])


def cut_in_its_prefix(client):
    client.data(client.open(PREDICT), b"\0\0\0")


def no_message(client):
    client.data(client.open(PREDICT), b"")


def a_call_that_ends_with_its_headers(client):
    client.open(PREDICT, end=True)


def two_messages(client):
    client.data(client.open(PREDICT), message(payload()) * 2)


def a_flag_that_is_none(client):
    client.data(client.open(PREDICT, GZIP), message(payload(), compressed=7))


def compressed_garbage(client):
    client.data(client.open(PREDICT, GZIP), message(b"garbage", compressed=1))


def compressed_without_a_word(client):
    client.data(client.open(PREDICT), message(gzip.compress(payload()), compressed=1))


def an_encoding_that_is_none(client):
    client.data(client.open(PREDICT, ("grpc-encoding", "br")), message(payload(), compressed=1))


def another_content_type(client):
    client.data(client.open(PREDICT, content_type="application/json"), message(payload()))


def a_method_that_is_none(client):
    client.data(client.open("/no.Service/Method"), message(payload()))


def a_path_that_is_none(client):
    client.data(client.open("no path at all"), message(payload()))


def a_deadline_of_nothing(client):
    client.data(client.open(PREDICT, ("grpc-timeout", "0n")), message(payload()))


def a_deadline_that_is_none(client):
    client.data(client.open(PREDICT, ("grpc-timeout", "soon")), message(payload()))


def metadata_of_16_kib(client):
    client.data(client.open(PREDICT, ("x", "y" * 16_384)), message(payload()))


def metadata_of_64_kib(client):
    client.data(client.open(PREDICT, ("x", "y" * 65_536)), message(payload()))


def metadata_of_a_mebibyte(client):
    client.data(client.open(PREDICT, ("x", "y" * (1 << 20))), message(payload()))


def ten_thousand_headers(client):
    client.data(client.open(PREDICT, *[("x", "y")] * 10_000), message(payload()))


def headers_in_capitals(client):
    client.data(client.open(PREDICT, ("X-Capital", "y")), message(payload()))


def rapid_resets(client):
    for _ in range(20_000):
        stream = client.open(PREDICT)
        if not client.send(frame(http2.RST_STREAM, 0, stream, b"\0\0\0\x08")):
            return


def pings(client):
    client.send(frame(http2.PING, 0, 0, bytes(8)) * 50_000)


def settings(client):
    client.send(frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)) * 50_000)


def empty_data(client):
    stream = client.open(PREDICT)
    client.send(frame(http2.DATA, 0, stream) * 100_000)


def continuations_without_end(client):
    client.send(frame(http2.HEADERS, 0, 1, http2.block(http2.call_headers(PREDICT))))
    client.send(frame(http2.CONTINUATION, 0, 1, http2.block([("x", "y" * 1000)])) * 20_000)


def empty_continuations(client):
    client.send(frame(http2.HEADERS, 0, 1, http2.block(http2.call_headers(PREDICT))))
    client.send(frame(http2.CONTINUATION, 0, 1) * 100_000)


def windows_that_overflow(client):
    client.send(frame(http2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 10)


def a_frame_over_the_size(client):
    client.send(frame(http2.DATA, 0, 1, bytes(1 << 20)))


def a_frame_of_an_unknown_kind(client):
    client.send(frame(200, 255, 0, bytes(100)) * 10_000)


def data_of_no_stream(client):
    client.send(frame(http2.DATA, 0, 99, b"x"))


def garbage_for_headers(client):
    client.send(frame(http2.HEADERS, http2.END_HEADERS, 1, b"\xff" * 100))


def more_calls_than_may_be(client):
    for _ in range(2000):
        client.open(PREDICT)


ATTACKS = (
    announced_and_not_sent,
    announced_a_hundred_times,
    cut_off,
    cut_in_its_prefix,
    no_message,
    a_call_that_ends_with_its_headers,
    two_messages,
    a_flag_that_is_none,
    compressed_garbage,
    compressed_without_a_word,
    an_encoding_that_is_none,
    another_content_type,
    a_method_that_is_none,
    a_path_that_is_none,
    a_deadline_of_nothing,
    a_deadline_that_is_none,
    metadata_of_16_kib,
    metadata_of_64_kib,
    metadata_of_a_mebibyte,
    ten_thousand_headers,
    headers_in_capitals,
    rapid_resets,
    pings,
    settings,
    empty_data,
    continuations_without_end,
    empty_continuations,
    windows_that_overflow,
    a_frame_over_the_size,
    a_frame_of_an_unknown_kind,
    data_of_no_stream,
    garbage_for_headers,
    more_calls_than_may_be,
)
NOTHING_IS_DUE = (  # the client has not ended its call, or asked for nothing
    announced_a_hundred_times,
    pings,
    settings,
    empty_data,
    a_frame_of_an_unknown_kind,
    more_calls_than_may_be,
    windows_that_overflow,
    data_of_no_stream,
    rapid_resets,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_breaks_a_rule_is_answered_or_closed(server, attack):
    with Client(server.port) as client:
        attack(client)
        assert works(server)
        if attack not in NOTHING_IS_DUE:
            assert client.ends(1) in ("answered", "reset", "connection")


@pytest.mark.parametrize(
    "start",
    [get("/"), b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(190), bytes(100)],
    ids=["HTTP/1.1", "TLS", "zeros"],
)
def test_other_protocols_are_closed(server, start):
    with connect(server.port, timeout=20) as client, contextlib.suppress(ConnectionError):
        client.sendall(start)
        assert ended(client)


def test_compressed_messages_are_read(server):
    with Client(server.port) as client:
        stream = client.open(PREDICT, GZIP)
        client.data(stream, message(gzip.compress(payload()), compressed=1))
        assert client.ends(stream) == "answered"
    answer = server.prediction.Predict(
        request("half_plus_two", {"x": np.zeros(10_000, np.float32)}),
        timeout=20,
        compression=grpc.Compression.Gzip,
    )
    assert len(answer.outputs["y"].float_val or answer.outputs["y"].tensor_content) >= 10_000


def test_deflate_is_read_by_grpcio_and_told_to_be_unknown_by_the_native_carrier(server):
    """Which has no way to read it: it says what it reads, as the protocol asks."""
    ask = request("half_plus_two", {"x": np.zeros(10_000, np.float32)})
    call = server.prediction.Predict.future(ask, timeout=20, compression=grpc.Compression.Deflate)
    if "native" in server.log.name:
        assert call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "deflate" in call.details()
    else:
        assert len(call.result().outputs["y"].float_val) == 10_000


def test_a_stream_of_messages_for_a_unary_method_is_no_harm(server):
    call = server.channel.stream_unary(PREDICT)
    with contextlib.suppress(grpc.RpcError):
        call(iter([payload()] * 3), timeout=20)
    with pytest.raises(grpc.RpcError) as failure:
        call(iter([]), timeout=20)
    assert failure.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED)


def test_a_few_bytes_do_not_become_gigabytes(server):
    """A list that is shorter than its shape says is padded: within bounds."""
    tensor = field(1, 1) + field(2, field(2, field(1, 1 << 28))) + field(5, bytes(4))
    inputs = field(2, field(1, b"x") + field(2, tensor))
    call = server.channel.unary_unary(PREDICT)
    with pytest.raises(grpc.RpcError) as failure:
        call(field(1, field(1, b"half_plus_two")) + inputs, timeout=20)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_thousand_connections_delay_nobody(server):
    with contextlib.ExitStack() as stack:
        for i in range(1000):
            if i % 2:
                stack.enter_context(connect(server.port))
            else:
                stack.enter_context(Client(server.port))
        assert works(server)
        assert works_anew(server)


def test_clients_that_never_read_delay_nobody(server):
    """Their windows are closed: what they are owed waits, up to the streams they may have."""
    closed = struct.pack(">HI", 4, 0)
    big = payload(np.zeros(100_000, np.float32))
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(Client(server.port, closed))
            for _ in range(10):
                client.socket.settimeout(0.2)  # its own window for what it sends may close, too
                if not client.data(client.open(PREDICT), message(big)):
                    break
            assert works(server)


def test_calls_that_are_cancelled_leave_nothing_behind(server):
    call = server.channel.unary_unary(PREDICT)
    slow = request("slow", {"n": np.int32(20_000)}).SerializeToString()
    futures = [call.future(slow, timeout=30) for _ in range(500)]
    for future in futures:
        future.cancel()
    assert works_anew(server)


def test_calls_whose_time_is_up_at_once_are_told_so(server):
    call = server.channel.unary_unary(PREDICT)
    status = grpc.StatusCode  # they may be in time, or be told that they would not
    told = (status.DEADLINE_EXCEEDED, status.OK, status.RESOURCE_EXHAUSTED)
    for future in [call.future(payload(), timeout=1e-6) for _ in range(200)]:
        if "too_many_resets" not in future.details():  # for that, a client is sent away
            assert future.code() in told


def test_an_error_on_one_call_ends_no_other_of_its_connection(server):
    """Metadata beyond the limit costs the call that brings it."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=UNLIMITED) as channel:
        call = channel.unary_unary(PREDICT)
        good = [call.future(payload(), timeout=20) for _ in range(50)]
        with pytest.raises(grpc.RpcError):
            call(payload(), timeout=20, metadata=[("x", "y" * 20_000)])
        for future in good:
            assert future.result()


def test_streams_and_calls_that_never_go_on_hold_up_no_health_check(server):
    """Neither the calls that stand behind the native transport, nor those of the model."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    check = health_pb2_grpc.HealthStub(server.channel).Check
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(Client(server.port))
            for _ in range(80):
                client.open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
                client.open("/grpc.health.v1.Health/Check")
                client.open("/grpc.health.v1.Health/Watch")
        for _ in range(3):
            answer = check(health_pb2.HealthCheckRequest(), timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
