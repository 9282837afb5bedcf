"""gzip, both ways: what it was, or why not, within bounds."""

from __future__ import annotations

import gzip
import random
import time

import pytest

from servingd.errors import InvalidArgument, ResourceExhausted
from servingd.frontends.http.content_coding import (
    MAX_INFLATED_BYTES,
    accepts_gzip,
    deflated,
    inflated,
)

GZIP = {"content-encoding": "gzip"}


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
def test_a_body_comes_out_as_it_went_in(size):
    body = random.Random(1).randbytes(size)
    assert inflated(GZIP, gzip.compress(body)) == body
    assert inflated({}, body) == body
    assert inflated(GZIP, b"") == b""
    assert gzip.decompress(deflated(body) or gzip.compress(body)) == body


@pytest.mark.parametrize("size", [0, 5, 40_000, 70_000])
def test_members_follow_each_other(size):
    body = random.Random(1).randbytes(size)
    assert inflated(GZIP, gzip.compress(body) * 5) == body * 5


@pytest.mark.parametrize("cut", [1, 8, 9, 20, 100_000])
def test_what_is_cut_off_is_told(cut):
    whole = gzip.compress(random.Random(1).randbytes(200_000))
    with pytest.raises(InvalidArgument, match="cut off"):
        inflated(GZIP, whole[:-cut])
    with pytest.raises(InvalidArgument, match="cut off"):
        inflated(GZIP, whole + whole[:-cut])


def test_what_is_no_gzip_is_told():
    for body in (
        b"no gzip",
        gzip.compress(b"x") + b"tail",
        gzip.compress(b"x" * 100)[:-4] + b"abcd",
    ):
        with pytest.raises(InvalidArgument, match="gzip"):
            inflated(GZIP, body)


def test_as_much_as_the_limit_and_no_more_comes_out():
    body = gzip.compress(bytes(MAX_INFLATED_BYTES), 1)
    assert len(inflated(GZIP, body)) == MAX_INFLATED_BYTES
    with pytest.raises(ResourceExhausted):
        inflated(GZIP, body + gzip.compress(b"x"))


def test_a_body_of_countless_members_costs_no_time():
    """Each would copy what follows it: a minute for ten megabytes."""
    started = time.monotonic()
    with pytest.raises(InvalidArgument, match="more than 4096 pieces"):
        inflated(GZIP, gzip.compress(b"") * 500_000)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, False),
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("x-gzip", False),
    ],
)
def test_whether_a_client_takes_gzip(header, wanted):
    assert accepts_gzip({} if header is None else {"accept-encoding": header}) is wanted
