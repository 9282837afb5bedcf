"""Targets that no URL library of a client would write."""

from __future__ import annotations

import pytest

from servingd.errors import Code
from servingd.frontends.tfs.rest.routes import route


@pytest.mark.parametrize("digits", ["9223372036854775808", "9" * 5000, "0" * 5000 + "9" * 20])
def test_a_version_of_any_length_is_refused_not_read(digits):
    found = route("GET", f"/v1/models/m/versions/{digits}")
    assert found.error is not None
    assert found.error.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("digits", "version"),
    [("0", 0), ("007", 7), ("0" * 5000 + "7", 7), ("9223372036854775807", 2**63 - 1)],
)
def test_a_version_may_have_zeros_in_front(digits, version):
    assert route("POST", f"/v1/models/m/versions/{digits}:predict").spec.version == version


def test_no_version_is_none():
    assert route("GET", "/v1/models/m").spec.version is None


@pytest.mark.parametrize(
    ("target", "is_job"),
    [
        ("/v1/models/m:predict", False),
        ("/v1/models/m:predict?async=true", True),
        ("/v1/models/m/versions/7:classify?async=true", True),
    ],
)
def test_who_asks_for_the_answer_later(target, is_job):
    found = route("POST", target)
    assert (found.error, found.is_job) == (None, is_job)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/m:predict?async=1",
        "/v1/models/m:predict?async=true&x=1",
        "/v1/models/m:predict?async=true?async=true",
        "/v1/models/m?async=true",
    ],
)
def test_any_other_query_is_malformed_as_ever(target):
    found = route("POST", target)
    assert found.error.message == f"Malformed request: POST {target}"
    assert not found.is_job
