"""What is tried again, and after how long; what settings are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.client import Retry, Tls
from servingd.client.settings import Settings, settings_of
from servingd.errors import (
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServingError,
    Unavailable,
)

STEADY = Retry(jitter=0)


def hinted(error: ServingError, seconds: float) -> ServingError:
    error.retry_after_s = seconds
    return error


@pytest.mark.parametrize(
    ("attempt", "error", "left_s", "pause"),
    [
        (1, Unavailable(""), None, 0.05),
        (2, Unavailable(""), None, 0.1),
        (3, Unavailable(""), None, None),  # that was the third
        (1, NotFound(""), None, None),
        (1, hinted(NotFound(""), 1), None, None),
        (1, ResourceExhausted(""), None, None),
        (1, hinted(ResourceExhausted(""), 0.7), None, 0.7),
        (1, hinted(Unavailable(""), 5), None, 5),  # longer than `longest_s`: the server knows
        (1, hinted(Unavailable(""), 0.001), None, 0.05),
        (1, Unavailable(""), 0.04, None),  # it would be past the deadline
        (1, Unavailable(""), 0.06, 0.05),
    ],
)
def test_what_is_tried_again_and_when(attempt, error, left_s, pause):
    assert STEADY.pause_s(attempt, error, left_s, 0.9) == pause


def test_pauses_grow_up_to_the_longest():
    retry = Retry(attempts=9, first_s=1, factor=3, longest_s=5, jitter=0)
    pauses = [retry.pause_s(n, Unavailable(""), None, 0.5) for n in range(1, 10)]
    assert pauses == [1, 3, 5, 5, 5, 5, 5, 5, None]


@given(st.integers(1, 2), st.floats(0, 1), st.none() | st.floats(0, 100))
def test_pauses_differ_and_never_come_before_the_hint(attempt, chance, hint):
    error = Unavailable("")
    error.retry_after_s = hint
    usual = 0.05 * 2 ** (attempt - 1)
    pause = Retry().pause_s(attempt, error, None, chance)
    assert pause >= max(hint or 0, usual * 0.8 * 0.999)
    assert pause <= max(hint or 0, usual) * 1.2 * 1.001


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Retry(codes=("SLOW",)), "'SLOW' is no code; there are: OK, CANCELLED"),
        (lambda: Retry(attempts=0), "attempts >= 1"),
        (lambda: Retry(jitter=2), "jitter from 0 to 1, got 2"),
        (lambda: Tls(cert_file="c.pem"), "cert_file and key_file are given together"),
        (lambda: Settings(connections=0), "connections: expected 1 or more, got 0"),
        (lambda: Settings(compression="zip"), "compression: expected 'gzip' or None, got 'zip'"),
        (lambda: Settings(priority="urgent"), "priority: expected high, normal or low"),
        (lambda: Settings(headers=(("a b", ""),)), "headers: 'a b' is no name of a header"),
        (lambda: Settings(headers=(("a", "ü"),)), "a: expected printable ASCII"),
        (lambda: Settings(token="a\n").authorization(), "authorization: expected printable"),
    ],
)
def test_settings_that_are_none(make, text):
    with pytest.raises(InvalidArgument, match=text):
        make()


def test_encryption_is_asked_for_by_the_address_or_by_hand():
    own = Tls(ca_file="ca.pem")
    assert settings_of(False, False, {}).tls is None
    assert settings_of(False, True, {}).tls == settings_of(True, False, {}).tls == Tls()
    assert settings_of(own, True, {}).tls is settings_of(own, False, {}).tls is own


def test_a_token_is_asked_for_each_time():
    tokens = iter(["one", "two"])
    settings = settings_of(False, False, {"X-Own": "1"}, token=lambda: next(tokens))
    assert (settings.authorization(), settings.authorization()) == ("Bearer one", "Bearer two")
    assert settings.headers == (("x-own", "1"),)  # gRPC takes lower case alone
    assert Settings().authorization() is None
