"""A small body that inflates to many numbers: what it costs, and what others notice of it."""

from __future__ import annotations

import gzip
import http.client
import threading
import time
from pathlib import Path

import pytest

from tests.http_client import Answers, connect, get, post

pytestmark = [pytest.mark.tf, pytest.mark.e2e, pytest.mark.alone]

NUMBERS = 10_000_000


def peak_mib(server) -> int:
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) >> 10
    raise AssertionError("no VmHWM")


class Prober(threading.Thread):
    """Asks all the time; knows the longest it had to wait."""

    def __init__(self, port: int, data: bytes) -> None:
        super().__init__()
        self._port, self._data = port, data
        self._over = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        while not self._over.wait(0.01):
            started = time.monotonic()
            with connect(self._port, timeout=60) as client:
                client.sendall(self._data)
                assert Answers(client).next()[0] == 200
            self.longest = max(self.longest, time.monotonic() - started)

    def stop(self) -> float:
        self._over.set()
        self.join(60)
        return self.longest


def test_a_body_of_many_numbers_stalls_nobody_and_takes_little(start, repository):
    """Before: a gigabyte, and 3.5 s in which nobody was answered; both hold with room to spare."""
    server = start(
        f"--model_repository={repository}", "--optimize_models=off", "--large_bodies_mb=200"
    ).wait_until_ready()
    small = post("/v1/models/digit_names:predict", b'{"instances": ["1"]}')
    probers = [Prober(server.http_port, data) for data in (get("/livez"), small)]
    body = gzip.compress(b'{"instances":[' + b"1," * NUMBERS + b"1]}", 6)
    before = peak_mib(server)
    found: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
        headers = {"Content-Encoding": "gzip"}
        connection.request("POST", "/v1/models/half_plus_two:predict", body, headers)
        found.append(connection.getresponse().status)
        connection.close()

    for prober in probers:
        prober.start()
    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    stalls = [prober.stop() for prober in probers]
    assert found == [200, 200]
    assert max(stalls) < 1.5, stalls
    assert peak_mib(server) - before < 700
