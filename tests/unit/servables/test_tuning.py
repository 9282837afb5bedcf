"""What is found out about graphs, and for which other graphs it holds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import DataType, Signature, TensorSpec
from servingd.servables.saved_model.merging.row_wise.verdicts import Mergeable
from servingd.servables.saved_model.optimise.tuning import (
    Tuning,
    TuningCache,
    graph_kind,
    read_tuning,
    settings_digest,
    write_tuning,
)

TUNING = Tuning(True, 2, Mergeable({"f": 16}, {"g": "it reduces over the rows"}))


def signatures(size: int | None = None, tensor: str = "x:0") -> dict[str, Signature]:
    spec = TensorSpec(DataType.FLOAT, (size,), tensor)
    return {"f": Signature("f", {"x": spec}, {"y": spec})}


def graph(*types: str, function: str = "f_1", inner: tuple[str, ...] = ("MatMul",)) -> Any:
    body = SimpleNamespace(
        signature=SimpleNamespace(name=function), node_def=[SimpleNamespace(op=t) for t in inner]
    )
    nodes = [SimpleNamespace(op=t) for t in types]
    return SimpleNamespace(node=nodes, library=SimpleNamespace(function=[body]))


PLAIN = graph("VarHandleOp", "PartitionedCall")


def test_names_do_not_make_another_kind():
    one = graph_kind(PLAIN, signatures(), 12, "s")
    other = graph("PartitionedCall", "VarHandleOp", function="f_2")
    assert graph_kind(other, signatures(tensor="y:0"), 12, "s") == one


@pytest.mark.parametrize(
    "another",
    [
        (graph("VarHandleOp", "PartitionedCall", "Relu"), signatures(), 12, "s"),
        (
            graph("VarHandleOp", "PartitionedCall", inner=("MatMul", "MatMul")),
            signatures(),
            12,
            "s",
        ),
        (PLAIN, signatures(3), 12, "s"),
        (PLAIN, signatures(), 13, "s"),
        (PLAIN, signatures(), 12, "t"),
    ],
    ids=["operation", "operation in a function", "shape", "weights", "setting"],
)
def test_what_makes_another_kind(another):
    assert graph_kind(*another) != graph_kind(PLAIN, signatures(), 12, "s")


def test_what_makes_another_setting():
    usual = SavedModelOptions()
    others = [
        settings_digest(SavedModelOptions(intra_op_threads=2), 1, 2, True),
        settings_digest(SavedModelOptions(session_config=b"x"), 1, 2, True),
        settings_digest(SavedModelOptions(virtual_cpu_devices=2), 1, 2, True),
        settings_digest(usual, 2, 2, True),
        settings_digest(usual, 1, 4, True),
        settings_digest(usual, 1, 2, False),
    ]
    assert len({settings_digest(usual, 1, 2, True), *others}) == 7
    assert settings_digest(SavedModelOptions(), 1, 2, True) == settings_digest(usual, 1, 2, True)


@pytest.fixture
def tuned(tmp_path) -> Path:
    """A graph's file, with what was found out about it."""
    file = tmp_path / "graph.pb"
    file.write_bytes(b"a graph")
    write_tuning(file, "s", TUNING)
    return file


def test_a_tuning_is_read_as_it_was_written(tuned):
    assert read_tuning(tuned, "s") == TUNING
    assert {file.name for file in tuned.parent.iterdir()} == {"graph.pb", "tuning.json"}


def test_in_another_setting_nothing_was_found_out(tuned):
    assert read_tuning(tuned, "t") is None


def test_of_another_graph_nothing_was_found_out(tuned):
    os.utime(tuned, (1, 1))
    assert read_tuning(tuned, "s") is None
    write_tuning(tuned, "s", TUNING)
    tuned.write_bytes(b"a longer graph")
    os.utime(tuned, (1, 1))
    assert read_tuning(tuned, "s") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff", ("threads", "many"), ("threads", None), ("rows", 3)],
)
def test_what_cannot_be_read_was_not_found_out(tuned, content):
    said = tuned.with_name("tuning.json")
    if isinstance(content, tuple):
        content = json.dumps({**json.loads(said.read_text()), content[0]: content[1]}).encode()
    said.write_bytes(content)
    assert read_tuning(tuned, "s") is None


def test_a_folder_that_is_gone_is_no_matter(tmp_path):
    gone = tmp_path / "gone" / "graph.pb"
    write_tuning(gone, "s", TUNING)
    assert read_tuning(gone, "s") is None


def test_the_kinds_that_were_not_used_for_the_longest_time_are_forgotten():
    tunings = TuningCache()
    tunings.store("first", TUNING)
    for i in range(63):
        tunings.store(str(i), TUNING)
    assert tunings.find("first") is TUNING
    tunings.store("one more", TUNING)
    assert tunings.find("0") is None
    assert tunings.find("first") is TUNING
