"""Which models a scan is about."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.sources.polling import MODELS_PER_SCAN, ChangeCollector, Changes, models_to_scan

MANY = {f"m{i}": f"/models/m{i}" for i in range(3 * MODELS_PER_SCAN)}
LAST = f"m{len(MANY) - 1}"


def test_the_first_scan_is_of_every_model_and_later_ones_of_what_changed():
    changes = ChangeCollector()
    assert models_to_scan(MANY, MANY, changes.take()) == list(MANY)
    changes.add_path(f"/models/{LAST}/1/variables/variables.index")
    due = models_to_scan(MANY, (), changes.take())
    assert due[0] == LAST
    assert due[1:] == list(MANY)[:MODELS_PER_SCAN]
    assert LAST not in models_to_scan(MANY, (), changes.take())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", {"a", "alias"}),
        ("/a/1/model.pb", {"a", "alias"}),
        ("/a/b/1", {"a", "alias", "inner"}),
        ("/slash/1/x", {"slash"}),
        ("/ab/1", set()),
        ("", set()),
    ],
)
def test_a_path_belongs_to_every_model_above_it(path, expected):
    models = {"a": "/a", "alias": "/a", "inner": "/a/b", "slash": "/slash/"}
    padding = {f"p{i}": f"/p/{i}" for i in range(MODELS_PER_SCAN)}
    assert set(models_to_scan(padding | models, (), Changes(False, {path}))) - set(padding) == (
        expected
    )


def test_too_many_changes_to_tell_apart_concern_every_model():
    changes = ChangeCollector()
    changes.take()
    for i in range(1001):
        changes.add_path(f"/models/m0/1/{i}")
    assert models_to_scan(MANY, (), changes.take()) == list(MANY)


def test_a_model_that_is_due_is_scanned_first():
    assert models_to_scan(MANY, [LAST], Changes(False, ()))[0] == LAST


@given(count=st.integers(0, 350))
def test_every_model_has_its_turn(count):
    models = {f"m{i}": f"/m/{i}" for i in range(count)}
    seen: list[str] = []
    for _ in range(-(-count // MODELS_PER_SCAN)):
        due = models_to_scan(models, (), Changes(False, ()))
        seen += due
        for name in due:
            models[name] = models.pop(name)
    assert sorted(set(seen)) == sorted(models)


@given(st.lists(st.text(st.sampled_from("ab/"), max_size=8), max_size=4))
def test_any_path_ends(paths):
    models_to_scan({"a": "/a"}, (), Changes(False, [os.fsdecode(p) for p in paths]))
