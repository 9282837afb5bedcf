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
