"""The table of operators: what each does to rows. What is not in it is not merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servingd.servables.onnx.row_wise import elementwise, layers, shapes
from servingd.servables.onnx.row_wise.values import Dim, Node, Rule, Same, Value

RULES: Mapping[str, Rule] = {**elementwise.RULES, **layers.RULES, **shapes.RULES}

_AT_RANDOM = frozenset({"Dropout"})
"""Operators of the table whose answers may differ for the same inputs."""
_KEEPS_SHAPE = frozenset({"Cast", "Identity", "DequantizeLinear", "QuantizeLinear", "Relu", "Clip"})
_KEEPS_CONTENT = frozenset({"Identity"})


def same_of(node: Node) -> Sequence[Value] | None:
    """Return what a node makes of inputs that are the same for all rows; None: not known."""
    if node.op not in RULES or node.op in _AT_RANDOM:
        return None
    first = node.input(0)
    dims: tuple[Dim, ...] | None = None
    content = None
    if isinstance(first, Same) and first.dims is not None:
        if node.op in _KEEPS_SHAPE:
            dims = first.dims
            content = first.content if node.op in _KEEPS_CONTENT else None
        elif node.op == "Transpose":
            order = node.integers("perm") or tuple(reversed(range(len(first.dims))))
            dims = tuple(first.dims[axis] for axis in order)
    return [Same(dims, content)] * len(node.outputs)
