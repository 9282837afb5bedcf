"""Answers in parts, by the real process: a generator of TensorFlow, clients of gRPC, and curl."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import threading

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tensorflow_serving.apis import predict_pb2

from tests import exports
from tests.e2e.process import UNLIMITED, Process, memory_mib, request, to_array
from tests.http_client import connect, post, received

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

METHOD = "/servingd.PredictionStream/PredictStreamed"
PATH = "/v1/models/countdown:predict"
EVENTS, LINES = "text/event-stream", "application/x-ndjson"
ABORTED = int(os.environ.get("SERVINGD_TEST_STREAMS", "200"))
"""How many streams are broken off while memory is watched; `make soak` has ten thousand."""
WAIT = 30


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("streaming")
    exports.countdown(root / "countdown" / "1")
    return root


@pytest.fixture(scope="module", params=["native", "grpcio"], ids=["native", "by-grpcio"])
def serves(request, repository, tmp_path_factory):
    """A server that is used by this file alone: it counts its streams."""
    process = Process(
        tmp_path_factory.mktemp(request.param) / "log",
        f"--model_repository={repository}",
        f"--grpc_transport={request.param}",
        "--optimize_models=off",
        "--max_streams=64",
    )
    try:
        yield process.wait_until_ready()
        assert process.terminate() == 0, process.tail()
        assert "Traceback" not in process.log.read_text(), process.tail()
    finally:
        process.close()


def stub(channel):
    return channel.unary_stream(
        METHOD,
        predict_pb2.PredictRequest.SerializeToString,
        predict_pb2.PredictResponse.FromString,
    )


def streamed(server, inputs, signature, timeout=WAIT, **spec):
    message = request("countdown", inputs, signature=signature, **spec)
    return stub(server.channel)(message, timeout=timeout)


def counting(server, size=1, timeout=WAIT):
    """A stream without end: its parts are `size` floats large."""
    return streamed(server, {"size": np.int32(size)}, "endless", timeout)


def parts_made(server):
    return server.metric('servingd_stream_parts_total{model="countdown"}') or 0


def calls(server, method, code, signature):
    protocol = "rest" if method.islower() else "grpc"
    labels = f'code="{code}",method="{method}",model="countdown",protocol="{protocol}"'
    labels += f',signature="{signature}"'
    return server.metric(f'servingd_requests_total{{{labels},version="1"}}') or 0


def curl(server, body, accept):
    command = ["curl", "--silent", "--no-buffer", "--max-time", str(WAIT)]
    command += ["--header", f"Accept: {accept}", "--data", json.dumps(body)]
    command += [f"http://localhost:{server.http_port}{PATH}"]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()


def test_a_generator_of_tensorflow_streams_tokens(serves):
    inputs = {"text": [b"a", b"b"], "times": np.array([3, 2], np.int32)}
    parts = list(streamed(serves, inputs, "generate", outputs=["token", "number"]))
    assert [to_array(part.outputs["number"]).tolist() for part in parts] == [
        [2, 1],
        [1, 0],
        [0, -1],
    ]
    assert {tuple(to_array(part.outputs["token"])) for part in parts} == {(b"a", b"b")}
    assert {part.model_spec.signature_name for part in parts} == {"generate"}
    assert {frozenset(part.outputs) for part in parts} == {frozenset({"token", "number"})}


def test_an_ordinary_signature_is_one_part(serves):
    (part,) = streamed(serves, {"x": np.array([7], np.int32)}, "")
    assert to_array(part.outputs["y"]).tolist() == [7]


def test_what_is_no_pair_is_told_in_the_log_and_not_found(serves):
    with pytest.raises(grpc.RpcError) as error:
        list(streamed(serves, {"at": np.array([1], np.int32)}, "odd"))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "odd of {name: countdown version: 1} is not streamed" in serves.log.read_text()


def test_curl_reads_events_and_lines(serves):
    body = {"signature_name": "generate", "instances": [{"text": "a", "times": 2}]}
    expected = [{"predictions": [{"number": n, "token": "a"}]} for n in (1, 0)]
    lines = curl(serves, body, LINES)
    assert [json.loads(line) for line in lines.splitlines()] == expected
    events = curl(serves, body, EVENTS).split("\n\n")
    assert [json.loads(event.removeprefix("data: ")) for event in events[:-1]] == expected
    assert events[-1] == ""


def test_an_error_has_its_status_before_the_first_part_alone(serves):
    client = http.client.HTTPConnection("127.0.0.1", serves.http_port, timeout=WAIT)
    with contextlib.closing(client):
        wrong = json.dumps({"signature_name": "generate", "inputs": {"text": ["a"]}})
        client.request("POST", PATH, wrong, {"Accept": EVENTS})
        answer = client.getresponse()
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        assert b"error" in answer.read()
        negative = json.dumps({"signature_name": "endless", "inputs": {"size": -1}})
        client.request("POST", PATH, negative, {"Accept": LINES})  # the first step fails
        assert client.getresponse().status == 400


def test_reflection_knows_the_service(serves):
    database = ProtoReflectionDescriptorDatabase(serves.channel)
    assert "servingd.PredictionStream" in database.get_services()
    file = database.FindFileContainingSymbol("servingd.PredictionStream")
    assert file.service[0].method[0].server_streaming
    assert file.service[0].method[0].output_type == ".tensorflow.serving.PredictResponse"


def test_a_stream_that_is_cancelled_is_made_no_further(serves):
    before = calls(serves, "PredictStreamed", "CANCELLED", "endless")
    parts = counting(serves)
    for _ in range(10):
        next(parts)
    parts.cancel()
    serves.wait_for(
        "the end of the stream",
        lambda: calls(serves, "PredictStreamed", "CANCELLED", "endless") == before + 1,
    )
    made = parts_made(serves)
    assert serves.predict("countdown", {"x": np.array([1], np.int32)})  # others go on
    assert parts_made(serves) == made


def test_a_reader_that_stops_makes_the_model_wait(serves):
    """Parts of 1 MB: what the kernel, the transports and the client hold, and no more."""
    parts = counting(serves, size=250_000)
    next(parts)
    seen = [-2.0, -1.0]
    while seen[-1] != seen[-2]:
        threading.Event().wait(0.5)
        seen.append(parts_made(serves))
    assert serves.metric('servingd_stream_parts_total{model="countdown"}') == seen[-1]
    for _ in range(50):
        next(parts)
    parts.cancel()


def test_a_slow_reader_over_http_makes_the_model_wait(serves):
    body = json.dumps({"signature_name": "endless", "inputs": {"size": 100_000}}).encode()
    with connect(serves.http_port, receive_buffer=1 << 16) as client:
        client.sendall(post(PATH, body, f"accept: {LINES}"))
        received(client)
        seen = [-2.0, -1.0]
        while seen[-1] != seen[-2]:
            threading.Event().wait(0.5)
            seen.append(parts_made(serves))
        taken = 0
        while taken < 30 << 20:
            taken += len(received(client))
        assert parts_made(serves) > seen[-1]


def test_the_deadline_is_of_the_whole_stream(serves):
    parts = counting(serves, timeout=0.5)
    with pytest.raises(grpc.RpcError) as error:
        for _ in parts:
            pass
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_memory_stays_flat_over_streams_that_are_broken_off(serves):
    """By gRPC and HTTP in turn, cancelled and hung up on, after a part or before any."""
    body = json.dumps({"signature_name": "endless", "inputs": {"size": 1000}}).encode()

    def break_off(count):
        for number in range(count):
            if number % 2:
                parts = counting(serves, size=1000)
                if number % 4 == 1:
                    next(parts)
                parts.cancel()
            else:
                with connect(serves.http_port) as client:
                    client.sendall(post(PATH, body, f"accept: {EVENTS}"))
                    if number % 4:
                        received(client)

    def is_quiet():
        made = parts_made(serves)
        threading.Event().wait(0.2)
        return parts_made(serves) == made

    break_off(200)  # threads, buffers and allocators have grown by then
    serves.wait_for("quiet", is_quiet)
    before = memory_mib(serves)
    break_off(ABORTED)
    serves.wait_for("quiet", is_quiet)
    grown = memory_mib(serves) - before
    print(f"{ABORTED} streams broken off: {grown:+.1f} MiB of {before:.0f}")
    assert grown < 24
    # Nothing is left: as many streams as are allowed can be opened.
    held = [counting(serves) for _ in range(64)]
    for parts in held:
        next(parts)
    with pytest.raises(grpc.RpcError) as error:
        next(counting(serves))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for parts in held:
        parts.cancel()


@pytest.mark.parametrize("how", ["native", "two-workers"])
def test_a_stop_waits_and_then_tells_the_streams(start, repository, how):
    several = how == "two-workers"
    server = start(
        f"--model_repository={repository}",
        f"--workers={2 if several else 1}",
        f"--grpc_transport={'grpcio' if several else 'native'}",
        "--optimize_models=off",
        "--drain_timeout_s=1.5",
    ).wait_until_ready()
    body = json.dumps({"signature_name": "endless", "inputs": {"size": 1}}).encode()
    channels = [
        grpc.insecure_channel(
            f"127.0.0.1:{server.port}", [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(6)
    ]
    endless = request("countdown", {"size": np.int32(1)}, signature="endless")
    open_calls = [stub(channel)(endless, timeout=WAIT) for channel in channels]
    for parts in open_calls:
        next(parts)
    with connect(server.http_port, timeout=WAIT) as client:
        client.sendall(post(PATH, body, f"accept: {LINES}"))
        received(client)
        server.process.terminate()
        data = b""
        with contextlib.suppress(EOFError):
            while not data.endswith(b"0\r\n\r\n"):
                data = data[-200:] + received(client)
    assert b'{"error": "server is shutting down"}\n' in data
    for parts in open_calls:
        with pytest.raises(grpc.RpcError) as error:
            for _ in parts:
                pass
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert error.value.details() == "server is shutting down"
    assert server.process.wait(WAIT) == 0, server.tail()
    for channel in channels:
        channel.close()
