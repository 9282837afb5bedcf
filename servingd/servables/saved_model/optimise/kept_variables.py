"""Large variables that stay variables in an optimised graph, and get their values from outside.

As constants they would be in memory many times. The optimised graph gets a placeholder for each,
and one operation that assigns them all. What is assigned is what the plain session reads:
TensorFlow shares the memory, and the optimised graph writes to no variable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from servingd.servables.saved_model.session.opening import ASSIGN
from servingd.servables.tensorflow_runtime.runtime import tensorflow

_PREFIX = "servingd_value/"


def read_of(variable: str) -> str:
    """Return the name of the node that reads a variable in a plain graph."""
    return f"{variable}/Read/ReadVariableOp"


def variable_bytes(node: Any) -> int:
    """Return the bytes of the variable of a node; 0 if it has none of a fixed size."""
    if node.op != "VarHandleOp" or node.attr["shape"].shape.unknown_rank:
        return 0
    sizes = [dim.size for dim in node.attr["shape"].shape.dim]
    if min(sizes, default=0) < 0:
        return 0
    item: int = tensorflow().as_dtype(node.attr["dtype"].type).size
    count: int = math.prod(sizes)
    return count * item


def add_values(graph_def: Any, variables: Sequence[str]) -> None:
    """Add to an optimised graph what gives those of the variables their values that are left."""
    nodes = {node.name: node for node in graph_def.node}
    assigned = []
    for name in variables:
        if name not in nodes:
            continue
        data_type = nodes[name].attr["dtype"].type
        place = graph_def.node.add(name=f"{_PREFIX}{name}", op="Placeholder")
        place.attr["dtype"].type = data_type
        place.attr["shape"].CopyFrom(nodes[name].attr["shape"])
        assign = graph_def.node.add(name=f"{ASSIGN}/{name}", op="AssignVariableOp")
        assign.input.extend([name, place.name])
        assign.attr["dtype"].type = data_type
        assigned.append(f"^{assign.name}")
    if assigned:
        graph_def.node.add(name=ASSIGN, op="NoOp").input.extend(assigned)


def values_of(graph_def: Any) -> dict[str, str]:
    """Return by each placeholder what is to be read in the plain graph for it."""
    names = [node.name for node in graph_def.node if node.name.startswith(_PREFIX)]
    return {f"{name}:0": f"{read_of(name.removeprefix(_PREFIX))}:0" for name in names}
