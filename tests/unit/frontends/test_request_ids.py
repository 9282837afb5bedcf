"""The caller's id of a request, as the log shows it."""

from __future__ import annotations

from servingd.frontends.reply import MAX_REQUEST_ID, request_id_in


def test_the_request_id_comes_before_the_trace() -> None:
    trace = ("traceparent", "00-abc-def-01")
    assert request_id_in([trace, ("x-request-id", "7")]) == "7"
    assert request_id_in([trace, ("user-agent", "x")]) == "00-abc-def-01"
    assert request_id_in([]) == ""


def test_it_is_bounded_and_cannot_steer_a_terminal() -> None:
    assert request_id_in([("x-request-id", "\x9b31m\x85b\n")]) == "?31m?b?"
    assert len(request_id_in([("x-request-id", "x" * 1000)])) == MAX_REQUEST_ID
