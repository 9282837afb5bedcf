"""A graph as the row-wise analysis walks it: bodies of nodes, and calls of those bodies.

References to tensors are TensorFlow's: `node`, `node:1`, in a function's body `node:output:1`, and
`^node` for a control input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from servingd.servables.saved_model.files.meta_graph import node_name
from servingd.servables.saved_model.merging.row_wise.values import Value


class Body(NamedTuple):
    """A function's body, or the graph itself."""

    nodes: Mapping[str, Any]
    arguments: Sequence[str]
    returns: Sequence[str]
    """References to the tensors that it returns, in order of its outputs."""


class Frame:
    """One call of a body: what is known of its tensors so far."""

    __slots__ = ("body", "fed", "known", "scope")

    def __init__(self, body: Body, scope: str, fed: Mapping[tuple[str, int], Value]) -> None:
        """`scope` names the calls that lead here; `fed` are values by node and output."""
        self.body = body
        self.scope = scope
        self.fed = fed
        self.known: dict[str, Sequence[Value] | None] = {}
        """By node; None while its inputs are being worked out."""

    def is_fed(self, node: str) -> bool:
        """Return whether nothing but a node's first output matters, and that is fed."""
        return (node, 0) in self.fed


def function_body(function: Any) -> Body:
    """Return the body of a `tensorflow.FunctionDef`, or of its twin in `servingd.Graph`."""
    return Body(
        {node.name: node for node in function.node_def},
        [a.name for a in function.signature.input_arg],
        [function.ret[o.name] for o in function.signature.output_arg],
    )


def data_inputs(node: Any) -> list[str]:
    """Return the references of a node's inputs, without control inputs."""
    return [source for source in node.input if not source.startswith("^")]


def reached_nodes(nodes: Mapping[str, Any], roots: Iterable[str]) -> list[Any]:
    """Return all nodes that run for the tensors `roots`, control inputs included."""
    waiting, seen = [node_name(root) for root in roots], set[str]()
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in seen:
            seen.add(name)
            waiting += [node_name(source) for source in nodes[name].input]
    return [nodes[name] for name in seen]


def split_reference(tensor: str) -> tuple[str, int]:
    """Return the node and the output's number of a reference outside functions."""
    name, _, position = tensor.partition(":")
    return name, int(position or 0)
