"""Some of the ordinary models, served: `make models` checks all, and asks more of each."""

from __future__ import annotations

import pytest

from tests.ordinary.catalog import named
from tests.ordinary.check import SHORT, check
from tests.ordinary.findings import Findings

NAMES = (
    "keras3_wide_and_deep",
    "keras3_text_free",
    "tfrs_brute_force",
    "tf1_dense_var_len",
    "module_split_lookup",
    "module_cond",
)

# The first of them waits for all.
pytestmark = [pytest.mark.tf, pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> dict[str, Findings]:
    """What was found out about each, on one server."""
    folder = tmp_path_factory.mktemp("ordinary")
    return {found.entry.name: found for found in check(named(NAMES), folder, SHORT)}


@pytest.mark.parametrize("name", NAMES)
def test_an_ordinary_model_is_answered_rightly_alone_and_beside_others(findings, name):
    found = findings[name]
    assert found.failures() == []
    assert found.graph in ("optimised", "declined")
    assert [beside.calls >= SHORT.calls for beside in found.beside] == [True, True]
