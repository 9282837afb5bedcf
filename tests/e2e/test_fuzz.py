"""A hundred thousand requests that are nearly right, over every port and transport: none is our
fault, none hangs, and nothing is left behind. `SERVINGD_FUZZ` says how many."""

from __future__ import annotations

import collections
import contextlib
import os
import random
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.e2e import fuzzing
from tests.e2e.process import UNLIMITED, memory_mib
from tests.http_client import Answers, connect

pytestmark = [pytest.mark.tf, pytest.mark.e2e, pytest.mark.timeout(600)]

TOTAL = int(os.environ.get("SERVINGD_FUZZ", "50000"))
SEED = int(os.environ.get("SERVINGD_FUZZ_SEED", "20261125"))
GRPC_SHARE = {"native": 0.4, "grpcio": 0.2}
HTTP_SHARE = 0.19
BROKEN_HTTP_SHARE = 0.01
IN_FLIGHT = 200
PIPELINED = 50
FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@pytest.fixture
def rng(server):
    print(f"SERVINGD_FUZZ={TOTAL} SERVINGD_FUZZ_SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(server):
    assert server.get("/readyz")[0] == 200
    before = memory_mib(server)
    yield
    assert server.get("/readyz")[0] == 200
    assert memory_mib(server) < before + 300
    log = server.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 2000 :][:6000]


def rpc_requests(rng, count):
    corpus = fuzzing.corpus()
    messages = [message for _, message in corpus]
    for _ in range(count):
        method, message = rng.choice(corpus)
        kind = rng.random()
        if kind < 0.6:
            yield method, fuzzing.mutated(rng, message, messages)
        elif kind < 0.85:
            yield f"{fuzzing.PREDICTION}Predict", fuzzing.random_predict(rng)
        else:
            yield method, fuzzing.random_message(rng)


def test_no_message_over_grpc_is_our_fault(server, rng, request):
    count = int(TOTAL * GRPC_SHARE[request.node.callspec.params["server"]])
    codes = collections.Counter()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=UNLIMITED) as channel:
        calls = {}
        flying = collections.deque()
        for method, message in rpc_requests(rng, count):
            if method not in calls:
                calls[method] = channel.unary_unary(method)
            flying.append((method, message, calls[method].future(message, timeout=60)))
            if len(flying) >= IN_FLIGHT:
                codes[judged(*flying.popleft())] += 1
        while flying:
            codes[judged(*flying.popleft())] += 1
    assert codes.total() == count
    assert codes[grpc.StatusCode.OK] > count // 100  # else nothing of the model was reached
    print(codes)


def judged(method, message, future):
    code = future.code()
    assert code not in (*FAULTS, grpc.StatusCode.DEADLINE_EXCEEDED), (
        f"{method} {message!r}: {code} {future.details()}"
    )
    return code


def test_no_request_over_http_is_our_fault(server, rng):
    messages = [message for _, message in fuzzing.corpus()]
    statuses = collections.Counter()
    left = int(TOTAL * HTTP_SHARE)
    with ThreadPoolExecutor(2) as pool, connect(server.http_port, timeout=60) as client:
        answers = Answers(client)
        while left > 0:
            crowd = [fuzzing.http_request(rng, messages) for _ in range(min(PIPELINED, left))]
            left -= len(crowd)
            sent = pool.submit(client.sendall, b"".join(crowd))
            for one in crowd:
                status, body = answers.next()
                assert status not in (500, 504), f"{one!r}: {status} {body!r}"
                statuses[status] += 1
            sent.result()
    assert statuses[200] > TOTAL * HTTP_SHARE // 100
    print(statuses)


def test_no_broken_request_over_http_is_our_fault(server, rng):
    messages = [message for _, message in fuzzing.corpus()]
    for _ in range(int(TOTAL * BROKEN_HTTP_SHARE)):
        request = fuzzing.broken_http(rng, messages)
        with connect(server.http_port) as client, contextlib.suppress(EOFError, ConnectionError):
            client.sendall(request)
            client.shutdown(1)
            answers = Answers(client)
            while True:
                status, body = answers.next()
                assert status not in (500, 504), f"{request!r}: {status} {body!r}"
