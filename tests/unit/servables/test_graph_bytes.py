"""How much of a graph are constants, by its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.servables.saved_model.files.graph_bytes import constant_bytes


def varint(value):
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes((*groups, value))


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def node(name, size):
    return message(1, name.encode()) + message(5, bytes(size))


def saved_model(nodes=(), in_functions=()):
    functions = b"".join(message(1, message(1, b"f") + message(3, n)) for n in in_functions)
    graph = b"".join(message(1, n) for n in nodes) + message(2, functions)
    meta_graph = message(1, b"") + message(2, graph) + message(3, b"saver")
    return b"\x08\x01" + message(2, meta_graph)


def test_large_nodes_are_constants_in_graphs_and_functions():
    small, large, larger = node("a", 100), node("b", 5000), node("c", 200_000)
    assert constant_bytes(saved_model([small])) == 0
    assert constant_bytes(saved_model([small, large])) == len(large)
    assert constant_bytes(saved_model([small, large], [larger])) == len(large) + len(larger)


def test_fields_of_other_kinds_are_passed_over():
    assert constant_bytes(b"\x11" + bytes(8) + b"\x1d" + bytes(4) + saved_model([])) == 0


@pytest.mark.parametrize("cut", [1, 5, 30, 2000])
def test_what_is_cut_off_has_none(cut):
    assert constant_bytes(saved_model([node("a", 5000)])[:-cut]) == 0


@given(st.binary(max_size=300))
def test_any_bytes_give_a_number(content):
    assert 0 <= constant_bytes(content) <= len(content)
