"""What codes look like on the wires."""

from __future__ import annotations

from servingd.errors import Code
from servingd.frontends.status_codes import HTTP, grpc_message, retry_header, retry_hint


def test_every_code_has_an_http_status():
    assert HTTP.keys() == set(Code)
    assert HTTP[Code.INVALID_ARGUMENT] == HTTP[Code.FAILED_PRECONDITION] == 400
    assert (HTTP[Code.RESOURCE_EXHAUSTED], HTTP[Code.UNAVAILABLE]) == (429, 503)
    assert (HTTP[Code.CANCELLED], HTTP[Code.DEADLINE_EXCEEDED]) == (499, 504)


def test_texts_are_cut_as_tensorflow_serving_cuts_them():
    assert grpc_message("x" * 1024) == "x" * 1024
    assert grpc_message("x" * 1025) == "x" * 1024 + "...TRUNCATED"
    assert grpc_message("ü" * 600) == "ü" * 512 + "...TRUNCATED"


def test_when_to_try_again():
    assert retry_hint(None) is None
    assert retry_header(None) == ()
    assert retry_hint(0.0123) == [("retry-after-ms", "13")]
    assert retry_header(1.2) == (("retry-after", "2"),)
