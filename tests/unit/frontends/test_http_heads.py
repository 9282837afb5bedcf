"""Heads that came before spare the parser, and only where they mean the very same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.frontends.http.heads import KnownHeads
from servingd.frontends.http.messages import HttpRequest


def head(length: int, more: str = "") -> bytes:
    return f"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{more}\r\n".encode()


def request(body: bytes, **headers: str) -> HttpRequest:
    fields = {"host": "a", "content-length": str(len(body))} | headers
    return HttpRequest("POST", "/x", fields, body)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_known_head_with_another_body_is_the_same_request_with_that_body(first, second):
    heads = KnownHeads()
    learnt = request(first)
    heads.learn(head(len(first)) + first, learnt)
    found = heads.find(head(len(first)) + second)
    if len(second) != len(first):
        assert found is None
        return
    assert found is not None
    assert (found.method, found.target, found.body) == ("POST", "/x", second)
    assert found.headers == learnt.headers
    assert found.notes is learnt.notes


def test_what_is_cut_off_or_goes_on_is_left_to_the_parser():
    heads = KnownHeads()
    whole = head(4) + b"body"
    heads.learn(whole, request(b"body"))
    assert heads.find(whole) is not None
    for data in (whole[:-1], whole + b"P", whole[:20], b"", whole + whole, b"\r\n" + whole):
        assert heads.find(data) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expect", "100-continue"),
        ("transfer-encoding", "chunked"),
        ("content-length", "04"),
    ],
)
def test_a_head_that_means_more_than_a_length_is_not_learnt(name, value):
    heads = KnownHeads()
    data = head(4, f"{name}: {value}\r\n") + b"body"
    heads.learn(data, request(b"body", **{name: value}))
    assert heads.find(data) is None


def test_a_body_that_is_not_what_follows_the_head_is_not_learnt():
    heads = KnownHeads()
    data = head(4) + b"body"
    heads.learn(data, request(b"BODY"))
    assert heads.find(data) is None


def test_what_is_remembered_is_bounded():
    heads = KnownHeads()
    for number in range(1000):
        heads.learn(head(0, f"x: {number}\r\n"), request(b""))
    assert len(heads._heads) <= 256
    long = head(0, f"x: {'y' * 5000}\r\n")
    heads.learn(long, request(b""))
    assert heads.find(long) is None


def test_heads_with_a_request_id_are_not_kept():
    heads = KnownHeads()
    whole = head(4, "x-request-id: 1\r\n") + b"body"
    heads.learn(whole, request(b"body", **{"x-request-id": "1"}))
    assert heads.find(whole) is None
