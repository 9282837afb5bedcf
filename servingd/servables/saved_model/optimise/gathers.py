"""Gathers from variables: which variables serve nothing else, and how a gather shares one.

A `ResourceGather` takes a variable for its own: from the first one on TensorFlow copies what is
read of it, and a variable whose memory belongs to somebody else is copied as a whole. A read and a
gather of what was read copy nothing, and answer the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from servingd.servables.saved_model.files.meta_graph import node_name
from servingd.servables.tensorflow_runtime.runtime import tensorflow

_FROM_VARIABLES = frozenset({"ResourceGather", "ResourceGatherNd"})
_FROM_VALUES = frozenset({"Gather", "GatherNd", "GatherV2"})
_OF_SHAPES = frozenset({"Rank", "Shape", "Size", "VariableShape"})
"""They look at no value. Keras 3 also leaves reads behind that nobody uses."""
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})

_MAX_DEPTH = 64
"""Functions within functions that are followed."""


def has_gathers(graph_def: Any) -> bool:
    """Return whether a graph has a gather straight from a variable, in functions or outside."""
    functions = (function.node_def for function in graph_def.library.function)
    return any(n.op in _FROM_VARIABLES for body in (graph_def.node, *functions) for n in body)


def read_then_gather(body: Any, *, in_function: bool = True) -> None:
    """Make of every gather from a variable, in a graph or a function's body, a read and a gather.

    TensorFlow's converter leaves a `ResourceGather` in a function as it is, though its input is no
    variable any more. Every model with embeddings whose signatures are functions has some.
    """
    for node in [n for n in body if n.op in _FROM_VARIABLES]:
        with_axis = node.op == "ResourceGather"
        batch_dims = node.attr["batch_dims"].i
        read = body.add(name=f"{node.name}/servingd_read", op="ReadVariableOp")
        read.input.extend([node.input[0], *_control(node.input)])
        read.attr["dtype"].CopyFrom(node.attr["dtype"])
        inputs = [f"{read.name}:value:0" if in_function else read.name, node.input[1]]
        if with_axis:
            axis = body.add(name=f"{node.name}/servingd_axis", op="Const")
            axis.attr["dtype"].type = tensorflow().int32.as_datatype_enum
            value = tensorflow().make_tensor_proto(np.int32(batch_dims))
            axis.attr["value"].tensor.CopyFrom(value)
            inputs.append(f"{axis.name}:output:0" if in_function else axis.name)
        inputs += _control(node.input)
        data_type, indices = node.attr["dtype"].type, node.attr["Tindices"].type
        name, device = node.name, node.device
        node.Clear()
        node.name, node.op, node.device = name, "GatherV2" if with_axis else "GatherNd", device
        node.input.extend(inputs)
        node.attr["Tparams"].type = data_type
        node.attr["Tindices"].type = indices
        if with_axis:
            node.attr["Taxis"].type = tensorflow().int32.as_datatype_enum
            node.attr["batch_dims"].i = batch_dims


def _control(inputs: Sequence[str]) -> list[str]:
    return [name for name in inputs if name.startswith("^")]


def needed_nodes(graph_def: Any, roots: Iterable[str]) -> list[Any]:
    """Return the nodes that the nodes `roots` depend on, themselves included."""
    nodes = {node.name: node for node in graph_def.node}
    waiting, found = list(roots), dict[str, Any]()
    while waiting:
        name = waiting.pop()
        if name not in found and name in nodes:
            found[name] = nodes[name]
            waiting += [node_name(tensor) for tensor in nodes[name].input]
    return list(found.values())


def only_gathered(graph_def: Any, variables: Collection[str], roots: Collection[str]) -> list[str]:
    """Return those of the nodes `variables` whose values are gathered from, and not used otherwise.

    What the nodes `roots` need counts as use, and so does what cannot be followed.
    """
    graph = _Graph(graph_def, roots)
    return [name for name in variables if graph.is_gathered(graph.main, name, 0)]


class _Body:
    """The nodes of a graph or a function, by what they consume."""

    def __init__(self, nodes: Any, results: Collection[str] = ()) -> None:
        self.results = {node_name(tensor) for tensor in results}
        self._consumers: dict[str, list[tuple[Any, int]]] = {}
        for node in nodes:
            for place, tensor in enumerate(node.input):
                if not tensor.startswith("^"):
                    self._consumers.setdefault(node_name(tensor), []).append((node, place))

    def consumers(self, name: str) -> Iterator[tuple[Any, int]]:
        """Yield the nodes that take an output of a node, and as which of their inputs."""
        yield from self._consumers.get(name, ())


class _Graph:
    """A graph with its functions."""

    def __init__(self, graph_def: Any, roots: Collection[str]) -> None:
        self.main = _Body(needed_nodes(graph_def, roots), roots)
        self._functions: Mapping[str, Any] = {
            f.signature.name: f for f in graph_def.library.function
        }
        self._bodies: dict[str, _Body] = {}

    def is_gathered(self, body: _Body, name: str, depth: int) -> bool:
        """Return whether a variable, or what was read of it, is gathered from and no more.

        `name` is the node, or the argument of a function, that is followed.
        """
        if name in body.results or depth > _MAX_DEPTH:
            return False
        return all(self._gathers(body, node, place, depth) for node, place in body.consumers(name))

    def _gathers(self, body: _Body, node: Any, place: int, depth: int) -> bool:
        if node.op in _FROM_VALUES or node.op in _FROM_VARIABLES:
            return place == 0
        if node.op in _OF_SHAPES:
            return True
        if node.op in {"ReadVariableOp", "Identity"}:
            return self.is_gathered(body, node.name, depth)
        function = node.attr["f"].func.name if node.op in _CALLS else node.op
        if function not in self._functions:
            return False
        called = self._functions[function]
        argument = called.signature.input_arg[place].name
        return self.is_gathered(self._body(function), argument, depth + 1)

    def _body(self, function: str) -> _Body:
        if function not in self._bodies:
            definition = self._functions[function]
            self._bodies[function] = _Body(definition.node_def, definition.ret.values())
        return self._bodies[function]
