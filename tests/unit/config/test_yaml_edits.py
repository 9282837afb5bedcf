"""Changes of `servingd.yaml`: what was asked for, and every other byte as it was."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from servingd.config.models import ModelConfig
from servingd.config.yaml.edits import ADD, REMOVE, REMOVE_LABEL, SET_LABELS, ModelEdit
from servingd.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

FILE = """\
# Ours, since 2026.
rest_api_port: 8501   # for the gateway

models:
# The first.
- name: mnist
  base_path: /models/mnist   # on the fast disk
  version_labels:
    stable: 3    # since May
    canary: 4
# The second.
- name: "half"
  base_path: /models/half
  version_labels: {stable: 1}

# The end.
"""


def served(text: str) -> dict[str, ModelConfig]:
    return {
        entry["name"]: ModelConfig(
            name=entry["name"],
            base_path=entry.get("base_path", "/elsewhere"),
            version_labels=entry.get("version_labels") or {},
        )
        for entry in (yaml.safe_load(text) or {}).get("models") or ()
    }


def change(text: str, kind: str, model: str, **content) -> str:
    return ModelEdit(kind, model, content).apply(text, served(text))


def test_a_model_is_added_after_the_others():
    new = change(FILE, ADD, "m", base_path="/models/m")
    assert new == FILE.replace("{stable: 1}\n", "{stable: 1}\n- name: m\n  base_path: /models/m\n")


@pytest.mark.parametrize(
    "text",
    ["", "port: 1", "port: 1\nmodels:\n", "models: []\nport: 1\n", "models: null # none\n"],
)
def test_the_first_model_is_added(text):
    new = change(text, ADD, "m", base_path="/m")
    before = yaml.safe_load(text) or {}
    assert yaml.safe_load(new) == {**before, "models": [{"name": "m", "base_path": "/m"}]}


def test_indented_items_stay_so():
    text = "models:\n  - name: a\n    base_path: /a"
    new = change(text, ADD, "m", base_path="/m")
    assert new == text + "\n  - name: m\n    base_path: /m\n"


def test_a_model_is_removed_and_every_comment_stays():
    new = change(FILE, REMOVE, "mnist")
    assert "# The first." in new
    assert "# The second." in new
    assert "mnist" not in new
    assert "since May" not in new  # it stood in a line of the model
    last = change(new, REMOVE, "half")
    assert yaml.safe_load(last) == {"rest_api_port": 8501, "models": []}
    assert "# The end." in last


def test_labels_with_a_line_each():
    new = change(FILE, SET_LABELS, "mnist", canary=5, old=2)
    assert new == FILE.replace("canary: 4\n", "canary: 5\n    old: 2\n")
    assert change(FILE, REMOVE_LABEL, "mnist", label="canary") == FILE.replace(
        "    canary: 4\n", ""
    )


def test_labels_in_one_line():
    new = change(FILE, SET_LABELS, "half", stable=2, **{"a b": 1})
    assert new == FILE.replace("{stable: 1}", "{stable: 2, a b: 1}")


def test_the_first_and_the_last_label():
    text = "models:\n- name: a\n  base_path: /a\n"
    new = change(text, SET_LABELS, "a", stable=1)
    assert new == text + "  version_labels: {stable: 1}\n"
    assert change(new, REMOVE_LABEL, "a", label="stable") == text + "  version_labels: {}\n"
    block = "models:\n- name: a\n  version_labels:\n    x: 1\n  base_path: /a\n"
    assert change(block, REMOVE_LABEL, "a", label="x") == block.replace(":\n    x: 1", ": {}")


def test_a_model_of_another_source_gets_an_entry_for_its_labels():
    models = {"m": ModelConfig(name="m", base_path="/m", version_labels={"stable": 1})}
    new = ModelEdit(SET_LABELS, "m", {"canary": 2}).apply("port: 1\n", models)
    labels = {"stable": 1, "canary": 2}
    assert yaml.safe_load(new)["models"] == [{"name": "m", "version_labels": labels}]


def test_what_is_refused():
    with pytest.raises(AlreadyExists, match="mnist is configured already"):
        change(FILE, ADD, "mnist", base_path="/m")
    with pytest.raises(InvalidArgument, match="basepath: no field of a model"):
        change(FILE, ADD, "m", basepath="/m")
    with pytest.raises(NotFound, match="no model nobody"):
        change(FILE, REMOVE, "nobody")
    with pytest.raises(NotFound, match="no label old; there are: canary, stable"):
        change(FILE, REMOVE_LABEL, "mnist", label="old")
    with pytest.raises(FailedPrecondition, match="does not come from servingd"):
        ModelEdit(REMOVE, "m").apply("", {"m": ModelConfig(name="m", base_path="/m")})
    with pytest.raises(FailedPrecondition, match="a line for each field"):
        change("models: [{name: a, base_path: /a}]\n", ADD, "m", base_path="/m")


NAMES = st.text("abcde\"':#- {é", min_size=1, max_size=6).filter(lambda t: t.strip() == t)
LABELS = st.dictionaries(NAMES, st.integers(0, 99), max_size=3)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES, "base_path": NAMES.map(lambda n: "/" + n)},
        optional={"version_labels": LABELS},
    ),
    max_size=2,
    unique_by=lambda entry: entry["name"],
)


@settings(max_examples=40, deadline=None)
@given(ENTRIES, NAMES, LABELS, st.booleans(), st.booleans())
def test_any_file_says_what_was_asked_for(entries, name, labels, flow, comments):
    text = yaml.safe_dump(
        {"port": 1, "models": entries},
        default_flow_style=None if flow else False,
        sort_keys=False,
        allow_unicode=True,
    )
    if comments:
        text = "".join(f"# line {i}\n{line}\n" for i, line in enumerate(text.splitlines()))
    for entry in entries:
        try:
            new = change(text, SET_LABELS, entry["name"], **labels)
        except FailedPrecondition:  # entries in one line each
            assert flow
            continue
        made = {e["name"]: e.get("version_labels") for e in yaml.safe_load(new)["models"]}
        assert made[entry["name"]] == {**(entry.get("version_labels") or {}), **labels}
        gone = yaml.safe_load(change(text, REMOVE, entry["name"]))
        assert gone["models"] == [e for e in entries if e is not entry]
    if name not in {e["name"] for e in entries}:
        try:
            new = change(text, ADD, name, base_path="/x")
        except FailedPrecondition:
            assert flow
        else:
            assert yaml.safe_load(new)["models"][-1] == {"name": name, "base_path": "/x"}
            assert all(line in new for line in text.splitlines() if line.startswith("#"))
