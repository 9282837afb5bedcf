"""Large HTTP bodies: one after the other, within a budget, on the workers."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import pytest

from servingd.errors import InvalidArgument, ResourceExhausted, Unavailable
from servingd.frontends.http.messages import HttpRequest
from servingd.frontends.large_bodies import LargeBodies
from servingd.runtime.byte_budget import ByteBudget

MIB = 1 << 20


class ByHand:
    """Workers that run a job when they are told to."""

    def __init__(self):
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)

    def run(self):
        while self.jobs:
            self.jobs.pop(0)()


class Caller:
    def __init__(self, bodies, body, **headers):
        self.begun = self.expired = False
        self.living = True
        self.error = None
        rest = SimpleNamespace(alive=lambda: self.living, expire=self.expire)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = HttpRequest("POST", "/v1/models/m:predict", named, body)
        bodies.start(request, rest, self.begin, self.fail)

    def begin(self):
        self.begun = True
        self.running()

    def running(self):
        pass

    def fail(self, error):
        self.error = error

    def expire(self):
        self.expired = True


@pytest.fixture
def workers():
    return ByHand()


@pytest.fixture
def bodies(workers):
    return LargeBodies(workers, ByteBudget(20 * MIB))


def test_a_large_body_waits_until_another_is_read(workers, bodies):
    seen = []
    first, second = Caller(bodies, bytes(2 * MIB)), Caller(bodies, bytes(2 * MIB))
    small = Caller(bodies, b"{}")
    first.running = lambda: seen.append((second.begun, small.begun))
    workers.run()
    assert seen == [(False, True)]
    assert second.begun


def test_what_gzip_inflates_to_is_counted_before_it_is_held(workers, bodies):
    packed = gzip.compress(bytes(2 * MIB))
    first, second = (Caller(bodies, packed, content_encoding="gzip") for _ in range(2))
    seen = []
    first.running = lambda: seen.append(second.begun)
    workers.run()
    assert seen == [False]
    assert second.begun


def test_a_body_of_no_size_is_refused(workers, bodies):
    broken = Caller(bodies, b"no gzip", content_encoding="gzip")
    bomb = Caller(bodies, gzip.compress(bytes(101 * MIB), 1), content_encoding="gzip")
    workers.run()
    assert isinstance(broken.error, InvalidArgument)
    assert isinstance(bomb.error, ResourceExhausted)


def test_who_has_gone_is_not_begun_and_leaves_room(workers, bodies):
    first, second = Caller(bodies, bytes(2 * MIB)), Caller(bodies, bytes(2 * MIB))
    third = Caller(bodies, bytes(2 * MIB))
    gone = Caller(bodies, b"{}")
    gone.living = False
    first.running = lambda: setattr(second, "living", False)
    workers.run()
    assert (second.begun, second.expired, third.begun) == (False, True, True)
    assert (gone.begun, gone.expired) == (False, True)


def test_too_many_are_refused_with_a_hint(workers, bodies):
    for _ in range(256):
        Caller(bodies, b"{}")
    last = Caller(bodies, b"{}")
    assert isinstance(last.error, Unavailable)
    assert last.error.retry_after_s


def test_one_whose_start_fails_gives_its_room_back(workers, bodies):
    first, second = Caller(bodies, bytes(2 * MIB)), Caller(bodies, bytes(2 * MIB))

    def fail():
        raise RuntimeError

    first.running = fail
    with pytest.raises(RuntimeError):
        workers.run()
    workers.run()
    assert second.begun
