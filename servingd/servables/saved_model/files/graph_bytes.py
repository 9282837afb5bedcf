"""Counts the bytes of constants in a SavedModel's graph, without parsing it into messages.

Constants take a few times their bytes in memory. The rest, nodes and their names, takes many times
its bytes once it is a graph with kernels and plans. So estimates count them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import TypeAlias

from servingd.wire.varints import read_varint64

_LARGE = 1 << 10
"""Bytes: a larger node is a constant, as name, inputs and types take a hundred."""

_META_GRAPHS, _GRAPH_DEF, _NODE, _LIBRARY, _FUNCTION, _NODE_DEF = 2, 2, 1, 2, 1, 3
"""Fields of SavedModel, MetaGraphDef, GraphDef (two), FunctionDefLibrary and FunctionDef."""

_Place: TypeAlias = tuple[int, int]
"""Where something begins and ends."""


def constant_bytes(content: bytes | mmap) -> int:
    """Return the bytes of constants in the content of `saved_model.pb`; 0 if it does not parse."""
    found = 0
    with memoryview(content) as view:  # places, and no views: a map with a view cannot be closed
        try:
            for meta_graph in _fields(view, (0, len(view)), _META_GRAPHS):
                for graph in _fields(view, meta_graph, _GRAPH_DEF):
                    for start, end in _nodes(view, graph):
                        found += end - start if end - start > _LARGE else 0
        except ValueError:
            return 0
    return found


def _nodes(view: memoryview, graph: _Place) -> Iterator[_Place]:
    yield from _fields(view, graph, _NODE)
    for library in _fields(view, graph, _LIBRARY):
        for function in _fields(view, library, _FUNCTION):
            if function[1] - function[0] > _LARGE:
                yield from _fields(view, function, _NODE_DEF)


def _fields(view: memoryview, message: _Place, number: int) -> Iterator[_Place]:
    """Yield where the contents of one field of a message lie. Raises ValueError."""
    at, end = message
    while at < end:
        tag, at = read_varint64(view, at)
        kind = tag & 7
        if kind == 2:
            size, at = read_varint64(view, at)
            if at + size > end:
                raise ValueError("a field lies past its message")
            if tag >> 3 == number:
                yield at, at + size
            at += size
        elif kind == 0:
            _, at = read_varint64(view, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
