"""The list of ordinary models, and what counts as wrong with one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.ordinary.catalog import ENTRIES, named
from tests.ordinary.findings import Beside, Findings

MAY, MAY_NOT, UNSEEN = named(["keras3_mlp", "module_centred", "jax_mlp"])


def test_the_list_is_long_and_mixed():
    assert len(ENTRIES) >= 40
    assert [name for name, n in Counter(e.name for e in ENTRIES).items() if n > 1] == []
    assert len({entry.family for entry in ENTRIES}) == 7
    assert sum(not entry.may_merge for entry in ENTRIES) >= 9


@pytest.mark.parametrize("name", ["keras3_wide_and_deep", "keras3_transformer_free", "hub_bert"])
def test_inputs_have_the_rows_that_are_asked_for(name):
    (entry,) = named([name])
    for rows in (1, 2, 64):
        inputs = entry.ask(np.random.default_rng(rows), rows)
        assert {len(array) for array in inputs.values()} == {rows}


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match="no ordinary model is called nobody"):
        named(["keras3_mlp", "nobody"])


def good(entry) -> Findings:
    differences = 0 if entry.may_merge else 9
    merged = 64 if entry.may_merge and not entry.not_seen else 0
    beside = [Beside(1000, 0), Beside(1000, 0)]
    return Findings(
        entry,
        graph="optimised",
        worth_merging=merged,
        not_merged="" if merged else "it reduces over the rows",
        differences=differences,
        beside=beside,
    )


@pytest.mark.parametrize("entry", [MAY, MAY_NOT, UNSEEN], ids=lambda e: e.name)
def test_a_model_without_a_wrong_answer_is_well(entry):
    assert good(entry).failures() == []


def test_a_model_that_need_not_be_optimised_is_well_without():
    (entry,) = named(["keras3_text_free"])
    assert replace(good(entry), graph="declined", declined="y").failures() == []


@pytest.mark.parametrize(
    ("entry", "changed", "text"),
    [
        (MAY, {"error": "it is END"}, "it is not served: it is END"),
        (
            MAY,
            {"wrong_alone": ["3 rows by REST: 1, not 2"]},
            "wrong alone: 3 rows by REST: 1, not 2",
        ),
        (MAY, {"beside": [Beside(9, 0), Beside(9, 1, "a")]}, "wrong beside others: a"),
        (MAY, {"differences": 1}, "it must not be merged"),
        (MAY_NOT, {"worth_merging": 8}, "it is merged, but the mean is taken over the rows"),
        (MAY_NOT, {"differences": 0}, "ask worse ones"),
        (MAY_NOT, {"not_merged": ""}, "no reason is told"),
        (MAY, {"worth_merging": 0, "not_merged": "x"}, "it is not merged any more: x"),
        (UNSEEN, {"worth_merging": 8}, "it is merged now"),
        (MAY, {"graph": "declined", "declined": "y"}, "it is not optimised any more: y"),
    ],
)
def test_what_is_wrong_is_told(entry, changed, text):
    (failure,) = replace(good(entry), **changed).failures()
    assert text in failure
