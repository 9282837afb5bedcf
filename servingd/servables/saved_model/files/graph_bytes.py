"""Counts the bytes of constants in a SavedModel's graph, without parsing it into messages.

Constants take a few times their bytes in memory. The rest, nodes and their names, takes many times
its bytes once it is a graph with kernels and plans. So estimates count them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

from servingd.wire.fields import Place, places_of

_LARGE = 1 << 10
"""Bytes: a larger node is a constant, as name, inputs and types take a hundred."""

_META_GRAPHS, _GRAPH_DEF, _NODE, _LIBRARY, _FUNCTION, _NODE_DEF = 2, 2, 1, 2, 1, 3
"""Fields of SavedModel, MetaGraphDef, GraphDef (two), FunctionDefLibrary and FunctionDef."""


def constant_bytes(content: bytes | mmap) -> int:
    """Return the bytes of constants in the content of `saved_model.pb`; 0 if it does not parse."""
    found = 0
    with memoryview(content) as view:  # places, and no views: a map with a view cannot be closed
        try:
            for meta_graph in places_of(view, (0, len(view)), _META_GRAPHS):
                for graph in places_of(view, meta_graph, _GRAPH_DEF):
                    for start, end in _nodes(view, graph):
                        found += end - start if end - start > _LARGE else 0
        except ValueError:
            return 0
    return found


def _nodes(view: memoryview, graph: Place) -> Iterator[Place]:
    yield from places_of(view, graph, _NODE)
    for library in places_of(view, graph, _LIBRARY):
        for function in places_of(view, library, _FUNCTION):
            if function[1] - function[0] > _LARGE:
                yield from places_of(view, function, _NODE_DEF)
