"""Which addresses the ends of jobs may be told to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.config.webhooks import is_allowed

ALLOWED = ("https://hooks.example/servingd/", "http://127.0.0.1:9000/")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://hooks.example/servingd/", True),
        ("https://hooks.example/servingd/a?b=c", True),
        ("http://127.0.0.1:9000/a", True),
        ("https://hooks.example/servingdx", False),
        ("https://hooks.example/", False),
        ("https://hooks.example/servingd/../admin", False),
        ("https://hooks.example/servingd/%2e%2e/admin", False),
        ("https://hooks.example/servingd/./../admin", False),
        ("https://hooks.example.evil/servingd/", False),
        ("https://user@hooks.example/servingd/", False),
        ("https://hooks.example@evil/servingd/", False),
        ("http://hooks.example/servingd/", False),
        ("http://127.0.0.1:90000/a", False),
        ("HTTPS://hooks.example/servingd/", False),
        ("https://hooks.example/servingd/ x", False),
        ("https://hooks.example/servingd/\\\\evil", False),
        ("https://hooks.example/servingd/\r\nx: y", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_addresses(url, allowed):
    assert is_allowed(url, ALLOWED) is allowed


@given(st.text())
def test_nothing_else_is_allowed(text):
    assert not is_allowed(text, ALLOWED) or text.startswith(ALLOWED)
    assert not is_allowed(ALLOWED[0] + "../" + text, ALLOWED)
