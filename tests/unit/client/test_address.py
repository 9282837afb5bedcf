"""Addresses as they are typed, and what a port's first bytes say."""

from __future__ import annotations

import pytest

from servingd.client.address import find_address, parse_address, scheme_of
from servingd.errors import InvalidArgument, Unavailable


@pytest.mark.parametrize(
    ("typed", "transport", "encrypted", "target", "shown"),
    [
        ("host:1", "grpc", False, "host:1", "grpc://host:1"),
        ("host", "grpc", False, "host:8500", "grpc://host:8500"),
        ("grpc://host", "grpc", False, "host:8500", "grpc://host:8500"),
        ("grpcs://host:1/", "grpc", True, "host:1", "grpcs://host:1"),
        ("[::1]:1", "grpc", False, "[::1]:1", "grpc://[::1]:1"),
        (":9", "grpc", False, "localhost:9", "grpc://localhost:9"),
        ("unix:/run/a.sock", "grpc", False, "unix:/run/a.sock", "unix:/run/a.sock"),
        ("dns:///a:1", "grpc", False, "dns:///a:1", "dns:///a:1"),
        ("http://host:1", "rest", False, "host:1", "http://host:1"),
        ("http://host", "rest", False, "host:80", "http://host:80"),
        ("https://host/a/b/", "rest", True, "host:443", "https://host:443/a/b"),
    ],
)
def test_addresses(typed, transport, encrypted, target, shown):
    address = parse_address(typed)
    assert (address.transport, address.encrypted) == (transport, encrypted)
    assert (address.target, str(address)) == (target, shown)


@pytest.mark.parametrize(
    "typed", ["", "ftp://host:1", "http://", "a:b", "host:1:2", "grpc://host:1/path", "host:70000"]
)
def test_what_is_no_address(typed):
    with pytest.raises(InvalidArgument, match="no address of a server"):
        parse_address(typed)


def test_an_address_with_a_scheme_is_not_asked():
    for typed in ("grpc://nowhere.invalid:1", "http://nowhere.invalid", "unix:/nowhere"):
        assert find_address(typed) == typed
    with pytest.raises(InvalidArgument):
        find_address("ftp://x")


@pytest.mark.parametrize(
    ("answer", "scheme"),
    [
        (b"\0\0\6\4\0\0\0\0\0", "grpc"),
        (b"\0\0\0\4\0\0\0\0\0", "grpc"),
        (b"HTTP/1.1 ", "http"),
        (b"<!DOCTYPE", "http"),
        (b"", None),  # it has closed
        (b"\x15\3\1\0\2\2\x16", None),
    ],
)
def test_the_first_bytes_tell_the_protocol(answer, scheme):
    assert scheme_of(answer, "h:1") == scheme


def test_what_else_may_answer():
    text = "h:1 speaks neither gRPC nor HTTP: it answered b'SSH-2.0-O'"
    with pytest.raises(Unavailable, match=text):
        scheme_of(b"SSH-2.0-O", "h:1")
